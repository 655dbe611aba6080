//! Mounts that a container asks for. Must not: know how one is made.
use crate::IdMapping;
use serde::{Deserialize, Serialize};

/// Files of procfs that something may be mounted over: what lxcfs and the like replace. Nothing else may be mounted on or
/// below /proc, where it would hide or forge what the kernel says. The list is runc's (libcontainer/rootfs_linux.go,
/// checkProcMount).
pub const MOUNTABLE_IN_PROC: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// Mount propagation (KEP-432).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// rprivate.
    #[default]
    Private,
    /// rslave.
    HostToContainer,
    /// rshared.
    Bidirectional,
}

/// What the kernel refuses to files of a mount (KEP-5855). Mounts below it keep their own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountOptions {
    /// Programs do not execute.
    pub noexec: bool,
    /// Device nodes do not open.
    pub nodev: bool,
    /// Set-user-id bits and file capabilities are ignored.
    pub nosuid: bool,
}

impl MountOptions {
    /// All of them: for files of ours.
    pub const ALL: Self = Self { noexec: true, nodev: true, nosuid: true };
    /// The names that [`MountOptions::parse`] knows.
    pub const NAMES: [&str; 3] = ["noexec", "nodev", "nosuid"];

    /// Reads names as a mount(8) line has them, in any order. Errors: the first one that is not known.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, &'a str> {
        let mut options = Self::default();
        for name in names {
            match name {
                "noexec" => options.noexec = true,
                "nodev" => options.nodev = true,
                "nosuid" => options.nosuid = true,
                other => return Err(other),
            }
        }
        Ok(options)
    }

    /// The names of those that are set.
    pub fn names(self) -> Vec<&'static str> {
        let set = [self.noexec, self.nodev, self.nosuid];
        Self::NAMES.into_iter().zip(set).filter(|(_, set)| *set).map(|(name, _)| name).collect()
    }
}

/// The image side of an image volume (KEP-4639).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageMount {
    /// Image: an id or a reference.
    pub image: String,
    /// The reference that the user wrote, if the kubelet says.
    #[serde(default)]
    pub user_image: String,
    /// File or directory inside it; empty is the whole.
    pub sub_path: String,
}

/// A mount the container asks for. Echoed verbatim in status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Where in the container.
    pub container_path: String,
    /// What on the host.
    pub host_path: String,
    /// Read-only (top mount only, KEP-3857).
    pub readonly: bool,
    /// Read-only with all mounts below it.
    pub recursive_read_only: bool,
    /// Relabel for SELinux.
    pub selinux_relabel: bool,
    /// Propagation.
    pub propagation: Propagation,
    /// Id mappings of the mount (user namespaces).
    pub uid_mappings: Vec<IdMapping>,
    /// As above, groups.
    pub gid_mappings: Vec<IdMapping>,
    /// An image instead of a host path.
    pub image: Option<ImageMount>,
    /// What is refused to its files.
    #[serde(default)]
    pub options: MountOptions,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_by_name() {
        let options = MountOptions::parse(["nosuid", "noexec", "nosuid"]).unwrap();
        assert_eq!(options, MountOptions { noexec: true, nodev: false, nosuid: true });
        assert_eq!(options.names(), ["noexec", "nosuid"]);
        assert_eq!(MountOptions::parse(MountOptions::NAMES), Ok(MountOptions::ALL));
        assert_eq!(MountOptions::parse(["nodev", "bind"]), Err("bind"));
    }

    #[test]
    fn records_of_before_are_read() {
        let old = r#"{"container_path":"/a","host_path":"","readonly":true,"recursive_read_only":false,"selinux_relabel":false,
            "propagation":"Private","uid_mappings":[],"gid_mappings":[],"image":{"image":"x","sub_path":""}}"#;
        let mount: Mount = serde_json::from_str(old).unwrap();
        assert_eq!((mount.options, mount.image.unwrap().user_image), (MountOptions::default(), String::new()));
    }
}
