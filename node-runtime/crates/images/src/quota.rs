//! Writable layers as projects of a file system that keeps project quota: limited by the kernel, and counted without a walk.
//!
//! Owns: the choice of project numbers. Must not: promise a limit that nothing enforces.
use berth_model::{Error, ErrorKind, Result, ResultExt};
use berth_sys::quota::{self, Taken};
use rustix::fs::{self, Mode, OFlags};
use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// The project numbers that are ours: nobody else numbers from here (projid files count from 1, docker's driver too).
const FIRST: u32 = 0x4265_0000;
const LAST: u32 = 0x4265_ffff;

/// The quota of the store's file system.
#[derive(Debug)]
pub struct Quota {
    root: PathBuf,
    /// `None` where the file system keeps no project quota.
    fd: Option<OwnedFd>,
    /// Numbers go round, so that one is not used again while files of its last layer are still being removed.
    next: AtomicU32,
}

impl Quota {
    /// Looks whether there is one.
    pub fn probe(root: &Path) -> Result<Self> {
        let fd = open(root)?;
        let kept = quota::taken(&fd, 0).is_ok();
        Ok(Self { root: root.to_owned(), fd: kept.then_some(fd), next: AtomicU32::new(0) })
    }

    /// Errors: `FailedPrecondition` for a limit where the file system keeps no project quota.
    pub fn check(&self, limit: Option<u64>) -> Result<()> {
        match limit {
            Some(_) if self.fd.is_none() => Err(self.refuse()),
            _ => Ok(()),
        }
    }

    /// A number that nobody has. `None` without quota, and when all are taken: such a layer is counted by a walk.
    pub fn choose(&self, taken: &HashSet<u32>) -> Option<u32> {
        self.fd.as_ref()?;
        let count = LAST - FIRST + 1;
        let start = self.next.load(Ordering::Relaxed);
        let number = (0..count).map(|n| FIRST + (start + n) % count).find(|number| !taken.contains(number))?;
        self.next.store(number - FIRST + 1, Ordering::Relaxed);
        Some(number)
    }

    /// Makes an empty directory a project's, and limits it. Errors: `FailedPrecondition` for a limit without quota.
    pub fn begin(&self, project: Option<u32>, directory: &Path, limit: Option<u64>) -> Result<()> {
        let (Some(fd), Some(project)) = (&self.fd, project) else {
            // Without a number (all are taken) nothing would enforce it either.
            return limit.map_or(Ok(()), |_| Err(self.refuse()));
        };
        // What an earlier project of this number was allowed does not count.
        quota::set_limit(fd, project, limit.unwrap_or(0)).context(|| "project quota")?;
        quota::set_project(open(directory)?, project).context(|| directory.display())
    }

    /// What a project takes.
    pub fn taken(&self, project: u32) -> Option<Taken> {
        quota::taken(self.fd.as_ref()?, project).ok()
    }

    /// Lets go of a project's limit.
    pub fn end(&self, project: u32) {
        if let Some(fd) = &self.fd {
            // Only a number without files and without limits is forgotten by the kernel; a limit that stays hurts nobody.
            let _ = quota::set_limit(fd, project, 0);
        }
    }

    fn refuse(&self) -> Error {
        let problem = format!(
            "spec.runtime.storage.writableLayerLimit: the disk of {} keeps no project quota, so nothing would enforce it: mount it with \
             prjquota (ext4: mkfs -O quota,project), or unset the limit",
            self.root.display()
        );
        Error::new(ErrorKind::FailedPrecondition, problem)
    }
}

fn open(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::open(path, flags, Mode::empty()).map_err(crate::unpack::io).context(|| path.display())
}
