//! What this machine has: the mounted hierarchies and the way to drive them.
use crate::files::{Tree, failed};
use crate::{CgroupPath, path};
use berth_model::{Error, ErrorKind, Result, ResultExt};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// v1's controllers by name (kernel/cgroup, SUBSYS lines of linux/cgroup_subsys.h), to tell them from mount options.
const V1_CONTROLLERS: [&str; 14] = [
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "devices",
    "freezer",
    "blkio",
    "pids",
    "hugetlb",
    "net_cls",
    "net_prio",
    "perf_event",
    "rdma",
    "misc",
];

/// Who makes and limits groups. Must be the same as the kubelet's `cgroupDriver`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// We do, in the file system.
    Cgroupfs,
    /// systemd does, by transient scopes.
    Systemd,
}

/// Which hierarchies there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// v1 alone.
    V1,
    /// Controllers on v1, and a v2 tree without them.
    Hybrid,
    /// v2 alone.
    V2,
}

/// The machine's control groups. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Cgroups {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) driver: Driver,
    pub(crate) layout: Layout,
    pub(crate) v1: Vec<Hierarchy>,
    pub(crate) v2: Option<Tree>,
    controllers: Vec<String>,
    pub(crate) systemd: crate::systemd::Systemd,
}

/// A v1 hierarchy.
#[derive(Debug)]
pub(crate) struct Hierarchy {
    pub(crate) controllers: Vec<String>,
    pub(crate) tree: Tree,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Mounts {
    /// Controllers (or `name=...`) and mount point.
    v1: Vec<(Vec<String>, PathBuf)>,
    v2: Option<PathBuf>,
}

impl Cgroups {
    /// Finds the mounted hierarchies. Errors: `FailedPrecondition` naming what is missing.
    pub fn probe(driver: Driver) -> Result<Self> {
        let text = std::fs::read_to_string("/proc/self/mountinfo").context(|| "cannot read /proc/self/mountinfo")?;
        Self::with_mounts(driver, parse(&text))
    }

