//! What the daemon asks init to make. Not frozen: see the crate's header.
//!
//! Everything is decided here already: paths are absolute, defaults are filled in, profiles are compiled. Init only carries
//! out, and refuses what it cannot carry out.
mod mount;

use crate::codec::DecodeError;
pub use berth_model::account::User;
use berth_model::{IdMapping, Propagation};
pub use mount::{Bind, DeviceNode, ImageTree, MountKind, MountSpec, Rootfs};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Longest encoded spec in bytes: room for a full argument list and environment (128 KiB an entry, 2 MiB in all on Linux).
pub const MAX_SPEC: usize = 4 * 1024 * 1024;

/// One run of init.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant, reason = "there is one value at a time, and it is only read")]
pub enum InitSpec {
    /// Make a pod's namespaces.
    Sandbox(SandboxSpec),
    /// Become a container.
    Container(Box<ContainerSpec>),
    /// Enter a container.
    Exec(Box<ExecSpec>),
}

impl InitSpec {
    /// Encodes.
    pub fn encode(&self) -> Vec<u8> {
        // Serialising these types into a growing vector has no failing path in postcard.
        postcard::to_stdvec(self).unwrap_or_default()
    }

    /// Decodes; the whole of the bytes must be used.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_SPEC {
            return Err(DecodeError::TooLong);
        }
        exact(bytes)
    }
}

pub(crate) fn exact<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, DecodeError> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok(_) => Err(DecodeError::TrailingBytes),
        Err(postcard::Error::DeserializeUnexpectedEnd) => Err(DecodeError::Truncated),
        Err(_) => Err(DecodeError::BadValue),
    }
}

/// A pod's namespaces. Each path is an existing empty file that the namespace is bound to, in a private mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// Network namespace; `None` is the node's.
    pub net: Option<PathBuf>,
    /// IPC namespace.
    pub ipc: Option<PathBuf>,
    /// UTS namespace.
    pub uts: Option<PathBuf>,
    /// User namespace, made first, the others inside it.
    pub user: Option<UserNamespace>,
    /// Host name, with a UTS namespace.
    pub hostname: String,
    /// Namespaced sysctls, checked by the daemon against the allow list.
    pub sysctls: BTreeMap<String, String>,
    /// The pod's /dev/shm: a tmpfs mounted on this existing directory.
    pub shm: Option<Shm>,
    /// A PID namespace with our own init as PID 1, shared by the pod's containers.
    pub pid_init: Option<PidInit>,
}

/// A user namespace to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserNamespace {
    /// File to bind it to.
    pub path: PathBuf,
    /// User ids.
    pub uid: IdMapping,
    /// Group ids.
    pub gid: IdMapping,
}

/// A tmpfs for shared memory (mode 1777, nosuid, nodev, noexec).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shm {
    /// Where, on the host.
    pub path: PathBuf,
    /// Size in bytes.
    pub size: u64,
    /// SELinux label of its files (mount option `context`).
    pub label: Option<String>,
}

/// PID 1 of a shared PID namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PidInit {
    /// Its cgroup.
    pub cgroup: CgroupJoin,
    /// Its OOM score adjustment, clamped upwards where the kernel refuses.
    pub oom_score_adj: i32,
}

/// How a process gets into its cgroup. Limits are set before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CgroupJoin {
    /// The child joins by itself: `CLONE_INTO_CGROUP` (or `cgroup.procs`) for the v2 directory, `0` into each v1 `tasks` file.
    Own {
        /// Directory in the v2 tree; `None` where there is none.
        v2: Option<PathBuf>,
        /// `tasks` files of the v1 controllers.
        v1_tasks: Vec<PathBuf>,
    },
    /// The daemon has systemd move it: the child says `Paused` and waits.
    Moved,
}

/// Namespaces a container joins. `None` is the node's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinNamespaces {
    /// Network.
    pub net: Option<PathBuf>,
    /// IPC.
    pub ipc: Option<PathBuf>,
    /// UTS.
    pub uts: Option<PathBuf>,
    /// User; joined first.
    pub user: Option<PathBuf>,
    /// PID.
    pub pid: PidNamespace,
    /// A cgroup namespace of its own, rooted at its cgroup.
    pub new_cgroup: bool,
}

