//! Documents of a directory to validated settings; live changes; the difference of two settings.
//!
//! Files `*.yaml` and `*.yml` are read in name order and merged. What cannot be read, parsed or merged is refused as a whole
//! while the former settings stay in force, also over a restart, and is told (`Live::refused`, log, metrics).
//! Must not: apply anything. Tasks: one that watches the directory.
#![forbid(unsafe_code)]

mod accepted;
mod diff;
mod handed;
mod live;
mod load;
mod managed;
mod revision;
mod standing;
mod starts;

use berth_crds::for_the_cluster;
pub use berth_crds::{
    Capability, CgroupManager, Class, Description, Document, Fallback, Field, ImagePolicy, IpFamily, KubeletConfig,
    Limits, LogLevel, MAX_DOCUMENT, MirrorCredentials, NetworkMode, Preset, ProfileType, RegistryHost, RegistryMirror,
    RegistryTls, RuntimeConfigSpec, SecurityProfile, bytes, check_registries, credential_providers, descriptions,
    fields, find_profile, parse_documents, parse_provider_config, redact, seconds, sha256,
};
pub use diff::{Change, diff};
pub use handed::{FormerPolicies, applied, failed_start, hand_over, next_start, take_back};
pub use live::{Live, watch};
pub use load::{among, document_files, from_sources, from_texts, load, sources};
pub use managed::FileDrift;
pub use revision::{Revision, Revisions};
pub use standing::{Part, Standing};
pub use starts::{FailedStart, start_failed};

use berth_model::Reference;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// Everything that documents decide on a node, defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The RuntimeConfigs as merged, without defaults: what `diff` compares, and where a field may be read that needs no more than its
    /// type.
    pub spec: RuntimeConfigSpec,
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
    /// The streaming server.
    pub streaming: Streaming,
    /// The image store.
    pub storage: Storage,
    /// Where metrics are served; `None` is the daemon's default.
    pub metrics_address: Option<String>,
    /// Policies, by name.
    pub policies: Vec<ImagePolicy>,
    /// Field path to the document that set it, as in `documents`; of lists with the entry's key (`spec.registries[HOST]`).
    pub sources: BTreeMap<String, String>,
    /// `Kind/name (file)` of every document, in the order in which they were read.
    pub documents: Vec<String>,
    /// The documents themselves.
    pub inputs: Arc<Vec<Source>>,
}

/// A document and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The file.
    pub file: PathBuf,
    /// What stands there.
    pub document: Document,
}

impl Source {
    /// `Kind/name (file)`.
    pub fn title(&self) -> String {
        let name = self.file.file_name().map(|n| n.to_string_lossy()).unwrap_or_default();
        format!("{} ({name})", self.document.title())
    }

    /// Paths of what it says that only a cluster follows; a node does nothing of them.
    pub fn for_the_cluster(&self) -> Vec<&'static str> {
        match &self.document {
            Document::RuntimeConfig(document) => for_the_cluster(&document.spec),
            Document::ImagePolicy(_) => Vec::new(),
        }
    }
}

/// The image store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    /// Where it is; `None` is below the daemon's root.
    pub directory: Option<PathBuf>,
    /// Whether compressed layers stay.
    pub keep_compressed_layers: bool,
    /// Most bytes that images take.
    pub max_bytes: Option<u64>,
    /// Most bytes that a container may write.
    pub writable_layer_limit: Option<u64>,
    /// Percentage of the disk in use from which on unused images go.
    pub high: Option<u8>,
    /// Percentage at which that ends.
    pub low: u8,
    /// How long an image was of no use before it may go, in seconds.
    pub min_age_seconds: u64,
    /// Images that are never removed to make room.
    pub pinned: Vec<Reference>,
    /// Images that are fetched before anybody asks for them.
    pub prefetch: Vec<Reference>,
}

/// The server of exec, attach and port-forward sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Streaming {
    /// Where it listens; port 0 is a free one.
    pub bind: SocketAddr,
    /// How many seconds a token is good.
    pub token_seconds: u64,
    /// Certificate chain and private key, in PEM; `None` is plain HTTP.
    pub tls: Option<(PathBuf, PathBuf)>,
}

impl Default for Streaming {
    fn default() -> Self {
        Self { bind: SocketAddr::from(([127, 0, 0, 1], 0)), token_seconds: 60, tls: None }
    }
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
