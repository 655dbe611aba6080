//! Readings.
use super::pod::metadata;
use super::u64_value;
use berth_engine::{ContainerView, PodReading};
use berth_proto::cri as wire;
use berth_stats::{
    ContainerStats, CpuUsage, InterfaceUsage, IoUsage, MemoryUsage, Pressure, PressureLine, SwapUsage, WritableLayer,
};

/// The interface that a pod is reached by, by the convention of CNI; without one of that name it is the first.
const DEFAULT_INTERFACE: &str = "eth0";

/// A pod's readings. `linux` is always there: the kubelet does not look whether it is.
pub(crate) fn pod_stats(reading: &PodReading) -> wire::PodSandboxStats {
    let record = &reading.view.record;
    let config = &record.config;
    let usage = &reading.stats.usage;
    let at = usage.taken_at;
    wire::PodSandboxStats {
        attributes: Some(wire::PodSandboxAttributes {
            id: reading.view.id.to_string(),
            metadata: metadata(&config.metadata),
            labels: config.labels.clone().into_iter().collect(),
            annotations: config.annotations.clone().into_iter().collect(),
        }),
        linux: Some(wire::LinuxPodSandboxStats {
            cpu: usage.cpu.as_ref().map(|c| pod_cpu(at, c, reading.nano_cores)),
            memory: usage.memory.as_ref().map(|m| memory(at, m)),
            network: reading.stats.network.as_ref().and_then(|interfaces| network(at, interfaces)),
            process: Some(wire::ProcessUsage { timestamp: at, process_count: u64_value(reading.stats.processes) }),
            containers: reading.containers.iter().map(|(view, stats)| container_stats(view, stats)).collect(),
            io: usage.io.as_ref().map(|i| io(at, i)),
        }),
        windows: None,
    }
}

/// The default interface, and the others. Nothing without an interface: the kubelet does not look whether the default is there.
fn network(timestamp: i64, interfaces: &[InterfaceUsage]) -> Option<wire::NetworkUsage> {
    let default = interfaces.iter().position(|i| i.name == DEFAULT_INTERFACE).unwrap_or(0);
    let others = interfaces.iter().enumerate().filter(|(i, _)| *i != default).map(|(_, usage)| interface(usage));
    Some(wire::NetworkUsage {
        timestamp,
        default_interface: Some(interface(interfaces.get(default)?)),
        interfaces: others.collect(),
    })
}

fn interface(usage: &InterfaceUsage) -> wire::NetworkInterfaceUsage {
    wire::NetworkInterfaceUsage {
        name: usage.name.clone(),
        rx_bytes: u64_value(usage.rx_bytes),
        rx_errors: u64_value(usage.rx_errors),
        tx_bytes: u64_value(usage.tx_bytes),
        tx_errors: u64_value(usage.tx_errors),
    }
}

/// With the rate: the kubelet computes those of containers, and takes a pod's as it is.
fn pod_cpu(timestamp: i64, usage: &CpuUsage, nano_cores: u64) -> wire::CpuUsage {
    wire::CpuUsage { usage_nano_cores: u64_value(nano_cores), ..cpu(timestamp, usage) }
}

/// A container's readings. What the kernel does not tell is absent, not zero; rates are the kubelet's to compute.
pub(crate) fn container_stats(view: &ContainerView, stats: &ContainerStats) -> wire::ContainerStats {
    let config = &view.record.config;
    let usage = &stats.usage;
    let at = usage.taken_at;
    wire::ContainerStats {
        attributes: Some(wire::ContainerAttributes {
            id: view.id.to_string(),
            metadata: Some(wire::ContainerMetadata {
                name: config.metadata.name.clone(),
                attempt: config.metadata.attempt,
            }),
            labels: config.labels.clone().into_iter().collect(),
            annotations: config.annotations.clone().into_iter().collect(),
        }),
        cpu: usage.cpu.as_ref().map(|c| cpu(at, c)),
        memory: usage.memory.as_ref().map(|m| memory(at, m)),
        writable_layer: stats.writable_layer.as_ref().map(layer),
        swap: usage.swap.as_ref().map(|s| swap(at, s)),
        io: usage.io.as_ref().map(|i| io(at, i)),
    }
}

fn cpu(timestamp: i64, cpu: &CpuUsage) -> wire::CpuUsage {
    let psi = cpu.pressure.as_ref().map(pressure);
    wire::CpuUsage { timestamp, usage_core_nano_seconds: u64_value(cpu.total), usage_nano_cores: None, psi }
}

fn memory(timestamp: i64, memory: &MemoryUsage) -> wire::MemoryUsage {
    wire::MemoryUsage {
        timestamp,
        working_set_bytes: u64_value(memory.working_set),
        available_bytes: memory.available.and_then(u64_value),
        usage_bytes: u64_value(memory.usage),
        rss_bytes: u64_value(memory.rss),
        page_faults: u64_value(memory.page_faults),
        major_page_faults: u64_value(memory.major_page_faults),
        psi: memory.pressure.as_ref().map(pressure),
    }
}

fn swap(timestamp: i64, swap: &SwapUsage) -> wire::SwapUsage {
    wire::SwapUsage {
        timestamp,
        swap_available_bytes: swap.available.and_then(u64_value),
        swap_usage_bytes: u64_value(swap.usage),
    }
}

fn io(timestamp: i64, io: &IoUsage) -> wire::IoUsage {
    wire::IoUsage { timestamp, psi: io.pressure.as_ref().map(pressure) }
}

fn layer(layer: &WritableLayer) -> wire::FilesystemUsage {
    let mountpoint = layer.file_system.to_string_lossy().into_owned();
    wire::FilesystemUsage {
        timestamp: layer.taken_at,
        fs_id: Some(wire::FilesystemIdentifier { mountpoint }),
        used_bytes: u64_value(layer.used_bytes),
        inodes_used: u64_value(layer.inodes_used),
    }
}

fn pressure(p: &Pressure) -> wire::PsiStats {
    let line = |l: &PressureLine| wire::PsiData { total: l.total, avg10: l.avg10, avg60: l.avg60, avg300: l.avg300 };
    wire::PsiStats { full: Some(line(&p.full)), some: Some(line(&p.some)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_interface_is_told_apart() {
        let named = |name: &str| InterfaceUsage { name: name.into(), rx_bytes: 1, ..InterfaceUsage::default() };
        let told = network(5, &[named("net1"), named("eth0")]).unwrap();
        assert_eq!(told.default_interface.unwrap().name, "eth0");
        assert_eq!(told.interfaces.iter().map(|i| i.name.as_str()).collect::<Vec<_>>(), ["net1"]);
        assert_eq!(network(5, &[named("ens3")]).unwrap().default_interface.unwrap().name, "ens3");
        assert_eq!(network(5, &[]), None, "a default interface that is not there would end the kubelet");
    }
}
