//! What the checks look at: plain values, gathered in one go. `None` is what could not be read.
//!
//! Owns: the types. Must not: read or judge anything.
use berth_proto::node::{DiagnoseResponse, InfoResponse};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// All of it.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Whether the doctor is root.
    pub root: bool,
    /// Seconds since 1970.
    pub now: u64,
    /// The daemon.
    pub daemon: Daemon,
    /// The kernel.
    pub kernel: Kernel,
    /// Control groups.
    pub cgroups: Cgroups,
    /// What can run out.
    pub limits: Limits,
    /// Disks, and large files.
    pub disks: Vec<Disk>,
    /// Logs of containers with their sizes in bytes.
    pub logs: Vec<(String, PathBuf, u64)>,
    /// The network.
    pub network: Network,
    /// Kubelets.
    pub kubelets: Vec<Kubelet>,
    /// Things of pods that the daemon does not know.
    pub leftovers: Vec<String>,
}

/// What became of asking the daemon.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Answer {
    /// Nobody serves its socket.
    #[default]
    Down,
    /// The doctor may not ask it.
    Forbidden,
    /// It takes connections and does not answer.
    Stuck,
    /// It answered.
    Up,
}

/// The daemon.
#[derive(Debug, Clone, Default)]
pub struct Daemon {
    /// Whether it answers.
    pub answer: Answer,
    /// How to name it on a command line: empty, or ` --root DIR`.
    pub flags: String,
    /// Its CRI socket.
    pub socket: PathBuf,
    /// The socket by which it is asked.
    pub node_socket: PathBuf,
    /// What it answers instead of what it was asked.
    pub problem: Option<String>,
    /// Process of whoever holds the socket, with its state as in proc_pid_stat(5).
    pub process: Option<(u32, char)>,
    /// Sockets with their owner and mode.
    pub sockets: Vec<(PathBuf, u32, u32)>,
    /// What `info` says.
    pub info: Option<InfoResponse>,
    /// What only the daemon knows.
    pub told: Option<DiagnoseResponse>,
    /// Why the documents on disk cannot be read; from them, where the daemon cannot be asked.
    pub documents: Option<String>,
    /// Open descriptors, and the limit.
    pub files: Option<(u64, u64)>,
    /// Monitors whose program is not the one beside the daemon's any more.
    pub old_monitors: u64,
    /// When the daemon's program was written, in seconds since 1970.
    pub built: Option<u64>,
}

/// The kernel.
#[derive(Debug, Clone, Default)]
pub struct Kernel {
    /// Major and minor version.
    pub version: Option<(u32, u32)>,
    /// What containers need and is missing.
    pub missing: Vec<&'static str>,
    /// Security modules that are on.
    pub lsm: Vec<String>,
}

/// Control groups.
#[derive(Debug, Clone, Default)]
pub struct Cgroups {
    /// `v2`, `hybrid`, `v1`.
    pub layout: &'static str,
    /// Controllers that can be used.
    pub controllers: Vec<String>,
    /// Groups from the pods' upwards: directory, processes, limit.
    pub pids: Vec<(PathBuf, u64, u64)>,
}

/// What can run out: used, and the limit.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// Threads of the node, and the smaller of kernel.pid_max and kernel.threads-max.
    pub threads: Option<(u64, u64)>,
    /// Open files of the node, and fs.file-max.
    pub files: Option<(u64, u64)>,
    /// Inotify instances of root, and fs.inotify.max_user_instances.
    pub inotify: Option<(u64, u64)>,
    /// Connections, and net.netfilter.nf_conntrack_max.
    pub conntrack: Option<(u64, u64)>,
    /// Memory that is available, and all of it, in bytes.
    pub memory: Option<(u64, u64)>,
    /// Swap in bytes.
    pub swap: Option<u64>,
}

/// A file system.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    /// A directory on it.
    pub path: PathBuf,
    /// What it has for the daemon.
    pub purpose: &'static str,
    /// Bytes that it has, and that are free to root.
    pub bytes: (u64, u64),
    /// Inodes that it has, and that are free; zeros where it has none to count.
    pub inodes: (u64, u64),
}

/// The network.
#[derive(Debug, Clone, Default)]
pub struct Network {
    /// net.ipv4.ip_forward.
    pub forward: Option<bool>,
    /// MTU of the built-in bridge.
    pub bridge_mtu: Option<u32>,
    /// Interface of the default route, and its MTU.
    pub uplink: Option<(String, u32)>,
    /// Servers in the node's resolv.conf; `None` where there is none.
    pub resolv_conf: Option<Vec<String>>,
    /// CNI, where the documents ask for it.
    pub cni: Option<Cni>,
}

/// CNI on this node.
#[derive(Debug, Clone, Default)]
pub struct Cni {
    /// Where configurations are looked for.
    pub config_dir: PathBuf,
    /// Files there.
    pub configs: Vec<PathBuf>,
    /// Plugins that they name and that are not in any of the directories.
    pub missing: Vec<String>,
    /// Where programs are looked for.
    pub bin_dirs: Vec<PathBuf>,
}

/// A running kubelet: what its command line and its configuration say.
#[derive(Debug, Clone, Default)]
pub struct Kubelet {
    /// Process.
    pub pid: u32,
    /// Its configuration file.
    pub config: Option<PathBuf>,
    /// Why that cannot be read.
    pub problem: Option<String>,
    /// Settings by the names of KubeletConfiguration; flags win.
    pub settings: BTreeMap<String, String>,
    /// Servers in the file that resolvConf names; `None` where that cannot be read.
    pub resolv_conf: Option<Vec<String>>,
}

impl Kubelet {
    /// A setting; empty where it is not set.
    pub fn setting(&self, name: &str) -> &str {
        self.settings.get(name).map_or("", String::as_str)
    }

    /// The socket that an endpoint stands for: it is written as a URL or as a path.
    pub fn socket(endpoint: &str) -> &Path {
        Path::new(endpoint.strip_prefix("unix://").unwrap_or(endpoint))
    }
}
