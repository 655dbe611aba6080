//! Mount sources of the host, taken as detached copies before the container's namespaces are joined.
//!
//! Owns: opening them and setting their attributes, so that they are moved into place as they shall be and never exist there
//! otherwise. Must not: touch the container's tree.
use crate::failure::{Explain, Failure, Result};
use crate::overlay;
use berth_model::Propagation;
use berth_monitor_api::spec::{Bind, ContainerSpec, MountKind, MountSpec};
use berth_sys::mount::{self, Change, Sharing, attr};
use berth_sys::openat::{self, Access, Kind};
use berth_sys::procfs::Procfs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Longest mount table that is read, in bytes: 100,000 mounts of usual length.
const MAX_MOUNT_TABLE: u64 = 32 * 1024 * 1024;

/// The device nodes that every container has: name, major, minor (`Documentation/admin-guide/devices.txt`).
pub const STANDARD_NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// What a mount needs of the host.
pub enum Source {
    /// Nothing.
    None,
    /// A detached tree, and whether its root is a directory.
    Tree(OwnedFd, bool),
    /// Cgroup directories: by controller, and the v2 one.
    Cgroup(Vec<(String, OwnedFd)>, Option<OwnedFd>),
}

/// All sources of a container.
pub struct Sources {
    /// One per mount of the spec, in its order.
    pub mounts: Vec<Source>,
    /// With a user namespace, where no node can be made: detached copies of the host's, standard ones first, then the spec's.
    pub nodes: Option<(Vec<OwnedFd>, Vec<OwnedFd>)>,
    /// A detached copy of the host's /dev/null, to hide files with.
    pub null: OwnedFd,
}

impl Sources {
    /// Opens all.
    pub fn open(spec: &ContainerSpec, userns: Option<BorrowedFd<'_>>, procfs: &Procfs) -> Result<Self> {
        let taker = Taker { spec, userns, procfs };
        let mut mounts = spec.mounts.iter().map(|m| taker.source(m)).collect::<Result<Vec<_>>>()?;
        let nodes = userns.map(|_| taker.nodes()).transpose()?;
        let (_, major, minor) = STANDARD_NODES[0];
        let null = node(Path::new("/dev/null"), false, major, minor)?;
        // Last: parts of images, and on old kernels all, are assembled in a mount namespace of our own, where the host's is not seen
        // any more.
        for (mount, source) in spec.mounts.iter().zip(&mut mounts) {
            if let MountKind::Image(image) = &mount.kind {
                let tree = overlay::image(image, &spec.rootfs.mountpoint, spec.mount_label.as_deref(), userns);
                *source = tree.and_then(tree_of).explain(|| format!("image for {}", mount.target.display()))?;
            }
        }
        Ok(Self { mounts, nodes, null })
    }
}

struct Taker<'a> {
    spec: &'a ContainerSpec,
    userns: Option<BorrowedFd<'a>>,
    procfs: &'a Procfs,
}

impl Taker<'_> {
    fn source(&self, mount: &MountSpec) -> Result<Source> {
        match &mount.kind {
            MountKind::Bind(bind) => {
                self.bind(bind).explain(|| format!("{} for {}", bind.source.display(), mount.target.display()))
            }
            // The network namespace is not the user namespace's, so a sysfs of it cannot be mounted there.
            MountKind::Sysfs { readonly } if self.userns.is_some() && self.spec.namespaces.net.is_none() => {
                host_sysfs(*readonly)
            }
            MountKind::Cgroup { readonly, v1, v2_bind, .. } => {
                let take = |path: &Path| cgroup_dir(path, *readonly);
                let v1 = v1.iter().map(|(name, path)| Ok((name.clone(), take(path)?))).collect::<Result<_>>()?;
                Ok(Source::Cgroup(v1, v2_bind.as_deref().map(take).transpose()?))
            }
            _ => Ok(Source::None),
        }
    }

    fn bind(&self, bind: &Bind) -> Result<Source> {
        let place = openat::open_host(&bind.source, Access::Path).explain(|| "open the source")?;
        let tree = mount::clone_fd(place.as_fd(), bind.recursive).explain(|| "copy the mount")?;
        let fd = tree.as_fd();
        self.set_sharing(bind.propagation, place.as_fd(), fd)?;
        let set = attr::read_only_if(bind.readonly) | overlay::attributes(bind.options);
        if set != 0 {
            mount::change(fd, false, &Change { set, ..Change::default() }).explain(|| "set mount attributes")?;
        }
        if bind.recursive_readonly {
            mount::change(fd, true, &Change { set: attr::RDONLY, ..Change::default() })
                .explain(|| "make it and the mounts below it read-only")?;
        }
        if bind.idmapped {
            let Some(idmap) = self.userns else {
                return Err(Failure::refused("an id-mapped mount needs the pod's user namespace"));
            };
            mount::change(fd, false, &Change { idmap: Some(idmap), ..Change::default() })
                .explain(|| "map ids (the file system may not support id-mapped mounts)")?;
        }
        tree_of(tree)
    }

    /// A copy of a shared mount is in its peer group until it is taken out; nothing may reach the container, or come from it,
    /// that was not asked for.
    fn set_sharing(&self, wanted: Propagation, place: BorrowedFd<'_>, tree: BorrowedFd<'_>) -> Result<()> {
        let sharing = match wanted {
            Propagation::Private => Sharing::Private,
            Propagation::HostToContainer => {
                let found = self.sharing_of(place)?;
                if !found.shared && !found.slave {
                    return Err(Failure::refused(
                        "HostToContainer propagation needs a source mount that is shared or slave",
                    ));
                }
                Sharing::Slave
            }
            Propagation::Bidirectional => {
                if self.userns.is_some() {
                    return Err(Failure::refused(
                        "Bidirectional propagation is not possible in a pod with a user namespace",
                    ));
                }
                if !self.sharing_of(place)?.shared {
                    return Err(Failure::refused("Bidirectional propagation needs a source mount that is shared"));
                }
                return Ok(());
            }
        };
        mount::change(tree, true, &Change { sharing: Some(sharing), ..Change::default() }).explain(|| "set propagation")
    }

    fn sharing_of(&self, place: BorrowedFd<'_>) -> Result<Found> {
        let id = openat::mount_id(place).explain(|| "find the source's mount")?;
        let table = self.procfs.read("self/mountinfo", MAX_MOUNT_TABLE).explain(|| "read the mount table")?;
        sharing_in(&table, id).ok_or_else(|| Failure::refused(format!("mount {id} is not in the mount table")))
    }

    fn nodes(&self) -> Result<(Vec<OwnedFd>, Vec<OwnedFd>)> {
        let standard = STANDARD_NODES
            .iter()
            .map(|(name, major, minor)| node(&Path::new("/dev").join(name), false, *major, *minor))
            .collect::<Result<_>>()?;
        let devices = &self.spec.devices;
        let own = devices.iter().map(|d| node(&d.host_path, d.block, d.major, d.minor)).collect::<Result<_>>()?;
        Ok((standard, own))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    shared: bool,
    slave: bool,
}

