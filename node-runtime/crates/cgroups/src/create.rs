//! Making groups in the file system: directories from the top down, what they inherit, limits, device rules.
use crate::check::checked;
use crate::files::{Tree, failed, is_gone};
use crate::writes::apply;
use crate::{CgroupPath, Cgroups, DevicePolicy, Driver, Layout, v2};
use berth_model::{Error, ErrorKind, Resources, Result, ResultExt};
use std::io;

/// A parent of ours can be removed by a neighbour's removal while we are about to use it.
const PARENT_ATTEMPTS: u32 = 5;

impl Cgroups {
    /// Makes a container's group with its limits and device rules; no process is in it. Missing parents are made. All or
    /// nothing: on an error what was made is removed.
    ///
    /// With the systemd driver nothing exists before [`Cgroups::start_scope`], and this only checks the limits.
    ///
    /// Errors: `InvalidArgument` naming a field, `FailedPrecondition` for missing controllers, `AlreadyExists` for a group that
    /// is in use. An empty group of ours by this name (from a start that was cut off) is replaced.
    pub fn create(&self, path: &CgroupPath, resources: &Resources, devices: &DevicePolicy) -> Result<()> {
        let resources = checked(resources)?;
        if path.unit().is_some() {
            return Ok(());
        }
        self.clear_leftover(path)?;
        let filled = self.make(path).and_then(|warnings| {
            let with_reason = |e: Error| if warnings.is_empty() { e } else { e.context(warnings.join("; ")) };
            self.fill(path, &resources, devices).map_err(with_reason)
        });
        if filled.is_err() {
            let _ = self.remove_dirs(path);
        }
        filled
    }

    /// Writes limits and device rules of a new group.
    pub(crate) fn fill(&self, path: &CgroupPath, resources: &Resources, devices: &DevicePolicy) -> Result<()> {
        let view = self.view(path)?;
        let writes = self.plan(&view, resources, true)?;
        apply(&view, &writes).context(|| format!("cgroup {path}"))?;
        let v1 = if self.layout() == Layout::V2 { None } else { view.group("devices") };
        match (v1, &view.v2) {
            (Some(group), _) => devices.write_v1(group),
            (None, Some(group)) => devices.attach_v2(group),
            (None, None) if devices.allow_all => Ok(()),
            (None, None) => Err(Error::new(
                ErrorKind::FailedPrecondition,
                "device rules: neither the v1 devices controller nor cgroup v2 is mounted",
            )),
        }
    }

    fn clear_leftover(&self, path: &CgroupPath) -> Result<()> {
        for tree in self.trees() {
            match tree.group(path.dir()) {
                Err(e) if is_gone(&e) => {}
                Err(e) => return Err(failed(format!("cgroup {path}"), e)),
                Ok(group) => {
                    let in_use = group.tree().iter().any(|g| g.own_pids().is_ok_and(|pids| !pids.is_empty()));
                    if in_use || !tree.is_ours(path.dir()) {
                        let problem = format!("cgroup {} is there already", tree.path(path.dir()).display());
                        return Err(Error::new(ErrorKind::AlreadyExists, problem));
                    }
                    crate::remove::remove_tree(tree, path.dir())?;
                }
            }
        }
        Ok(())
    }

    /// Makes the directories in every hierarchy. The result tells which v2 controllers could not be turned on.
    fn make(&self, path: &CgroupPath) -> Result<Vec<String>> {
        for hierarchy in &self.inner.v1 {
            make_path(&hierarchy.tree, path)?;
            if hierarchy.controllers.iter().any(|c| c == "cpuset") {
                inherit_cpuset(&hierarchy.tree, path)?;
            }
        }
        let Some(tree) = &self.inner.v2 else { return Ok(Vec::new()) };
        make_path(tree, path)?;
        if self.layout() != Layout::V2 {
            return Ok(Vec::new());
        }
        let mut warnings = Vec::new();
        for dir in ancestors(path.dir()) {
            let group = tree.group(dir).map_err(|e| failed(format!("cgroup /{dir}"), e))?;
            let refused = v2::enable_controllers(&group);
            warnings.extend(
                refused.into_iter().map(|(c, e)| format!("cannot enable {c} in {}: {e}", group.path().display())),
            );
        }
        v2::check_type(&tree.group(path.dir()).map_err(|e| failed(format!("cgroup {path}"), e))?)?;
        Ok(warnings)
    }

