//! Samples of the CRI's metrics calls, from readings.
//!
//! Owns: which reading goes into which series, and labels in the order of the table. Must not: read anything.
//! Values are whole numbers on this wire: seconds are cut.
mod table;

pub use table::{BASE_LABELS, Kind, METRICS, Metric};

use crate::{ContainerStats, FileSystem, InterfaceUsage, ProcessUsage, device_name};
use berth_cgroups::{CpuUsage, IoUsage, MemoryUsage, Pressure, Usage};
use berth_model::{Resources, UnixNanos};
use table::*;

const NANOS: u64 = 1_000_000_000;
const MICROS: u64 = 1_000_000;

/// One value of one series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The series.
    pub metric: &'static Metric,
    /// Values of its labels, in the order of [`Metric::label_keys`].
    pub labels: Vec<String>,
    /// The value.
    pub value: u64,
}

/// Whose samples they are: the values of [`BASE_LABELS`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// Name of the container; empty for a pod.
    pub container: String,
    /// Path of the group.
    pub id: String,
    /// The image; empty for a pod.
    pub image: String,
    /// Id of the container; empty for a pod.
    pub name: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
}

/// Samples of one subject, while they are put together.
struct Samples {
    base: Vec<String>,
    list: Vec<Sample>,
}

impl Samples {
    fn of(subject: Subject) -> Self {
        let Subject { container, id, image, name, namespace, pod } = subject;
        Self { base: vec![container, id, image, name, namespace, pod], list: Vec::new() }
    }

    fn put(&mut self, metric: &'static Metric, labels: &[&str], value: u64) {
        debug_assert_eq!(labels.len(), metric.labels.len(), "{}", metric.name);
        let labels = self.base.iter().cloned().chain(labels.iter().map(|l| (*l).to_owned())).collect();
        self.list.push(Sample { metric, labels, value });
    }

    /// What every group has.
    fn group(&mut self, usage: &Usage, limits: &Resources, processes: u64) {
        self.put(&LAST_SEEN, &[], seconds(usage.taken_at));
        if let Some(cpu) = &usage.cpu {
            self.cpu(cpu);
        }
        if let Some(memory) = &usage.memory {
            self.memory(memory);
        }
        self.put(&MEMORY_SWAP, &[], usage.swap.as_ref().map_or(0, |s| s.usage));
        if let Some(io) = &usage.io {
            self.io(io);
        }
        for page in &usage.hugepages {
            self.put(&HUGETLB_USAGE, &[&page.page_size], page.usage);
            if let Some(peak) = page.peak {
                self.put(&HUGETLB_PEAK, &[&page.page_size], peak);
            }
        }
        self.put(&PROCESSES, &[], processes);
        if let Some(pids) = &usage.pids {
            self.put(&THREADS, &[], pids.current);
            self.put(&THREADS_MAX, &[], pids.limit.unwrap_or_default());
        }
        self.limits(limits);
    }

    fn cpu(&mut self, cpu: &CpuUsage) {
        self.put(&CPU_USAGE, &["total"], cpu.total / NANOS);
        self.put(&CPU_USER, &[], cpu.user / NANOS);
        self.put(&CPU_SYSTEM, &[], cpu.system / NANOS);
        self.put(&CPU_PERIODS, &[], cpu.periods);
        self.put(&CPU_THROTTLED_PERIODS, &[], cpu.throttled_periods);
        self.put(&CPU_THROTTLED, &[], cpu.throttled / NANOS);
        self.pressure(cpu.pressure.as_ref(), &PRESSURE_CPU_WAITING, &PRESSURE_CPU_STALLED);
    }

    fn memory(&mut self, memory: &MemoryUsage) {
        self.put(&MEMORY_USAGE, &[], memory.usage);
        self.put(&MEMORY_WORKING_SET, &[], memory.working_set);
        self.put(&MEMORY_RSS, &[], memory.rss);
        self.put(&MEMORY_CACHE, &[], memory.cache);
        self.put(&MEMORY_MAPPED_FILE, &[], memory.mapped_file);
        self.put(&MEMORY_KERNEL, &[], memory.kernel);
        // Kernels before 5.19 keep no peak on v2; the present use is a lower bound of it.
        self.put(&MEMORY_PEAK, &[], memory.peak.unwrap_or(memory.usage));
        self.put(&MEMORY_LIMIT_HITS, &[], memory.limit_hits);
        // Groups have no children of their own as a rule, so both scopes are one.
        for scope in ["container", "hierarchy"] {
            self.put(&MEMORY_FAULTS, &["pgfault", scope], memory.page_faults);
            self.put(&MEMORY_FAULTS, &["pgmajfault", scope], memory.major_page_faults);
        }
        self.put(&OOM_EVENTS, &[], memory.oom_kills);
        self.pressure(memory.pressure.as_ref(), &PRESSURE_MEMORY_WAITING, &PRESSURE_MEMORY_STALLED);
    }

