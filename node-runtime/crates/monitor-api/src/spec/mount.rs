//! What a container's tree is made of. Must not: know who it is for.
use berth_model::{MountOptions, Propagation};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Root filesystem: an overlay that init mounts in the container's own mount namespace. Nothing is mounted on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rootfs {
    /// Layer directories, topmost first. Never empty.
    pub lower: Vec<PathBuf>,
    /// Writable layer.
    pub upper: PathBuf,
    /// Overlay's work directory, on the file system of `upper`.
    pub work: PathBuf,
    /// Shift of the lower layers (idmapped mounts) in a pod with a user namespace; the namespace is
    /// [`JoinNamespaces::user`]'s.
    pub idmapped: bool,
    /// Host ids (user, group) to give the upper directory's root to: the pod's root, with a user namespace. What is written
    /// there keeps host ids; only the lower layers are shifted.
    pub owner: Option<(u32, u32)>,
    /// Read-only root.
    pub readonly: bool,
    /// An empty directory on the host that the overlay is assembled on, in the private mount namespace of the child.
    pub mountpoint: PathBuf,
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountSpec {
    /// Absolute path in the container; resolved below its root, whatever links the image has.
    pub target: PathBuf,
    /// What is mounted.
    pub kind: MountKind,
}

/// Kinds of mounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    /// A file or directory of the host.
    Bind(Bind),
    /// What an image holds, read-only.
    Image(ImageTree),
    /// A fresh procfs of the container's PID namespace.
    Proc,
    /// A fresh sysfs of the container's network namespace (a recursive read-only bind of the host's where the kernel forbids
    /// a fresh one: user namespace on the host network).
    Sysfs {
        /// Read-only.
        readonly: bool,
    },
    /// A tmpfs.
    Tmpfs {
        /// Size in bytes.
        size: u64,
        /// Mode.
        mode: u32,
        /// `noexec`.
        noexec: bool,
    },
    /// /dev: a tmpfs with the standard nodes and links, and devpts below it.
    Dev,
    /// POSIX message queues of the joined IPC namespace.
    Mqueue,
    /// The cgroup tree: cgroup2 below the cgroup namespace, or on v1 and hybrid hosts a tmpfs with one bind per controller.
    Cgroup {
        /// Read-only.
        readonly: bool,
        /// v1 and hybrid: the container's own directory per controller (name below /sys/fs/cgroup, host directory).
        v1: Vec<(String, PathBuf)>,
        /// v1 and hybrid: links for merged controllers (name, target name).
        v1_links: Vec<(String, String)>,
        /// v2 without a cgroup namespace, and hybrid's unified tree: the host directory to bind.
        v2_bind: Option<PathBuf>,
    },
}

/// A bind mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// On the host; symbolic links are resolved there.
    pub source: PathBuf,
    /// Read-only.
    pub readonly: bool,
    /// Read-only with all mounts below it.
    pub recursive_readonly: bool,
    /// Propagation.
    pub propagation: Propagation,
    /// Shift by the pod's user namespace (idmapped mount).
    pub idmapped: bool,
    /// Take the mounts below the source along.
    pub recursive: bool,
    /// What is refused to its files.
    pub options: MountOptions,
}

/// An image's tree: an overlay of its layers without a writable one, made like the root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageTree {
    /// Layer directories, topmost first. At least two, as overlayfs wants it (`fs/overlayfs/super.c`).
    pub lower: Vec<PathBuf>,
    /// File or directory inside it, relative; links are followed inside the tree. Empty is the whole.
    pub sub_path: PathBuf,
    /// Shift by the pod's user namespace.
    pub idmapped: bool,
    /// What is refused to its files.
    pub options: MountOptions,
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNode {
    /// Path in the container, below /dev.
    pub path: PathBuf,
    /// On the host: bound instead of made where mknod is not allowed (user namespaces).
    pub host_path: PathBuf,
    /// Block device, else character device.
    pub block: bool,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}