    fn with_mounts(driver: Driver, mounts: Mounts) -> Result<Self> {
        let missing = |what: &str| Err(Error::new(ErrorKind::FailedPrecondition, what));
        let has_v1 = mounts.v1.iter().any(|(controllers, _)| !controllers.iter().any(|c| c.starts_with("name=")));
        let layout = match (&mounts.v2, has_v1) {
            (Some(_), false) => Layout::V2,
            (Some(_), true) => Layout::Hybrid,
            (None, true) => Layout::V1,
            (None, false) => return missing("no cgroup hierarchy is mounted; mount cgroup2 on /sys/fs/cgroup"),
        };
        if driver == Driver::Systemd && layout != Layout::V2 {
            return missing(
                "the systemd cgroup driver needs cgroup v2 alone (systemd.unified_cgroup_hierarchy=1); use cgroupfs",
            );
        }
        let open =
            |root: &Path| Tree::open(root).map_err(|e| failed(format!("cgroup hierarchy {}", root.display()), e));
        let v2 = mounts.v2.as_deref().map(open).transpose()?;
        // Named hierarchies beside v2 are somebody's own and limit nothing.
        let wanted = mounts.v1.into_iter().filter(|_| layout != Layout::V2);
        let v1 = wanted
            .map(|(controllers, root)| Ok(Hierarchy { controllers, tree: open(&root)? }))
            .collect::<Result<Vec<_>>>()?;
        let controllers = match (&v2, layout) {
            (Some(tree), Layout::V2) => {
                let root = tree.group("").map_err(|e| failed("cgroup v2 root", e))?;
                let list = root.read("cgroup.controllers").context(|| "cgroup.controllers of the v2 root")?;
                list.split_whitespace().map(str::to_owned).collect()
            }
            _ => v1.iter().flat_map(|h| h.controllers.clone()).filter(|c| !c.starts_with("name=")).collect(),
        };
        let inner = Inner { driver, layout, v1, v2, controllers, systemd: crate::systemd::Systemd::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What to use where nobody says: systemd where it is process 1 and owns a v2 tree.
    pub fn default_driver() -> Driver {
        let systemd = Path::new("/run/systemd/system").is_dir();
        let v2 = std::fs::read_to_string("/proc/self/mountinfo").is_ok_and(|text| {
            Self::with_mounts(Driver::Cgroupfs, parse(&text)).is_ok_and(|c| c.layout() == Layout::V2)
        });
        if systemd && v2 { Driver::Systemd } else { Driver::Cgroupfs }
    }

    /// Which hierarchies there are.
    pub fn layout(&self) -> Layout {
        self.inner.layout
    }

    /// The driver.
    pub fn driver(&self) -> Driver {
        self.inner.driver
    }

    /// The controllers that can limit: those mounted (v1, hybrid) or offered at the root (v2).
    pub fn controllers(&self) -> &[String] {
        &self.inner.controllers
    }

    /// The group of a container. Pure.
    ///
    /// cgroupfs: `PARENT/NAME`. systemd: the parent's last part is a slice, in it `berth-NAME.scope`. An empty parent is the
    /// fallback, which the caller derives from its root directory. Errors: `InvalidArgument` for `..` and the like, names with
    /// other characters than letters, digits and `_`, and a parent of the other driver's kind.
    pub fn path(&self, parent: &str, fallback_parent: &str, name: &str) -> Result<CgroupPath> {
        path::resolve(self.inner.driver, parent, fallback_parent, name)
    }

    /// The group of a pod, by the parent that its containers' groups are made in. Pure. Errors: as [`Self::path`].
    pub fn parent(&self, parent: &str) -> Result<CgroupPath> {
        path::resolve_parent(self.inner.driver, parent)
    }

    /// All hierarchies.
    pub(crate) fn trees(&self) -> Vec<&Tree> {
        self.inner.v1.iter().map(|h| &h.tree).chain(self.inner.v2.as_ref()).collect()
    }

    /// A machine made of plain directories.
    #[cfg(test)]
    pub(crate) fn v2_at(root: &Path) -> Self {
        let mounts = Mounts { v1: Vec::new(), v2: Some(root.to_owned()) };
        Self::with_mounts(Driver::Cgroupfs, mounts).unwrap()
    }
}

/// Reads mountinfo (proc_pid_mountinfo(5)). Of several mounts of a hierarchy the first below /sys/fs/cgroup counts, else the
/// first.
fn parse(mountinfo: &str) -> Mounts {
    let mut found: Vec<(bool, Vec<String>, PathBuf)> = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let mut right = right.split(' ');
        let (Some(kind), Some(_), Some(options)) = (right.next(), right.next(), right.next()) else { continue };
        let Some(point) = left.split(' ').nth(4) else { continue };
        let controllers: Vec<String> = match kind {
            "cgroup2" => Vec::new(),
            "cgroup" => options
                .split(',')
                .filter(|o| o.starts_with("name=") || V1_CONTROLLERS.contains(o))
                .map(str::to_owned)
                .collect(),
            _ => continue,
        };
        if kind == "cgroup" && controllers.is_empty() {
            continue;
        }
        let point = PathBuf::from(unescape(point));
        let usual = point.starts_with("/sys/fs/cgroup");
        match found.iter_mut().find(|(_, known, _)| *known == controllers) {
            Some(known) if usual && !known.0 => *known = (usual, controllers, point),
            Some(_) => {}
            None => found.push((usual, controllers, point)),
        }
    }
    let mut mounts = Mounts::default();
    for (_, controllers, point) in found {
        if controllers.is_empty() {
            mounts.v2 = Some(point);
        } else {
            mounts.v1.push((controllers, point));
        }
    }
    mounts
}

/// mountinfo writes blank, tab, newline and backslash as octal.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_gives_the_hierarchies() {
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
            32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:1 - cgroup cgroup rw,cpu,cpuacct\n\
            40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
            50 31 0:38 / /mnt/a\\040b rw - cgroup2 cgroup2 rw\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
            42 31 0:38 / /tmp/x rw - cgroup2 cgroup2 rw\n";
        let expected = Mounts {
            v1: vec![
                (vec!["cpu".into(), "cpuacct".into()], "/sys/fs/cgroup/cpu,cpuacct".into()),
                (vec!["name=systemd".into()], "/sys/fs/cgroup/systemd".into()),
            ],
            v2: Some("/sys/fs/cgroup/unified".into()),
        };
        assert_eq!(parse(hybrid), expected);
        assert_eq!(parse("50 31 0:38 / /mnt/a\\040b rw - cgroup2 none rw").v2, Some("/mnt/a b".into()));
        assert_eq!(parse("garbage\n"), Mounts::default());
    }

    #[test]
    fn the_layout_follows_from_the_mounts() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("cgroup.controllers"), "cpu memory\n").unwrap();
        let v2 = Cgroups::v2_at(dir.path());
        assert_eq!((v2.layout(), v2.controllers().len()), (Layout::V2, 2));
        let none = Cgroups::with_mounts(Driver::Cgroupfs, Mounts::default()).unwrap_err();
        assert!(none.message().contains("no cgroup hierarchy"));
        let hybrid = Mounts { v1: vec![(vec!["cpu".into()], dir.path().into())], v2: Some(dir.path().into()) };
        let e = Cgroups::with_mounts(Driver::Systemd, hybrid).unwrap_err();
        assert!(e.message().contains("needs cgroup v2"), "{e}");
    }
}
