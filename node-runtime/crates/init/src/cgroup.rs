//! How the task's process gets into its cgroup.
//!
//! Owns: the descriptors, opened while we are the host's root: the opener's credentials count at the write
//! (`kernel/cgroup`, CVE-2021-4197). Must not: make groups or set limits; they exist and are set.
use crate::failure::{Explain, Failure, Result};
use crate::split::Task;
use crate::talk::Talk;
use berth_monitor_api::spec::CgroupJoin;
use berth_sys::openat::{self, Access, Walk, magic};
use berth_sys::task;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Ready to join.
pub struct Join {
    v2: Option<(PathBuf, OwnedFd, OwnedFd)>,
    v1_tasks: Vec<(PathBuf, OwnedFd)>,
    moved: bool,
}

impl Join {
    /// Opens what is needed.
    pub fn prepare(how: &CgroupJoin) -> Result<Self> {
        let CgroupJoin::Own { v2, v1_tasks } = how else {
            return Ok(Self { v2: None, v1_tasks: Vec::new(), moved: true });
        };
        let v2 = v2.as_deref().map(open_v2).transpose()?;
        let v1_tasks = v1_tasks.iter().map(|path| open_tasks(path)).collect::<Result<_>>()?;
        Ok(Self { v2, v1_tasks, moved: false })
    }

    /// The group to start in, for `CLONE_INTO_CGROUP`.
    pub fn directory(&self) -> Option<BorrowedFd<'_>> {
        self.v2.as_ref().map(|(_, directory, _)| directory.as_fd())
    }

    /// In the child: joins, or waits until it was moved. Writing `0` means the writer.
    pub fn join(&self, talk: &Talk, me: &Task) -> Result<()> {
        if self.moved {
            return talk.paused(me.pid);
        }
        if let Some((path, _, procs)) = self.v2.as_ref().filter(|_| !me.placed) {
            task::write(procs, b"0").explain(|| format!("join the cgroup {}", path.display()))?;
        }
        for (path, tasks) in &self.v1_tasks {
            task::write(tasks, b"0").explain(|| format!("join the cgroup of {}", path.display()))?;
        }
        Ok(())
    }
}

fn open_v2(path: &Path) -> Result<(PathBuf, OwnedFd, OwnedFd)> {
    let directory = openat::open_host(path, Access::Path).explain(|| format!("open the cgroup {}", path.display()))?;
    expect_magic(&directory, magic::CGROUP2, path)?;
    let procs = openat::open_below(directory.as_fd(), Path::new("cgroup.procs"), Access::Write, Walk::SameMount)
        .explain(|| format!("open cgroup.procs of {}", path.display()))?;
    Ok((path.to_owned(), directory, procs))
}

fn open_tasks(path: &Path) -> Result<(PathBuf, OwnedFd)> {
    let tasks = openat::open_host(path, Access::Write).explain(|| format!("open {}", path.display()))?;
    expect_magic(&tasks, magic::CGROUP, path)?;
    Ok((path.to_owned(), tasks))
}

fn expect_magic(fd: &OwnedFd, wanted: i64, path: &Path) -> Result<()> {
    let found = openat::file_system(fd.as_fd()).explain(|| format!("statfs {}", path.display()))?;
    if found == wanted { Ok(()) } else { Err(Failure::refused(format!("{} is not in a cgroup tree", path.display()))) }
}
