//! What the node is like and where a pod's files lie: the inputs that do not come from a request.
use super::selinux::ContainerContexts;
use crate::pod_dir::PodDir;
use berth_model::{NamespaceMode, PodConfig};
use berth_monitor_api::spec::Rlimit;
use berth_seccomp::Arch;
use std::path::PathBuf;

/// What this node can do. Probed once, when the daemon starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    /// The daemon's own bounding capabilities: what ALL and privileged mean here.
    pub bounding_capabilities: u64,
    /// Kernel version, major and minor.
    pub kernel: (u32, u32),
    /// Architecture of the kernel.
    pub arch: Arch,
    /// AppArmor is enabled.
    pub apparmor: bool,
    /// SELinux is enabled.
    pub selinux: bool,
    /// What the node's SELinux policy says of containers, if it knows them.
    pub selinux_contexts: Option<ContainerContexts>,
    /// The kernel has cgroup namespaces: containers get their own, also on cgroup v1 (the peers: v2 only).
    pub cgroup_namespaces: bool,
    /// Pods may have user namespaces with idmapped root file systems.
    pub user_namespaces: bool,
    /// The node's host name.
    pub hostname: String,
    /// Limits that the daemon was started with, before it raised its own.
    pub rlimits: Vec<Rlimit>,
}

/// First kernel with `mount_setattr(2)`, thus recursive read-only mounts.
const MOUNT_SETATTR: (u32, u32) = (5, 12);
/// First kernel with idmapped tmpfs.
const IDMAPPED_TMPFS: (u32, u32) = (6, 3);

impl NodeFacts {
    /// Mounts can be made read-only with all mounts below them (KEP-3857).
    pub fn recursive_readonly(&self) -> bool {
        self.kernel >= MOUNT_SETATTR
    }

    pub(crate) fn idmapped_tmpfs(&self) -> bool {
        self.kernel >= IDMAPPED_TMPFS
    }
}

/// What a pod's containers share, on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodPaths {
    /// Network namespace; `None` is the node's.
    pub net: Option<PathBuf>,
    /// IPC namespace.
    pub ipc: Option<PathBuf>,
    /// UTS namespace.
    pub uts: Option<PathBuf>,
    /// User namespace.
    pub user: Option<PathBuf>,
    /// Directory of shared memory: the pod's, or the node's /dev/shm.
    pub shm: PathBuf,
    /// resolv.conf.
    pub resolv_conf: PathBuf,
    /// hostname.
    pub hostname: PathBuf,
    /// Default hosts file; a kubelet brings its own.
    pub hosts: PathBuf,
}

impl PodPaths {
    /// Those of a pod with this directory.
    pub fn of(dir: &PodDir, pod: &PodConfig) -> Self {
        let namespaces = &pod.security.namespaces;
        let own = |own: bool, name: &str| own.then(|| dir.namespace(name));
        let own_net = namespaces.network != NamespaceMode::Node;
        let own_ipc = namespaces.ipc != NamespaceMode::Node;
        Self {
            net: own(own_net, "net"),
            ipc: own(own_ipc, "ipc"),
            // On the node's network a pod has the node's name, as with the peers.
            uts: own(own_net, "uts"),
            user: own(namespaces.user.is_some(), "user"),
            shm: if own_ipc { dir.shm() } else { PathBuf::from("/dev/shm") },
            resolv_conf: dir.file("resolv.conf"),
            hostname: dir.file("hostname"),
            hosts: dir.file("hosts"),
        }
    }
}

/// The directory that stands for a path of an image's `Volumes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeSource {
    /// Place in the container, as [`super::image_volumes`] gives it.
    pub target: PathBuf,
    /// Directory on the host.
    pub source: PathBuf,
}
