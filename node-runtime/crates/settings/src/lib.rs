//! Documents of a directory to validated settings; live changes; the difference of two settings.
//!
//! Files `*.yaml` and `*.yml` are read in name order and merged. What cannot be read, parsed or merged is refused as a whole
//! while the former settings stay in force, and is told (`Live::refused`, log, metrics).
//! Must not: apply anything. Tasks: one that watches the directory.
#![forbid(unsafe_code)]

mod diff;
mod live;
mod load;

pub use berth_crds::{CgroupManager, ImagePolicy, Limits, LogLevel, NetworkMode, RegistryHost};
pub use diff::{Change, Class, diff};
pub use live::{Live, watch};
pub use load::load;

use std::collections::BTreeMap;

/// Everything that documents decide on a node, defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How much is logged.
    pub log_level: LogLevel,
    /// Most processes of a container.
    pub pids_limit: Option<u64>,
    /// Who makes cgroups; `None` is decided by what the node is.
    pub cgroup_manager: Option<CgroupManager>,
    /// Limits on images.
    pub limits: Limits,
    /// How to talk to registries.
    pub registries: Vec<RegistryHost>,
    /// The pod network.
    pub network: Network,
    /// Where metrics are served; `None` is the daemon's default.
    pub metrics_address: Option<String>,
    /// Policies, by name.
    pub policies: Vec<ImagePolicy>,
    /// Field path to the document that set it.
    pub sources: BTreeMap<String, String>,
    /// `Kind/name (file)` of every document, in merge order.
    pub documents: Vec<String>,
}

/// The pod network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// Who connects pods.
    pub mode: NetworkMode,
    /// Subnet of the built-in network; `None` is derived from the root.
    pub subnet: Option<String>,
    /// Its MTU; `None` is the bridge's.
    pub mtu: Option<u32>,
}