/// PID namespace of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PidNamespace {
    /// A new one; the container is PID 1.
    New,
    /// The node's.
    Host,
    /// That of the process behind [`crate::init_fd::TARGET`].
    Target,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Namespaces.
    pub namespaces: JoinNamespaces,
    /// Cgroup.
    pub cgroup: CgroupJoin,
    /// Root filesystem.
    pub rootfs: Rootfs,
    /// Mounts, in the order in which they are made: parents first.
    pub mounts: Vec<MountSpec>,
    /// Device nodes below /dev besides the standard ones (null zero full random urandom tty, ptmx, fd and stdio links), which
    /// init always makes on the /dev tmpfs.
    pub devices: Vec<DeviceNode>,
    /// Paths to hide.
    pub masked_paths: Vec<PathBuf>,
    /// Paths to make read-only.
    pub readonly_paths: Vec<PathBuf>,
    /// The process.
    pub process: Process,
    /// SELinux label of the root file system and of what is fresh in it: /dev, terminals, message queues, tmpfs.
    pub mount_label: Option<String>,
    /// Propagation of the whole tree: Private unless a mount needs more (`Bidirectional` asks for a shared tree).
    pub rootfs_propagation: Propagation,
}

/// Bit sets by capability number (`linux/capability.h`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Bounding set.
    pub bounding: u64,
    /// Effective set.
    pub effective: u64,
    /// Permitted set.
    pub permitted: u64,
    /// Ambient set; inheritable is this too, and empty otherwise.
    pub ambient: u64,
}

/// One BPF instruction (`linux/filter.h`, struct sock_filter).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BpfInstruction {
    /// Operation.
    pub code: u16,
    /// Jump if true.
    pub jt: u8,
    /// Jump if false.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// A compiled seccomp filter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeccompFilter {
    /// The program.
    pub program: Vec<BpfInstruction>,
    /// `SECCOMP_FILTER_FLAG_*`, without TSYNC and NEW_LISTENER.
    pub flags: u32,
}

/// A resource limit (`setrlimit(2)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// `RLIMIT_*` number.
    pub resource: u32,
    /// Soft limit.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// A process and all that confines it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Program and arguments. Never empty.
    pub args: Vec<String>,
    /// `KEY=value`, without duplicates.
    pub env: Vec<Vec<u8>>,
    /// Working directory; made if missing (containers only).
    pub cwd: PathBuf,
    /// User.
    pub user: User,
    /// Capabilities.
    pub capabilities: Capabilities,
    /// `no_new_privs`.
    pub no_new_privs: bool,
    /// Seccomp filter.
    pub seccomp: Option<SeccompFilter>,
    /// AppArmor profile to change to at exec.
    pub apparmor: Option<String>,
    /// SELinux label to change to at exec.
    pub selinux: Option<String>,
    /// OOM score adjustment, clamped upwards where the kernel refuses.
    pub oom_score_adj: Option<i32>,
    /// Limits.
    pub rlimits: Vec<Rlimit>,
    /// Has a terminal.
    pub terminal: Option<TerminalSize>,
}

/// Size of a terminal in characters; zeros mean unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
}

/// A command in a running container; the container's init is behind [`crate::init_fd::TARGET`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// The process.
    pub process: Process,
    /// Cgroup of the command.
    pub cgroup: CgroupJoin,
    /// The pod has a user namespace, so become its root before anything else.
    pub user_namespace: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_spec_round_trips() {
        let spec = InitSpec::Sandbox(SandboxSpec {
            net: Some("/run/x/net".into()),
            sysctls: [("net.ipv4.ip_forward".to_owned(), "1".to_owned())].into(),
            pid_init: Some(PidInit { cgroup: CgroupJoin::Moved, oom_score_adj: -998 }),
            ..SandboxSpec::default()
        });
        let bytes = spec.encode();
        assert_eq!(InitSpec::decode(&bytes), Ok(spec));
        assert_eq!(InitSpec::decode(&[&bytes[..], &[0]].concat()), Err(DecodeError::TrailingBytes));
        assert_eq!(InitSpec::decode(&bytes[..bytes.len() - 1]), Err(DecodeError::Truncated));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
            let _ = InitSpec::decode(&bytes);
            let _ = crate::sync::decode::<crate::sync::FromInit>(&bytes);
        }
    }
}