    fn io(&mut self, io: &IoUsage) {
        for device in &io.devices {
            let name = device_name(device.major, device.minor);
            let (major, minor) = (device.major.to_string(), device.minor.to_string());
            self.put(&FS_READS_BYTES, &[&name], device.read_bytes);
            self.put(&FS_READS, &[&name], device.reads);
            self.put(&FS_WRITES_BYTES, &[&name], device.write_bytes);
            self.put(&FS_WRITES, &[&name], device.writes);
            self.put(&BLKIO, &[&name, &major, &minor, "Read"], device.read_bytes);
            self.put(&BLKIO, &[&name, &major, &minor, "Write"], device.write_bytes);
        }
        self.pressure(io.pressure.as_ref(), &PRESSURE_IO_WAITING, &PRESSURE_IO_STALLED);
    }

    fn pressure(&mut self, pressure: Option<&Pressure>, waiting: &'static Metric, stalled: &'static Metric) {
        if let Some(pressure) = pressure {
            self.put(waiting, &[], pressure.some.total / MICROS);
            self.put(stalled, &[], pressure.full.total / MICROS);
        }
    }

    fn limits(&mut self, limits: &Resources) {
        let bytes = |limit: Option<i64>| limit.and_then(|n| u64::try_from(n).ok()).unwrap_or_default();
        if let Some(period) = limits.cpu_period {
            self.put(&SPEC_CPU_PERIOD, &[], period);
        }
        if let Some(quota) = limits.cpu_quota.and_then(|quota| u64::try_from(quota).ok()) {
            self.put(&SPEC_CPU_QUOTA, &[], quota);
        }
        if let Some(shares) = limits.cpu_shares {
            self.put(&SPEC_CPU_SHARES, &[], shares);
        }
        self.put(&SPEC_MEMORY_LIMIT, &[], bytes(limits.memory_limit));
        self.put(&SPEC_MEMORY_SWAP, &[], bytes(limits.memory_swap_limit));
        let reservation = limits.unified.get("memory.low").and_then(|low| low.trim().parse().ok());
        self.put(&SPEC_MEMORY_RESERVATION, &[], reservation.unwrap_or_default());
    }
}

/// Samples of a pod: its group, without what containers alone have, and its network.
pub fn pod_samples(
    subject: Subject,
    started_at: UnixNanos,
    (usage, limits, processes): (&Usage, &Resources, u64),
    network: &[InterfaceUsage],
) -> Vec<Sample> {
    let mut samples = Samples::of(subject);
    samples.group(usage, limits, processes);
    samples.put(&START_TIME, &[], seconds(started_at));
    for interface in network {
        let name = [interface.name.as_str()];
        samples.put(&NETWORK_RX_BYTES, &name, interface.rx_bytes);
        samples.put(&NETWORK_RX_PACKETS, &name, interface.rx_packets);
        samples.put(&NETWORK_RX_ERRORS, &name, interface.rx_errors);
        samples.put(&NETWORK_RX_DROPPED, &name, interface.rx_dropped);
        samples.put(&NETWORK_TX_BYTES, &name, interface.tx_bytes);
        samples.put(&NETWORK_TX_PACKETS, &name, interface.tx_packets);
        samples.put(&NETWORK_TX_ERRORS, &name, interface.tx_errors);
        samples.put(&NETWORK_TX_DROPPED, &name, interface.tx_dropped);
    }
    samples.list
}

/// Samples of a container.
pub fn container_samples(
    subject: Subject,
    started_at: UnixNanos,
    (stats, limits): (&ContainerStats, &Resources),
    processes: &ProcessUsage,
    file_system: Option<&FileSystem>,
) -> Vec<Sample> {
    let mut samples = Samples::of(subject);
    samples.group(&stats.usage, limits, processes.count);
    samples.put(&START_TIME, &[], seconds(started_at));
    if let Some((descriptors, sockets)) = processes.descriptors.zip(processes.sockets) {
        samples.put(&DESCRIPTORS, &[], descriptors);
        samples.put(&SOCKETS, &[], sockets);
    }
    if let Some(limit) = processes.descriptor_limit {
        samples.put(&ULIMITS, &["max_open_files"], limit);
    }
    if let Some(fs) = file_system {
        let device = [fs.device.as_str()];
        samples.put(&FS_LIMIT, &device, fs.capacity);
        samples.put(&FS_INODES, &device, fs.inodes);
        samples.put(&FS_INODES_FREE, &device, fs.inodes_free);
        if let Some(layer) = &stats.writable_layer {
            samples.put(&FS_USAGE, &device, layer.used_bytes);
        }
    }
    samples.list
}

fn seconds(at: UnixNanos) -> u64 {
    u64::try_from(at).unwrap_or_default() / NANOS
}

#[cfg(test)]
mod tests;
