//! The series of the CRI's metrics calls: names, kinds and labels, as cAdvisor's consumers know them, because they end up in the
//! kubelet's /metrics/cadvisor (KEP-2371; the names that a runtime must have are critest 1.37's).
//!
//! Owns: the table. Must not: compute a value. A name that is not in critest's list must have a sample for every pod, or critest
//! fails.

/// How a value moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// A series.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// Name.
    pub name: &'static str,
    /// What it says, for people.
    pub help: &'static str,
    /// How it moves.
    pub kind: Kind,
    /// Labels after [`BASE_LABELS`].
    pub labels: &'static [&'static str],
}

impl Metric {
    /// All labels, in the order of a sample's values.
    pub fn label_keys(&self) -> impl Iterator<Item = &'static str> {
        BASE_LABELS.iter().chain(self.labels).copied()
    }
}

/// Labels that every series has. A pod's own series have an empty container, image and name.
pub const BASE_LABELS: [&str; 6] = ["container", "id", "image", "name", "namespace", "pod"];

const DEVICE: &[&str] = &["device"];
const INTERFACE: &[&str] = &["interface"];

macro_rules! metrics {
    ($($ident:ident $kind:ident $name:literal [$labels:expr] $help:literal;)*) => {
        $(pub(crate) static $ident: Metric =
            Metric { name: concat!("container_", $name), help: $help, kind: Kind::$kind, labels: $labels };)*
        /// All series.
        pub static METRICS: &[&Metric] = &[$(&$ident),*];
    };
}

