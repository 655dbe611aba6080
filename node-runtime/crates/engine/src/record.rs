//! What is durable of a pod: one self-describing document, with its containers inside. Format: docs/formats/pod-record.md.
//!
//! A document describes what was asked for and how far it came; addresses of processes in it (pids) are valid only within
//! the boot it names.
use berth_cgroups::CgroupPath;
use berth_model::{
    ContainerConfig, ContainerId, ContainerState, Digest, ExitReason, ExitStatus, ImageConfig, Phases, PodConfig,
    PodState, Resources, Timeline, UnixNanos,
};
use berth_monitor_api::sync::Identity;
use berth_network::Attachment;
use berth_oci::readback::Labels;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

/// How far a pod has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PodPhase {
    /// Intent recorded; parts may exist. Never shown to anyone; torn down when found at start.
    Creating,
    /// Up.
    Ready,
    /// Down.
    NotReady {
        /// Why, for people.
        reason: String,
    },
}

/// The monitor of a pod, as a process of this boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorRef {
    /// Process id.
    pub pid: u32,
}

/// What was said of a pod's resources after it was made. Kept, not applied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodResources {
    /// What the pod itself takes.
    pub overhead: Resources,
    /// The sum of its containers'.
    pub resources: Resources,
}

/// When an operation ran whose phases stand elsewhere. Zeros in records of versions that did not keep it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Its begin.
    pub began: UnixNanos,
    /// Its whole time in microseconds.
    pub micros: u64,
}

/// What became of a container before it ran, beside the phases of its start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    /// The pull that brought its image, if it was the first to use it.
    pub pull: Option<PullTimes>,
    /// Its creation.
    pub create: Timeline,
    /// Its start.
    pub start: Span,
    /// A start that failed, with the phases that it came through.
    pub failed: Option<Timeline>,
}

/// One pull.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullTimes {
    /// What was pulled, as it was written.
    pub reference: String,
    /// When, and its phases.
    pub timeline: Timeline,
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRecord {
    /// As asked for.
    pub config: PodConfig,
    /// When the request came.
    pub created_at: UnixNanos,
    /// Boot in which its processes live.
    pub boot_id: String,
    /// How far it has come.
    pub phase: PodPhase,
    /// Its monitor.
    pub monitor: Option<MonitorRef>,
    /// Its place on the network; `None` on the node's network.
    pub network: Option<Attachment>,
    /// Process id of the pod's init, with a shared pid namespace.
    pub init_pid: Option<u32>,
    /// Cgroup of the pod's init.
    pub init_cgroup: Option<CgroupPath>,
    /// OOM kills in the pod's own cgroup that ends of containers have accounted for.
    #[serde(default)]
    pub oom_kills: u64,
    /// SELinux level of its containers; none where SELinux is off.
    #[serde(default)]
    pub selinux_level: Option<String>,
    /// Where the time of the start went.
    pub phases: Phases,
    /// When that was.
    #[serde(default)]
    pub ran: Span,
    /// What UpdatePodSandboxResources said last; `None` when it was never called.
    #[serde(default)]
    pub resized: Option<PodResources>,
    /// Its containers.
    pub containers: BTreeMap<ContainerId, ContainerRecord>,
}

impl PodRecord {
    /// The record of a pod that is ready and has nothing, for unit tests.
    #[cfg(test)]
    pub(crate) fn of_test(config: PodConfig) -> Self {
        Self {
            config,
            created_at: 1,
            boot_id: String::new(),
            phase: PodPhase::Ready,
            monitor: None,
            network: None,
            init_pid: None,
            init_cgroup: None,
            phases: berth_model::Phases::default(),
            ran: Span::default(),
            resized: None,
            oom_kills: 0,
            selinux_level: None,
            containers: BTreeMap::new(),
        }
    }

    /// State as the CRI knows it.
    pub fn state(&self) -> PodState {
        match self.phase {
            PodPhase::Ready => PodState::Ready,
            PodPhase::Creating | PodPhase::NotReady { .. } => PodState::NotReady,
        }
    }

    /// Addresses, first one first.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.network.iter().flat_map(|n| n.addresses.iter().map(|a| a.addr())).collect()
    }
}

