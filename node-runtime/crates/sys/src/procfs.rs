//! A procfs of our own, attached nowhere, so that nothing a container mounts can stand in for it.
//!
//! Owns: the handle and its checks (CVE-2019-16884, CVE-2025-52881). Must not: open /proc by its path.
use crate::mount::{MountError, NewMount, attr};
use crate::openat::{self, Access, Walk, magic};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// A detached procfs mount of the calling process's PID namespace.
#[derive(Debug)]
pub struct Procfs(OwnedFd);

impl Procfs {
    /// Makes one, with the files of processes and of the system (/proc/sys).
    pub fn with_system() -> Result<Self, MountError> {
        Self::make(false)
    }

    /// Makes one that has the files of processes alone (`subset=pid`, 5.8): the less to lose.
    pub fn processes_only() -> Result<Self, MountError> {
        Self::make(true)
    }

    fn make(subset: bool) -> Result<Self, MountError> {
        let plain = |error| MountError { error, log: String::new() };
        let context = NewMount::open("proc").map_err(plain)?;
        if subset {
            context.set("subset", "pid")?;
        }
        let root = context.mount(attr::QUIET)?;
        // PROC_ROOT_INO is 1 (fs/proc/root.c): the root of a procfs, and not something below one.
        let is_root = openat::facts(root.as_fd()).map_err(plain)?.inode == 1;
        if !is_root || openat::file_system(root.as_fd()).map_err(plain)? != magic::PROC {
            return Err(plain(io::Error::other("a fresh procfs does not look like one")));
        }
        Ok(Self(root))
    }

    /// The root directory.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Opens a file by its path below the root, without leaving this mount.
    pub fn open(&self, path: &str, access: Access) -> io::Result<OwnedFd> {
        let fd = openat::open_below(self.0.as_fd(), Path::new(path), access, Walk::SameMount)?;
        if openat::file_system(fd.as_fd())? != magic::PROC {
            return Err(io::Error::other(format!("{path} is not on procfs")));
        }
        Ok(fd)
    }

    /// Writes a file in one call, as files of procfs want it.
    pub fn write(&self, path: &str, data: &[u8]) -> io::Result<()> {
        let mut file = std::fs::File::from(self.open(path, Access::Write)?);
        match file.write(data)? {
            n if n == data.len() => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    /// Reads a file of at most `limit` bytes.
    pub fn read(&self, path: &str, limit: u64) -> io::Result<Vec<u8>> {
        let file = std::fs::File::from(self.open(path, Access::Read)?);
        let mut data = Vec::new();
        file.take(limit.saturating_add(1)).read_to_end(&mut data)?;
        if data.len() as u64 > limit {
            return Err(io::Error::other(format!("{path} is longer than {limit} bytes")));
        }
        Ok(data)
    }
}
