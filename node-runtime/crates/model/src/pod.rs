//! Pod sandboxes.
use crate::{Labels, Resources, SecurityContext};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Name, namespace, uid and attempt: the key by which a retry is recognised.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodMetadata {
    /// Pod name.
    pub name: String,
    /// Pod namespace.
    pub namespace: String,
    /// Pod uid.
    pub uid: String,
    /// Which attempt to create the sandbox this is.
    pub attempt: u32,
}

/// The key of a pod sandbox (design, principle 3).
pub type PodKey = PodMetadata;

/// A sandbox is READY or not; nothing in between is ever shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PodState {
    /// Up, with its addresses.
    Ready,
    /// Stopped, or lost.
    NotReady,
}

/// resolv.conf of the pod; all empty means the node's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsConfig {
    /// Name servers.
    pub servers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Options.
    pub options: Vec<String>,
}

/// Transport protocol of a port mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A port of the pod that the node answers on. Mappings without a host port are dropped at the edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// Protocol.
    pub protocol: Protocol,
    /// Port in the pod.
    pub container_port: u16,
    /// Port on the node, never 0.
    pub host_port: u16,
    /// Address on the node; `None` means all.
    pub host_ip: Option<IpAddr>,
}

/// What RunPodSandbox asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodConfig {
    /// Key.
    pub metadata: PodMetadata,
    /// Host name; empty is allowed.
    pub hostname: String,
    /// Directory of the containers' logs; empty is allowed.
    pub log_directory: String,
    /// DNS.
    pub dns: DnsConfig,
    /// Host ports.
    pub ports: Vec<PortMapping>,
    /// Labels.
    pub labels: Labels,
    /// Annotations.
    pub annotations: Labels,
    /// Parent cgroup, as the kubelet writes it (cri-contract 2.11); empty is allowed.
    pub cgroup_parent: String,
    /// Sysctls.
    pub sysctls: BTreeMap<String, String>,
    /// Security.
    pub security: SecurityContext,
    /// Pod overhead; recorded, and echoed.
    pub overhead: Resources,
    /// Sum of the containers' resources; recorded, and echoed.
    pub resources: Resources,
    /// Runtime handler; empty is the default one.
    pub handler: String,
}
