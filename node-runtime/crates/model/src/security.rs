//! Security settings of pods and containers (CRI LinuxSandboxSecurityContext, LinuxContainerSecurityContext).
use serde::{Deserialize, Serialize};

/// Whose namespace a pod or container uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamespaceMode {
    /// One for all containers of the pod. The CRI's zero value.
    #[default]
    Pod,
    /// One of the container's own.
    Container,
    /// The node's.
    Node,
    /// That of another container of the pod (debugging); see [`NamespaceOptions::target`].
    Target,
}

/// One range of an id mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMapping {
    /// First id inside.
    pub container: u32,
    /// First id on the host.
    pub host: u32,
    /// Number of ids.
    pub length: u32,
}

/// Namespace choices.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceOptions {
    /// Network: Pod or Node.
    pub network: NamespaceMode,
    /// Process ids: Pod, Container, Node or Target.
    pub pid: NamespaceMode,
    /// IPC: Pod or Node.
    pub ipc: NamespaceMode,
    /// Full id of the container for [`NamespaceMode::Target`].
    pub target: String,
    /// User namespace of the pod: one uid and one gid range, or none.
    pub user: Option<(IdMapping, IdMapping)>,
}

/// A seccomp or AppArmor profile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Profile {
    /// The runtime's default.
    RuntimeDefault,
    /// None. Also what an absent field means in the CRI.
    #[default]
    Unconfined,
    /// A file (seccomp) or loaded name (AppArmor) on the node.
    Localhost(String),
}

/// The user a process runs as; resolved against the image's files by `berth-init`, under its size limits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunAs {
    /// The image's own `User`, else root.
    #[default]
    Image,
    /// By number; group 0 or the passwd entry's unless one is given.
    Uid {
        /// User id.
        uid: u32,
        /// Group id, if one was given.
        gid: Option<u32>,
    },
    /// By name in the image's /etc/passwd.
    Name {
        /// User name.
        name: String,
        /// Group id, if one was given.
        gid: Option<u32>,
    },
}

/// How supplementary groups combine (KEP-3619).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SupplementalGroupsPolicy {
    /// Those of the image's /etc/group and those given.
    #[default]
    Merge,
    /// Only those given.
    Strict,
}

/// SELinux label parts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelinuxOptions {
    /// User part.
    pub user: String,
    /// Role part.
    pub role: String,
    /// Type part.
    pub kind: String,
    /// Level part.
    pub level: String,
}

/// Everything that confines a sandbox or a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityContext {
    /// All capabilities, all devices, no profiles. A container's is refused where its pod's is not set.
    pub privileged: bool,
    /// Namespaces.
    pub namespaces: NamespaceOptions,
    /// SELinux label.
    pub selinux: SelinuxOptions,
    /// User.
    pub run_as: RunAs,
    /// Supplementary groups.
    pub supplemental_groups: Vec<u32>,
    /// Their policy.
    pub groups_policy: SupplementalGroupsPolicy,
    /// Root filesystem is read-only.
    pub read_only_rootfs: bool,
    /// `no_new_privs`.
    pub no_new_privs: bool,
    /// Capabilities to add, without `CAP_`, upper case; `ALL` allowed.
    pub add_capabilities: Vec<String>,
    /// Capabilities to drop.
    pub drop_capabilities: Vec<String>,
    /// Ambient capabilities to add.
    pub add_ambient_capabilities: Vec<String>,
    /// Seccomp profile.
    pub seccomp: Profile,
    /// AppArmor profile.
    pub apparmor: Profile,
    /// Paths that are hidden.
    pub masked_paths: Vec<String>,
    /// Paths that are read-only.
    pub readonly_paths: Vec<String>,
}
