//! A Pod as a person writes it, reduced to what `berth run` honours, and its translation into CRI requests. Everything here is
//! pure: no I/O, no clock, no randomness.
pub mod dns;
pub mod expand;
mod known;
pub mod parse;
mod parse_container;
mod parse_security;
pub mod quantity;
mod reader;
pub mod resources;
pub mod security;
pub mod translate;

use std::collections::BTreeMap;

/// A Pod. Field names are the Pod's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    pub name: String,
    pub namespace: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub containers: Vec<Container>,
    pub volumes: Vec<Volume>,
    pub hostname: Option<String>,
    pub host_network: bool,
    pub host_pid: bool,
    pub host_ipc: bool,
    pub share_process_namespace: bool,
    /// False: a user namespace of the pod's own.
    pub host_users: bool,
    pub dns: dns::Dns,
    /// In seconds.
    pub termination_grace_period: i64,
    pub security: PodSecurity,
}

/// A container of a Pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Container {
    pub name: String,
    pub image: String,
    pub pull: Option<PullPolicy>,
    pub command: Vec<String>,
    pub args: Vec<String>,
    pub working_dir: String,
    pub env: Vec<(String, String)>,
    pub ports: Vec<Port>,
    pub resources: resources::Requirements,
    pub mounts: Vec<VolumeMount>,
    pub security: ContainerSecurity,
    pub tty: bool,
    pub stdin: bool,
    pub stdin_once: bool,
}

/// When to ask the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum PullPolicy {
    /// Ask each time; what is here already is not fetched again
    Always,
    /// Only if the image is not on the node
    IfNotPresent,
    /// Not at all
    Never,
}

/// A port of a container; only those with a host port do something.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Port {
    pub container_port: u16,
    pub host_port: Option<u16>,
    pub host_ip: String,
    pub protocol: Protocol,
}

/// Transport protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    pub name: String,
    pub source: VolumeSource,
}

/// Where a volume comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeSource {
    /// A path of the node, and what must be there.
    HostPath { path: String, kind: HostPathKind },
    /// A directory that lives as long as the pod.
    EmptyDir,
}

/// `hostPath.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostPathKind {
    Any,
    DirectoryOrCreate,
    Directory,
    FileOrCreate,
    File,
    Socket,
    CharDevice,
    BlockDevice,
}

/// A volume's place in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeMount {
    /// Index in [`Pod::volumes`].
    pub volume: usize,
    pub path: String,
    pub read_only: bool,
    pub recursive: RecursiveReadOnly,
    pub propagation: Propagation,
}

/// `recursiveReadOnly` (KEP-3857).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RecursiveReadOnly {
    #[default]
    Disabled,
    IfPossible,
    Enabled,
}

/// `mountPropagation`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Propagation {
    #[default]
    None,
    HostToContainer,
    Bidirectional,
}

/// What pod and container both may say of their user and filter; a container's word wins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Common {
    pub run_as_user: Option<u32>,
    pub run_as_group: Option<u32>,
    pub run_as_non_root: Option<bool>,
    pub seccomp: Option<Seccomp>,
}

/// A seccomp profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seccomp {
    RuntimeDefault,
    Unconfined,
    /// A file below the kubelet's seccomp directory.
    Localhost(String),
}

/// `spec.securityContext`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodSecurity {
    pub common: Common,
    pub supplemental_groups: Vec<u32>,
    /// `supplementalGroupsPolicy: Strict`.
    pub strict_groups: bool,
    pub sysctls: BTreeMap<String, String>,
}

/// A container's `securityContext`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerSecurity {
    pub common: Common,
    pub privileged: bool,
    pub allow_privilege_escalation: Option<bool>,
    pub read_only_root: bool,
    pub add: Vec<String>,
    pub drop: Vec<String>,
}
