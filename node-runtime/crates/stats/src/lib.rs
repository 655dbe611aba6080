//! Readings of containers and pods, as the CRI's stats calls need them (cri-api ContainerStats, PodSandboxStats).
//!
//! Owns: putting readings of cgroups, networks and writable layers together. Must not: know wire types, walk file systems (the
//! owner of the layers measures them), fail a list because one group or process has gone.
#![forbid(unsafe_code)]

mod network;

pub use berth_cgroups::{CpuUsage, IoUsage, MemoryUsage, PidsUsage, Pressure, PressureLine, SwapUsage, Usage};
pub use network::{InterfaceUsage, network_usage, parse_net_dev};

use berth_cgroups::{CgroupPath, Cgroups};
use berth_model::UnixNanos;
use std::path::PathBuf;

/// What a container wrote to its root filesystem.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WritableLayer {
    /// When it was measured.
    pub taken_at: UnixNanos,
    /// A directory of the file system that holds it: the CRI's `fs_id`.
    pub file_system: PathBuf,
    /// Bytes on disk.
    pub used_bytes: u64,
    /// Inodes.
    pub inodes_used: u64,
}

/// A container's readings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerStats {
    /// CPU, memory, swap, processes, I/O and pressure, with the time of the reading.
    pub usage: Usage,
    /// Root filesystem, if it was measured.
    pub writable_layer: Option<WritableLayer>,
}

/// A pod's readings: of its own group, which has those of its containers in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodStats {
    /// CPU, memory, swap, processes, I/O and pressure; `None` where the pod's group cannot be read.
    pub usage: Option<Usage>,
    /// Interfaces of its network, without loopback; empty on the node's network or without a running process.
    pub network: Vec<InterfaceUsage>,
}

/// Reads a container. `None` if its group is gone or unreadable: a container that has just ended is left out of a list, as the
/// kubelet expects.
pub fn container_stats(
    cgroups: &Cgroups,
    path: &CgroupPath,
    writable_layer: Option<WritableLayer>,
) -> Option<ContainerStats> {
    let usage = cgroups.usage(path).ok()?;
    Some(ContainerStats { usage, writable_layer })
}

/// Reads a pod: `container` is the group of any of its containers, which lies in the pod's, and `process` any process in its
/// network (none on the node's network).
pub fn pod_stats(cgroups: &Cgroups, container: &CgroupPath, process: Option<u32>) -> PodStats {
    let usage = container.parent().and_then(|pod| cgroups.usage(&pod).ok());
    let network = process.and_then(|pid| network_usage(pid).ok()).unwrap_or_default();
    PodStats { usage, network }
}