/// Sharing of one mount by the optional fields of its line (proc_pid_mountinfo(5)): the seventh on, up to `-`.
fn sharing_in(table: &[u8], id: u64) -> Option<Found> {
    table.split(|b| *b == b'\n').map(String::from_utf8_lossy).find_map(|line| {
        let mut fields = line.split(' ');
        if fields.next()?.parse() != Ok(id) {
            return None;
        }
        let optional: Vec<&str> = fields.skip(5).take_while(|f| *f != "-").collect();
        let any = |tag: &str| optional.iter().any(|f| f.starts_with(tag));
        Some(Found { shared: any("shared:"), slave: any("master:") })
    })
}

fn tree_of(tree: OwnedFd) -> Result<Source> {
    let is_directory = openat::facts(tree.as_fd()).explain(|| "look at it")?.kind == Kind::Directory;
    Ok(Source::Tree(tree, is_directory))
}

/// A detached copy of a device node of the host, checked to be that device (CVE-2025-31133).
fn node(path: &Path, block: bool, major: u32, minor: u32) -> Result<OwnedFd> {
    let what = || format!("device {}", path.display());
    let place = openat::open_host(path, Access::Path).explain(what)?;
    let tree = mount::clone_fd(place.as_fd(), false).explain(what)?;
    let found = openat::facts(tree.as_fd()).explain(what)?;
    let kind = if block { Kind::BlockDevice } else { Kind::CharacterDevice };
    if found.kind != kind || found.node != (major, minor) {
        return Err(Failure::refused(format!("{} is not the device {major}:{minor}", path.display())));
    }
    mount::change(tree.as_fd(), false, &Change { sharing: Some(Sharing::Private), ..Change::default() })
        .explain(what)?;
    Ok(tree)
}

fn host_sysfs(readonly: bool) -> Result<Source> {
    let what = || "copy the host's /sys";
    let tree = mount::clone_path(Path::new("/sys"), true).explain(what)?;
    let set = attr::QUIET | attr::read_only_if(readonly);
    let change = Change { set, sharing: Some(Sharing::Private), idmap: None };
    mount::change(tree.as_fd(), true, &change).explain(what)?;
    Ok(Source::Tree(tree, true))
}

fn cgroup_dir(path: &Path, readonly: bool) -> Result<OwnedFd> {
    let what = || format!("copy the cgroup directory {}", path.display());
    let tree = mount::clone_path(path, false).explain(what)?;
    let set = attr::QUIET | attr::read_only_if(readonly);
    mount::change(tree.as_fd(), false, &Change { set, sharing: Some(Sharing::Private), idmap: None }).explain(what)?;
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sharing_is_read_from_the_optional_fields() {
        let table = b"36 35 98:0 / /a rw,noatime - ext3 /dev/root rw\n\
            361 35 98:0 / /shared: rw shared:5 - ext3 x rw\n\
            37 35 98:0 / /b rw,noatime shared:5 master:1 - ext3 x rw\n\
            38 35 98:0 / /c rw master:1 propagate_from:2 - ext3 shared:9 rw\n";
        assert_eq!(sharing_in(table, 36), Some(Found { shared: false, slave: false }));
        assert_eq!(sharing_in(table, 37), Some(Found { shared: true, slave: true }));
        assert_eq!(sharing_in(table, 38), Some(Found { shared: false, slave: true }));
        assert_eq!(sharing_in(table, 3), None);
    }
}
