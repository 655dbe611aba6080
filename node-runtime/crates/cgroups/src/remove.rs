//! Removing groups: sub-groups first, then the group, then parents that we made and nobody uses.
use crate::create::ancestors;
use crate::files::{Tree, errno, failed, is_gone};
use crate::{CgroupPath, Cgroups, Driver};
use berth_model::{Error, ErrorKind, Result};
use rustix::io::Errno;
use std::time::Duration;

/// The kernel gives EBUSY for a moment after the last process has gone: 1 ms, doubled ten times.
const ATTEMPTS: u32 = 10;

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
