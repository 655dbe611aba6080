//! Readings of containers and pods, as the CRI's stats calls need them (cri-api ContainerStats, PodSandboxStats).
//!
//! Owns: putting readings of cgroups, networks and writable layers together. Must not: know wire types, walk file systems (the
//! owner of the layers measures them), fail a list because one group or process has gone.
#![forbid(unsafe_code)]

mod filesystem;
pub mod metrics;
mod network;
mod processes;
mod sum;

pub use berth_cgroups::{
    CpuUsage, DeviceIo, HugepageUsage, IoUsage, MemoryUsage, PidsUsage, Pressure, PressureLine, SwapUsage, Usage,
};
pub use filesystem::{FileSystem, device_name, file_system};
pub use network::{InterfaceUsage, network_usage, network_usage_in, parse_net_dev};
pub use processes::{ProcessUsage, process_usage};

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

/// A pod's readings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodStats {
    /// CPU, memory, swap, tasks, I/O and pressure. Always with CPU and memory where a group of it can be read, zero where
    /// nothing runs.
    pub usage: Usage,
    /// Processes.
    pub processes: u64,
    /// Interfaces of its network, without loopback; `None` on the node's network and where it cannot be read.
    pub network: Option<Vec<InterfaceUsage>>,
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

/// Groups that a pod's readings are taken from.
#[derive(Debug, Clone)]
pub enum PodGroups {
    /// The pod's own group, which has those of its containers in it.
    Own(CgroupPath),
    /// The groups of its containers and its init: the group above them is not the pod's alone.
    Parts(Vec<CgroupPath>),
}

/// Reads a pod, but for its network. `taken_at` is the time of a sum. A group that is gone counts as empty.
pub fn pod_stats(cgroups: &Cgroups, groups: &PodGroups, taken_at: UnixNanos) -> PodStats {
    let processes = |path: &CgroupPath| u64::try_from(cgroups.pids(path).map_or(0, |p| p.len())).unwrap_or(u64::MAX);
    let (usage, processes) = match groups {
        PodGroups::Own(path) => {
            let usage = cgroups.usage(path).unwrap_or_else(|_| sum::sum(taken_at, std::iter::empty()));
            (usage, processes(path))
        }
        PodGroups::Parts(parts) => {
            let read: Vec<Usage> = parts.iter().filter_map(|path| cgroups.usage(path).ok()).collect();
            (sum::sum(taken_at, read.iter()), parts.iter().map(processes).sum())
        }
    };
    PodStats { usage, processes, network: None }
}