metrics! {
    CPU_USAGE Counter "cpu_usage_seconds_total" [&["cpu"]] "CPU time used, in seconds.";
    CPU_USER Counter "cpu_user_seconds_total" [&[]] "CPU time used in user mode, in seconds.";
    CPU_SYSTEM Counter "cpu_system_seconds_total" [&[]] "CPU time used in the kernel, in seconds.";
    CPU_PERIODS Counter "cpu_cfs_periods_total" [&[]] "Enforcement periods of the CPU quota that have passed.";
    CPU_THROTTLED_PERIODS Counter "cpu_cfs_throttled_periods_total" [&[]] "Enforcement periods in which the CPU quota was used up.";
    CPU_THROTTLED Counter "cpu_cfs_throttled_seconds_total" [&[]] "Time held back by the CPU quota, in seconds.";
    MEMORY_USAGE Gauge "memory_usage_bytes" [&[]] "Memory charged, file pages included, in bytes.";
    MEMORY_WORKING_SET Gauge "memory_working_set_bytes" [&[]] "Memory without inactive file pages, in bytes.";
    MEMORY_RSS Gauge "memory_rss" [&[]] "Anonymous memory in bytes.";
    MEMORY_CACHE Gauge "memory_cache" [&[]] "File pages in bytes.";
    MEMORY_MAPPED_FILE Gauge "memory_mapped_file" [&[]] "Mapped file pages in bytes.";
    MEMORY_KERNEL Gauge "memory_kernel_usage" [&[]] "Memory of the kernel in bytes.";
    MEMORY_SWAP Gauge "memory_swap" [&[]] "Swap in use, in bytes.";
    MEMORY_PEAK Gauge "memory_max_usage_bytes" [&[]] "The most memory that was charged at once, in bytes.";
    MEMORY_LIMIT_HITS Counter "memory_failcnt" [&[]] "How often the memory limit was hit.";
    MEMORY_FAULTS Counter "memory_failures_total" [&["failure_type", "scope"]] "Page faults: pgfault all, pgmajfault those read from disk.";
    OOM_EVENTS Counter "oom_events_total" [&[]] "Processes killed for want of memory.";
    PROCESSES Gauge "processes" [&[]] "Processes.";
    THREADS Gauge "threads" [&[]] "Threads.";
    THREADS_MAX Gauge "threads_max" [&[]] "The limit of threads; 0 is none.";
    DESCRIPTORS Gauge "file_descriptors" [&[]] "Open file descriptors.";
    SOCKETS Gauge "sockets" [&[]] "Open sockets.";
    ULIMITS Gauge "ulimits_soft" [&["ulimit"]] "Soft limits of the first process.";
    SPEC_CPU_PERIOD Gauge "spec_cpu_period" [&[]] "Period of the CPU quota in microseconds.";
    SPEC_CPU_QUOTA Gauge "spec_cpu_quota" [&[]] "CPU quota in microseconds a period.";
    SPEC_CPU_SHARES Gauge "spec_cpu_shares" [&[]] "CPU shares.";
    SPEC_MEMORY_LIMIT Gauge "spec_memory_limit_bytes" [&[]] "Memory limit in bytes; 0 is none.";
    SPEC_MEMORY_RESERVATION Gauge "spec_memory_reservation_limit_bytes" [&[]] "Memory reservation in bytes; 0 is none.";
    SPEC_MEMORY_SWAP Gauge "spec_memory_swap_limit_bytes" [&[]] "Limit of memory and swap together in bytes; 0 is none.";
    START_TIME Gauge "start_time_seconds" [&[]] "When it started, in seconds since 1970.";
    LAST_SEEN Gauge "last_seen" [&[]] "When it was last read, in seconds since 1970.";
    FS_USAGE Gauge "fs_usage_bytes" [DEVICE] "What the container has written to its root file system, in bytes.";
    FS_LIMIT Gauge "fs_limit_bytes" [DEVICE] "Size of the file system that holds the writable layer, in bytes.";
    FS_INODES Gauge "fs_inodes_total" [DEVICE] "Inodes of the file system that holds the writable layer.";
    FS_INODES_FREE Gauge "fs_inodes_free" [DEVICE] "Free inodes of the file system that holds the writable layer.";
    FS_READS_BYTES Counter "fs_reads_bytes_total" [DEVICE] "Bytes read from the device.";
    FS_READS Counter "fs_reads_total" [DEVICE] "Reads from the device.";
    FS_WRITES_BYTES Counter "fs_writes_bytes_total" [DEVICE] "Bytes written to the device.";
    FS_WRITES Counter "fs_writes_total" [DEVICE] "Writes to the device.";
    BLKIO Counter "blkio_device_usage_total" [&["device", "major", "minor", "operation"]] "Bytes read from and written to the device.";
    HUGETLB_USAGE Gauge "hugetlb_usage_bytes" [&["pagesize"]] "Huge pages in use, in bytes.";
    HUGETLB_PEAK Gauge "hugetlb_max_usage_bytes" [&["pagesize"]] "The most that was used in huge pages at once, in bytes.";
    PRESSURE_CPU_WAITING Counter "pressure_cpu_waiting_seconds_total" [&[]] "Time in which some task waited for a CPU, in seconds.";
    PRESSURE_CPU_STALLED Counter "pressure_cpu_stalled_seconds_total" [&[]] "Time in which all tasks waited for a CPU, in seconds.";
    PRESSURE_MEMORY_WAITING Counter "pressure_memory_waiting_seconds_total" [&[]] "Time in which some task waited for memory, in seconds.";
    PRESSURE_MEMORY_STALLED Counter "pressure_memory_stalled_seconds_total" [&[]] "Time in which all tasks waited for memory, in seconds.";
    PRESSURE_IO_WAITING Counter "pressure_io_waiting_seconds_total" [&[]] "Time in which some task waited for I/O, in seconds.";
    PRESSURE_IO_STALLED Counter "pressure_io_stalled_seconds_total" [&[]] "Time in which all tasks waited for I/O, in seconds.";
    NETWORK_RX_BYTES Counter "network_receive_bytes_total" [INTERFACE] "Bytes received.";
    NETWORK_RX_PACKETS Counter "network_receive_packets_total" [INTERFACE] "Packets received.";
    NETWORK_RX_ERRORS Counter "network_receive_errors_total" [INTERFACE] "Receive errors.";
    NETWORK_RX_DROPPED Counter "network_receive_packets_dropped_total" [INTERFACE] "Packets dropped while receiving.";
    NETWORK_TX_BYTES Counter "network_transmit_bytes_total" [INTERFACE] "Bytes sent.";
    NETWORK_TX_PACKETS Counter "network_transmit_packets_total" [INTERFACE] "Packets sent.";
    NETWORK_TX_ERRORS Counter "network_transmit_errors_total" [INTERFACE] "Send errors.";
    NETWORK_TX_DROPPED Counter "network_transmit_packets_dropped_total" [INTERFACE] "Packets dropped while sending.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_told() {
        let names: HashSet<&str> = METRICS.iter().map(|m| m.name).collect();
        assert_eq!(names.len(), METRICS.len());
        for metric in METRICS {
            assert!(!metric.help.is_empty(), "{}", metric.name);
            let keys: HashSet<&str> = metric.label_keys().collect();
            assert_eq!(keys.len(), BASE_LABELS.len() + metric.labels.len(), "{}", metric.name);
            let counts = metric.name.ends_with("_total") || metric.name == "container_memory_failcnt";
            assert!(
                metric.name.ends_with("inodes_total") || counts == (metric.kind == Kind::Counter),
                "{}",
                metric.name
            );
        }
    }
}