    /// A group for processes of the runtime itself (daemon, monitors), outside the pods' groups and without limits, and moves
    /// these processes there. cgroupfs: `BASE/NAME`. systemd: a sub-group of the group that this process is in (its service,
    /// which is delegated), so `base` does not matter.
    ///
    /// Making it again is fine. Errors as for [`Cgroups::create`]; a process that is gone is not an error.
    pub fn own_leaf(&self, base: &str, name: &str, pids: &[u32]) -> Result<CgroupPath> {
        let base = match self.driver() {
            Driver::Cgroupfs => base.to_owned(),
            Driver::Systemd => self.own_service(name)?,
        };
        let path = CgroupPath::plain(&format!("{base}/{name}"))?;
        for tree in self.trees() {
            match make_path(tree, &path) {
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                result => result?,
            }
        }
        for hierarchy in self.inner.v1.iter().filter(|h| h.controllers.iter().any(|c| c == "cpuset")) {
            inherit_cpuset(&hierarchy.tree, &path)?;
        }
        for tree in self.trees() {
            let group = tree.group(path.dir()).map_err(|e| failed(format!("cgroup {path}"), e))?;
            for pid in pids {
                match group.write("cgroup.procs", &pid.to_string()) {
                    Err(e) if crate::files::errno(&e) == Some(rustix::io::Errno::SRCH) => {}
                    result => result.context(|| format!("cannot move process {pid} to {}", group.path().display()))?,
                }
            }
        }
        Ok(path)
    }

    /// The group of this process on v2, without the leaf that an earlier call put it into.
    fn own_service(&self, leaf: &str) -> Result<String> {
        let group = crate::join::v2_group_of("self")?;
        let group = group.trim_start_matches('/');
        let made = self.inner.v2.as_ref().is_some_and(|tree| tree.is_ours(group));
        let parent = group.rsplit_once('/').map_or("", |(parent, _)| parent);
        Ok(if made || group.ends_with(&format!("/{leaf}")) { parent } else { group }.to_owned())
    }
}

/// Makes the directories that are missing on the way, and the last one. Errors: `AlreadyExists` if the last one is there.
fn make_path(tree: &Tree, path: &CgroupPath) -> Result<()> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        match try_make(tree, path.dir()) {
            Err(e) if is_gone(&e) && attempt < PARENT_ATTEMPTS => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                let problem = format!("cgroup {} is there already", tree.path(path.dir()).display());
                return Err(Error::new(ErrorKind::AlreadyExists, problem));
            }
            result => {
                return result
                    .map_err(|e| failed(format!("cannot make cgroup {}", tree.path(path.dir()).display()), e));
            }
        }
    }
}

fn try_make(tree: &Tree, dir: &str) -> io::Result<()> {
    for parent in ancestors(dir).into_iter().filter(|parent| !parent.is_empty()) {
        match tree.make(parent) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            result => result?,
        }
    }
    tree.make(dir)
}

/// The directories above, from the root ("") down.
pub(crate) fn ancestors(dir: &str) -> Vec<&str> {
    std::iter::once("").chain(dir.match_indices('/').map(|(at, _)| &dir[..at])).collect()
}

/// v1: a group without CPUs or memory nodes takes no process (ENOSPC), and a new one has none; each gets its parent's.
fn inherit_cpuset(tree: &Tree, path: &CgroupPath) -> Result<()> {
    let open = |dir: &str| tree.group(dir).map_err(|e| failed(format!("cpuset cgroup /{dir}"), e));
    let mut parent = open("")?;
    for dir in ancestors(path.dir()).into_iter().skip(1).chain([path.dir()]) {
        let group = open(dir)?;
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let context = || format!("{file} of {}", group.path().display());
            if group.read(file).context(context)?.trim().is_empty() {
                let list = parent.read(file).context(context)?;
                group.write(file, list.trim()).context(context)?;
            }
        }
        parent = group;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ancestors_go_down_from_the_root() {
        assert_eq!(ancestors("a/b/c"), ["", "a", "a/b"]);
        assert_eq!(ancestors("a"), [""]);
    }
}
