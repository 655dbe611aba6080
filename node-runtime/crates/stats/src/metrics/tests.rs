//! Every series of the table gets its samples, with as many label values as it has labels.
use super::*;
use crate::WritableLayer;
use berth_cgroups::{DeviceIo, HugepageUsage, PidsUsage};
use std::collections::HashSet;

fn usage() -> Usage {
    let pressure = Some(Pressure::default());
    Usage {
        taken_at: 5_999_999_999,
        cpu: Some(CpuUsage { total: 2_999_999_999, pressure, ..CpuUsage::default() }),
        memory: Some(MemoryUsage { working_set: 77, usage: 99, pressure, ..MemoryUsage::default() }),
        swap: None,
        pids: Some(PidsUsage { current: 3, limit: None }),
        io: Some(IoUsage {
            devices: vec![DeviceIo { major: 9999, minor: 1, read_bytes: 8, ..DeviceIo::default() }],
            pressure,
            ..IoUsage::default()
        }),
        hugepages: vec![HugepageUsage { page_size: "2MB".into(), usage: 0, peak: Some(1) }],
    }
}

fn limits() -> Resources {
    Resources {
        cpu_period: Some(100_000),
        cpu_quota: Some(50_000),
        cpu_shares: Some(512),
        memory_limit: Some(-1),
        ..Resources::default()
    }
}

fn both() -> (Vec<Sample>, Vec<Sample>) {
    let subject = Subject { container: "app".into(), id: "/kubepods/pod1/c".into(), ..Subject::default() };
    let layer = WritableLayer { used_bytes: 4096, ..WritableLayer::default() };
    let stats = ContainerStats { usage: usage(), writable_layer: Some(layer) };
    let processes = ProcessUsage { count: 1, descriptors: Some(4), sockets: Some(1), descriptor_limit: Some(1024) };
    let fs = FileSystem { device: "/dev/vda1".into(), capacity: 10, inodes: 9, inodes_free: 8 };
    let container = container_samples(subject, 1, (&stats, &limits()), &processes, Some(&fs));
    let eth0 = InterfaceUsage { name: "eth0".into(), rx_bytes: 5, ..InterfaceUsage::default() };
    let pod = pod_samples(Subject::default(), 1, (&usage(), &limits(), 2), &[eth0]);
    (pod, container)
}

fn value(samples: &[Sample], name: &str) -> u64 {
    let mut found = samples.iter().filter(|s| s.metric.name == name);
    let first = found.next().unwrap_or_else(|| panic!("no {name}"));
    first.value
}

#[test]
fn every_series_has_a_sample_with_all_labels() {
    let (pod, container) = both();
    let mut seen = HashSet::new();
    for sample in pod.iter().chain(&container) {
        assert_eq!(sample.labels.len(), sample.metric.label_keys().count(), "{}", sample.metric.name);
        seen.insert(sample.metric.name);
    }
    let missing: Vec<&str> = METRICS.iter().map(|m| m.name).filter(|name| !seen.contains(name)).collect();
    assert!(missing.is_empty(), "no sample for {missing:?}");
}

#[test]
fn no_two_samples_of_a_subject_have_the_same_labels() {
    let (pod, container) = both();
    for samples in [pod, container] {
        let mut seen = HashSet::new();
        for sample in &samples {
            assert!(seen.insert((sample.metric.name, &sample.labels)), "twice: {sample:?}");
        }
    }
}

/// v2 keeps a peak from kernel 5.19 on.
#[test]
fn a_peak_is_the_kernels_or_at_least_what_is_in_use() {
    let peak = |peak: Option<u64>| {
        let memory = MemoryUsage { usage: 99, peak, ..MemoryUsage::default() };
        let usage = Usage { memory: Some(memory), ..usage() };
        value(&pod_samples(Subject::default(), 1, (&usage, &limits(), 2), &[]), "container_memory_max_usage_bytes")
    };
    assert_eq!((peak(Some(120)), peak(None)), (120, 99));
}

#[test]
fn values_are_whole_seconds_and_bytes() {
    let (pod, container) = both();
    assert_eq!(value(&container, "container_cpu_usage_seconds_total"), 2);
    assert_eq!(value(&container, "container_last_seen"), 5);
    assert_eq!(value(&container, "container_memory_working_set_bytes"), 77);
    assert_eq!(value(&container, "container_memory_max_usage_bytes"), 99);
    assert_eq!(value(&container, "container_spec_memory_limit_bytes"), 0);
    assert_eq!(value(&container, "container_spec_cpu_quota"), 50_000);
    assert_eq!(value(&container, "container_fs_usage_bytes"), 4096);
    assert_eq!(value(&pod, "container_network_receive_bytes_total"), 5);
    assert_eq!(value(&pod, "container_processes"), 2);
    let app = container.iter().find(|s| s.metric.name == "container_blkio_device_usage_total").unwrap();
    assert_eq!(app.labels, ["app", "/kubepods/pod1/c", "", "", "", "", "9999:1", "9999", "1", "Read"]);
}
