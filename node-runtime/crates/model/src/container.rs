//! Containers.
use crate::{Labels, Mount, Resources, SecurityContext, UnixNanos};
use serde::{Deserialize, Serialize};

/// Name and attempt; with the pod, the key of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ContainerMetadata {
    /// Container name.
    pub name: String,
    /// Attempt.
    pub attempt: u32,
}

/// The CRI's four states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ContainerState {
    /// Created, not started.
    Created,
    /// Its process runs.
    Running,
    /// Its process ended, or its start failed.
    Exited,
    /// Its record cannot be read.
    Unknown,
}

/// Why a container is EXITED. The texts are the ecosystem's conventions (cri-contract 2.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ExitReason {
    /// Exit code 0.
    Completed,
    /// Any other code.
    Error,
    /// Killed by the kernel for memory.
    OomKilled,
    /// Never got to its program.
    StartError,
    /// Its monitor died, so the code is not known.
    MonitorLost,
    /// Gone with a reboot, or otherwise without a trace.
    Unknown,
}

impl ExitReason {
    /// The CRI's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "Completed",
            Self::Error => "Error",
            Self::OomKilled => "OOMKilled",
            Self::StartError => "StartError",
            Self::MonitorLost => "MonitorLost",
            Self::Unknown => "Unknown",
        }
    }
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// Exit code, 128 + signal for signals.
    pub code: i32,
    /// When.
    pub finished_at: UnixNanos,
    /// Why.
    pub reason: ExitReason,
    /// For people; may be empty.
    pub message: String,
}

/// A device the container asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Where in the container.
    pub container_path: String,
    /// What on the host.
    pub host_path: String,
    /// Some of `rwm`.
    pub permissions: String,
}

/// The signal to stop with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopSignal(pub i32);

/// What CreateContainer asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// Key within the pod.
    pub metadata: ContainerMetadata,
    /// Image: an id or a reference.
    pub image: String,
    /// The reference that the user wrote, if the kubelet says.
    pub user_image: String,
    /// Replaces the entrypoint and drops the image's Cmd.
    pub command: Vec<String>,
    /// Arguments.
    pub args: Vec<String>,
    /// Working directory; empty is the image's.
    pub working_dir: String,
    /// Environment; values are bytes.
    pub env: Vec<(String, Vec<u8>)>,
    /// Mounts.
    pub mounts: Vec<Mount>,
    /// Devices.
    pub devices: Vec<Device>,
    /// Labels.
    pub labels: Labels,
    /// Annotations.
    pub annotations: Labels,
    /// Log file, relative to the pod's log directory; empty is none.
    pub log_path: String,
    /// Keep stdin open.
    pub stdin: bool,
    /// Close stdin after the first attach.
    pub stdin_once: bool,
    /// Terminal.
    pub tty: bool,
    /// Limits.
    pub resources: Resources,
    /// Security.
    pub security: SecurityContext,
    /// Signal to stop with, if not the image's.
    pub stop_signal: Option<StopSignal>,
}