/// Where a container is in its life. Each variant carries exactly what is known then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Life {
    /// Created, not started.
    Created,
    /// A start is under way; after a crash this is a failed start.
    Starting,
    /// Its process runs.
    Running {
        /// Process id, valid in the pod's boot.
        pid: u32,
        /// When it started.
        started_at: UnixNanos,
    },
    /// Over.
    Exited {
        /// When it had started; that of the failed start, if it never ran.
        started_at: UnixNanos,
        /// How it ended.
        status: ExitStatus,
    },
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// As asked for.
    pub config: ContainerConfig,
    /// The image's id.
    pub image_id: Digest,
    /// Ids of the images that its mounts name, in the order of those mounts.
    #[serde(default)]
    pub image_volumes: Vec<Digest>,
    /// What the image says of its process; kept, because the image may be removed under a container.
    pub image_config: ImageConfig,
    /// `repository@digest` of the image, or its id where it has no repository.
    pub image_ref: String,
    /// Signal that stops it.
    pub stop_signal: i32,
    /// When it was created.
    pub created_at: UnixNanos,
    /// Life.
    pub life: Life,
    /// Who its process is; known from the first start on.
    pub identity: Option<Identity>,
    /// Labels that its process had after the program was executed.
    #[serde(default)]
    pub labels: Labels,
    /// Its cgroup.
    pub cgroup: CgroupPath,
    /// Limits in force, updates included.
    pub resources: Resources,
    /// Its log; `None` when it has none.
    pub log_path: Option<PathBuf>,
    /// Where the time of its start went; empty until the start is complete.
    pub phases: Phases,
    /// What came before, and when the start was.
    #[serde(default)]
    pub way: Way,
}

impl ContainerRecord {
    /// State as the CRI knows it. A start under way is still CREATED.
    pub fn state(&self) -> ContainerState {
        match self.life {
            Life::Created | Life::Starting => ContainerState::Created,
            Life::Running { .. } => ContainerState::Running,
            Life::Exited { .. } => ContainerState::Exited,
        }
    }

    /// When it started, or zero.
    pub fn started_at(&self) -> UnixNanos {
        match &self.life {
            Life::Created | Life::Starting => 0,
            Life::Running { started_at, .. } | Life::Exited { started_at, .. } => *started_at,
        }
    }

    /// How it ended, if it did.
    pub fn exit(&self) -> Option<&ExitStatus> {
        match &self.life {
            Life::Exited { status, .. } => Some(status),
            _ => None,
        }
    }

    /// Its process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        match self.life {
            Life::Running { pid, .. } => Some(pid),
            _ => None,
        }
    }

    /// How it ended, from what its monitor tells. A start that was cut short after RUNNING was recorded shows in init's exit
    /// code; its figures are missing then, because they are recorded after the program was executed.
    pub(crate) fn exit_status(&self, exit: &berth_monitor_api::frame::Exit) -> ExitStatus {
        let incomplete = self.phases.0.is_empty() && !exit.signaled;
        let abandoned = incomplete && exit.code == i32::from(berth_monitor_api::sync::ABANDONED);
        exit_status(&berth_monitor_api::frame::Exit { start_failed: exit.start_failed || abandoned, ..*exit })
    }

    /// Ends it, unless it has ended: the first end is the true one. Returns whether this one was taken.
    pub(crate) fn end(&mut self, status: ExitStatus) -> bool {
        let started_at = match self.life {
            Life::Exited { .. } => return false,
            Life::Running { started_at, .. } => started_at,
            Life::Created | Life::Starting => status.finished_at,
        };
        self.life = Life::Exited { started_at, status };
        true
    }
}

/// The status of a process that ended by itself or by a signal. OOMKilled only if the main process died by SIGKILL and the
/// group's counter had risen (container-creation 3, kubernetes#140716).
fn exit_status(exit: &berth_monitor_api::frame::Exit) -> ExitStatus {
    let oom = exit.oom_kills > 0 && exit.signaled && exit.code == 137;
    let (reason, message) = match exit.code {
        _ if exit.start_failed => (ExitReason::StartError, "ended before its program was executed".to_owned()),
        _ if oom => (ExitReason::OomKilled, String::new()),
        0 => (ExitReason::Completed, String::new()),
        _ => (ExitReason::Error, String::new()),
    };
    let code = if exit.start_failed { START_ERROR_CODE } else { exit.code };
    ExitStatus { code, finished_at: exit.finished_at, reason, message }
}

/// Exit code of a container whose start failed, as containerd reports it.
pub(crate) const START_ERROR_CODE: i32 = 128;
/// Exit code of a container whose end nobody saw.
pub(crate) const LOST_CODE: i32 = 255;
