//! Removing groups: sub-groups first, then the group, then parents that we made and nobody uses; and what others have left empty.
use crate::create::ancestors;
use crate::files::{Group, Tree, errno, failed, is_gone};
use crate::{CgroupPath, Cgroups, Driver};
use berth_model::{Error, ErrorKind, Result};
use rustix::io::Errno;
use std::time::Duration;

/// The kernel gives EBUSY for a moment after the last process has gone: 1 ms, doubled ten times.
const ATTEMPTS: u32 = 10;

/// What became of groups that were to be empty.
#[derive(Debug, PartialEq, Eq)]
enum Left {
    /// There were none.
    Nothing,
    /// They were removed.
    Gone,
    /// Somebody is in one, or is making one.
    Processes,
}

impl Cgroups {
    /// Removes a group from every hierarchy, with all below it, and parents of ours that are empty then. With systemd the
    /// scope is stopped first, as far as systemd answers. Fine for a group that is gone.
    ///
    /// Errors: `FailedPrecondition` if processes are in it: [`Cgroups::kill`] comes first.
    pub async fn remove(&self, path: &CgroupPath) -> Result<()> {
        if let Some(unit) = path.unit() {
            // Without systemd's answer the directories below are removed all the same.
            let _ = self.inner.systemd.stop(&unit.scope).await;
        }
        let (this, path) = (self.clone(), path.clone());
        let task = tokio::task::spawn_blocking(move || this.remove_dirs(&path));
        task.await.map_err(|e| Error::internal(format!("removal of a cgroup was cut off: {e}")))?
    }

    /// Gives up a parent of ours that stands for no container any more. With systemd: a slice comes into being with its first
    /// scope and stays active without any, so it is stopped. cgroupfs: such parents go with their last group.
    pub async fn release_parent(&self, parent: &str) -> Result<()> {
        match self.driver() {
            Driver::Cgroupfs => Ok(()),
            Driver::Systemd => {
                let slice = parent.trim_end_matches('/').rsplit('/').next().unwrap_or(parent);
                self.inner.systemd.stop(slice).await
            }
        }
    }

    /// Takes a parent away, with all below it, that no process is in, whoever has made it: what a kubelet, or a process that was killed, has left.
    /// Directories go by rmdir(2), the deepest first, which the kernel refuses where a process is: none is ever ended. With systemd the slice is
    /// stopped once its directory has gone, so that systemd does not take it for active any more. Whether it is gone, or never was.
    ///
    /// Errors: as [`Cgroups::parent`], also for the root; a directory cannot be removed for another reason; systemd does not answer.
    pub async fn remove_empty(&self, parent: &str) -> Result<bool> {
        let path = self.parent(parent)?;
        if path.dir().is_empty() {
            return Err(Error::invalid("cgroup_parent", format!("{parent:?} is the root; name a group below it")));
        }
        match self.remove_empty_dirs(path.dir())? {
            Left::Nothing => Ok(true),
            Left::Processes => Ok(false),
            Left::Gone => self.release_parent(parent).await.map(|()| true),
        }
    }

    /// As [`Cgroups::remove_empty`], of what is in the file system. Where a process is in one hierarchy, all stay.
    fn remove_empty_dirs(&self, dir: &str) -> Result<Left> {
        let mut found = Vec::new();
        for tree in self.trees() {
            match tree.group(dir) {
                Ok(group) => found.push((tree, group.tree())),
                Err(e) if is_gone(&e) => {}
                Err(e) => return Err(failed(format!("cgroup /{dir}"), e)),
            }
        }
        if found.is_empty() {
            return Ok(Left::Nothing);
        }
        if !found.iter().flat_map(|(_, groups)| groups).all(is_unused) {
            return Ok(Left::Processes);
        }
        for (tree, group) in found.iter().flat_map(|(tree, groups)| groups.iter().rev().map(move |g| (tree, g))) {
            let Ok(below) = group.path().strip_prefix(tree.root()) else { continue };
            match tree.remove(&below.to_string_lossy()) {
                Err(e) if matches!(errno(&e), Some(Errno::BUSY | Errno::NOTEMPTY)) => return Ok(Left::Processes),
                Err(e) if !is_gone(&e) => {
                    return Err(failed(format!("cannot remove cgroup {}", group.path().display()), e));
                }
                _ => {}
            }
        }
        Ok(Left::Gone)
    }

    /// As [`Cgroups::remove`], of what is in the file system. Blocks the thread, for about a second if processes are left.
    pub(crate) fn remove_dirs(&self, path: &CgroupPath) -> Result<()> {
        let mut result = Ok(());
        for tree in self.trees() {
            let removed = remove_tree(tree, path.dir());
            if removed.is_ok() {
                remove_parents(tree, path.dir());
            }
            result = result.and(removed);
        }
        result
    }
}

