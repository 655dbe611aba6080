//! Writable layers as projects of a file system that keeps project quota: limited by the kernel, and counted without a walk.
//!
//! Owns: the choice of project numbers. Must not: promise a limit that nothing enforces.
use berth_model::{Error, ErrorKind, Result, ResultExt};
use berth_sys::quota::{self, Taken};
use rustix::fs::{self, Mode, OFlags};
use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// The project numbers that are ours: nobody else numbers from here (projid files count from 1, docker's driver too).
const FIRST: u32 = 0x4265_0000;
/// How many there are.
const COUNT: u32 = 0x1_0000;

/// The quota of the store's file system.
#[derive(Debug)]
pub struct Quota {
    root: PathBuf,
    /// `None` where the file system keeps no project quota.
    fd: Option<OwnedFd>,
    /// Numbers go round, from a start of the root's own: several stores on one file system seldom meet.
    next: AtomicU32,
}

impl Quota {
    /// Looks whether there is one.
    pub fn probe(root: &Path) -> Result<Self> {
        let fd = open(root)?;
        let kept = quota::taken(&fd, 0).is_ok();
        let digest = berth_registry::sha256(root.as_os_str().as_bytes());
        let first = u32::from_str_radix(&digest.hex()[..4], 16).unwrap_or(0);
        Ok(Self { root: root.to_owned(), fd: kept.then_some(fd), next: AtomicU32::new(first) })
    }

    /// Errors: `FailedPrecondition` for a limit that nothing would enforce: the file system keeps no project quota, or counts and does not
    /// limit. It is asked each time: quotas are turned on and off while file systems are in use.
    pub fn check(&self, limit: Option<u64>) -> Result<()> {
        let enforced = || self.fd.as_ref().is_some_and(|fd| quota::is_enforced(fd).unwrap_or(false));
        match limit {
            Some(_) if !enforced() => Err(self.refuse()),
            _ => Ok(()),
        }
    }

    /// A number that nobody has: none of `taken`, and none under which the file system has files, be they another store's, or of a
    /// layer that is still being removed. `None` without quota, and when all are taken: such a layer is counted by a walk.
    pub fn choose(&self, taken: &HashSet<u32>) -> Option<u32> {
        self.fd.as_ref()?;
        let start = self.next.load(Ordering::Relaxed);
        let is_free =
            |number: &u32| !taken.contains(number) && self.taken(*number).is_none_or(|t| t == Taken::default());
        let number = (0..COUNT).map(|n| FIRST + (start.wrapping_add(n)) % COUNT).find(is_free)?;
        self.next.store(number - FIRST + 1, Ordering::Relaxed);
        Some(number)
    }

    /// Makes a directory a project's, what is made in it from now on with it, and limits it. `false` when another store has chosen the same
    /// number at the same time: take another one. Errors: `FailedPrecondition` for a limit that nothing enforces.
    pub fn begin(&self, project: Option<u32>, directory: &Path, limit: Option<u64>) -> Result<bool> {
        self.check(limit)?;
        let (Some(fd), Some(project)) = (&self.fd, project) else {
            // Without a number (all are taken) nothing would enforce it either.
            return limit.map_or(Ok(true), |_| Err(self.refuse()));
        };
        quota::set_project(open(directory)?, project).context(|| directory.display())?;
        if self.taken(project).is_some_and(|taken| taken.inodes > 1) {
            return Ok(false);
        }
        // What an earlier project of this number was allowed does not count.
        quota::set_limit(fd, project, limit.unwrap_or(0)).context(|| "project quota")?;
        Ok(true)
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
            "a limit of writable layers (spec.runtime.storage.writableLayerLimit, berth.dev/writable-layer-limit): the disk of {} enforces no project quota, so nothing would keep a container to it: \
             mount it with prjquota (ext4: mkfs -O quota,project as well), or unset the limit",
            self.root.display()
        );
        Error::new(ErrorKind::FailedPrecondition, problem)
    }
}

fn open(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::open(path, flags, Mode::empty()).map_err(crate::unpack::io).context(|| path.display())
}