/// Whether no process is in this very group. One that cannot say is not.
fn is_unused(group: &Group) -> bool {
    group.own_pids().map_or_else(|e| is_gone(&e), |pids| pids.is_empty())
}

/// Removes a directory and all below it.
pub(crate) fn remove_tree(tree: &Tree, dir: &str) -> Result<()> {
    let group = match tree.group(dir) {
        Err(e) if is_gone(&e) => return Ok(()),
        result => result.map_err(|e| failed(format!("cgroup /{dir}"), e))?,
    };
    for group in group.tree().into_iter().rev() {
        let Ok(below) = group.path().strip_prefix(tree.root()) else { continue };
        remove_one(tree, &below.to_string_lossy())?;
    }
    Ok(())
}

fn remove_one(tree: &Tree, dir: &str) -> Result<()> {
    let mut pause = Duration::from_millis(1);
    for attempt in 1..=ATTEMPTS {
        match tree.remove(dir) {
            Err(e) if is_gone(&e) => return Ok(()),
            Err(e) if errno(&e) == Some(Errno::BUSY) && attempt < ATTEMPTS => {
                std::thread::sleep(pause);
                pause *= 2;
            }
            Err(e) if errno(&e) == Some(Errno::BUSY) => break,
            result => {
                return result.map_err(|e| failed(format!("cannot remove cgroup {}", tree.path(dir).display()), e));
            }
        }
    }
    let pids = tree.group(dir).and_then(|group| group.own_pids()).unwrap_or_default();
    Err(Error::new(
        ErrorKind::FailedPrecondition,
        format!("cannot remove cgroup {}: processes {pids:?} are in it", tree.path(dir).display()),
    ))
}

/// The lowest first; one that is in use, or not ours, ends it.
fn remove_parents(tree: &Tree, dir: &str) {
    for parent in ancestors(dir).into_iter().skip(1).rev() {
        if !tree.is_ours(parent) || tree.remove(parent).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    /// Directories stand for groups: one without `cgroup.procs` has no process, as one that is gone.
    fn machine(root: &Path) -> Cgroups {
        fs::create_dir_all(root.join("v2")).unwrap();
        fs::write(root.join("v2/cgroup.controllers"), "cpu memory\n").unwrap();
        ["kubepods/burstable/podx/c", "kubepods/besteffort", "kubepods.slice", "berth-adopt"]
            .iter()
            .for_each(|dir| fs::create_dir_all(root.join("v2").join(dir)).unwrap());
        Cgroups::v2_at(&root.join("v2"))
    }

    fn empty(cgroups: &Cgroups, parent: &str) -> Result<bool> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(cgroups.remove_empty(parent))
    }

    #[test]
    fn what_is_empty_goes_and_its_neighbours_stay() {
        let dir = tempfile::tempdir().unwrap();
        let cgroups = machine(dir.path());
        assert!(empty(&cgroups, "/kubepods").unwrap());
        assert!(!dir.path().join("v2/kubepods").exists());
        assert!(empty(&cgroups, "/kubepods").unwrap(), "it is gone");
        assert!(dir.path().join("v2/kubepods.slice").exists() && dir.path().join("v2/berth-adopt").exists());
        for bad in ["", "/", "a/..", "kubepods.slice"] {
            assert!(empty(&cgroups, bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn where_a_process_is_all_of_it_stays() {
        let dir = tempfile::tempdir().unwrap();
        let cgroups = machine(dir.path());
        fs::write(dir.path().join("v2/kubepods/burstable/podx/c/cgroup.procs"), "12345\n").unwrap();
        assert!(!empty(&cgroups, "/kubepods").unwrap());
        assert!(dir.path().join("v2/kubepods/besteffort").exists());
        // Somebody has made something in it meanwhile.
        fs::remove_file(dir.path().join("v2/kubepods/burstable/podx/c/cgroup.procs")).unwrap();
        fs::write(dir.path().join("v2/kubepods/more"), "").unwrap();
        assert!(!empty(&cgroups, "/kubepods").unwrap());
        assert!(dir.path().join("v2/kubepods").exists());
    }

    #[test]
    fn no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let cgroups = machine(dir.path());
        fs::create_dir_all(dir.path().join("elsewhere/a")).unwrap();
        std::os::unix::fs::symlink("../elsewhere", dir.path().join("v2/link")).unwrap();
        std::os::unix::fs::symlink("../../elsewhere", dir.path().join("v2/kubepods/link")).unwrap();
        assert!(empty(&cgroups, "/link").is_err());
        assert!(!empty(&cgroups, "/kubepods").unwrap(), "control groups have no links");
        assert!(dir.path().join("elsewhere/a").exists());
    }
}
