//! Walks over directory trees that a container or an image has filled: removal and counting.
//!
//! Owns: doing so without following links, without a limit on depth, and without ever leaving the tree: one directory is
//! open at a time, and the way back up is checked by device and inode. Must not: decide what is removed.
use crate::unpack::io;
use berth_model::{Error, Result, ResultExt};
use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::collections::HashSet;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// What a tree takes on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DiskUsage {
    /// Bytes of allocated blocks.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
}

impl std::ops::AddAssign for DiskUsage {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.inodes += other.inodes;
    }
}

/// One directory on the way down.
struct Level {
    name: CString,
    identity: (u64, u64),
    pending: Vec<CString>,
}

/// A walk. Errors of single entries that vanish are none: the tree may be in use.
struct Walk {
    here: OwnedFd,
    levels: Vec<Level>,
}

impl Walk {
    fn start(at: BorrowedFd<'_>, path: impl rustix::path::Arg) -> Result<Option<Self>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let here = match fs::openat(at, path, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(io(e)),
        };
        Ok(Some(Self { here, levels: Vec::new() }))
    }

    /// Enters a directory of the current one. `false` when it is gone, no directory any more, or a mount point.
    fn down(&mut self, name: CString, pending: Vec<CString>) -> Result<bool, (Errno, Vec<CString>)> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
        let identity = identity(&self.here).map_err(|e| (e, Vec::new()))?;
        match fs::openat2(&self.here, &name, flags, Mode::empty(), resolve) {
            Ok(fd) => {
                self.here = fd;
                self.levels.push(Level { name, identity, pending });
                Ok(true)
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::XDEV | Errno::LOOP | Errno::AGAIN) => {
                Err((Errno::NOENT, pending))
            }
            Err(e) => Err((e, pending)),
        }
    }

    /// Goes back to the directory above, if it is still the one we came from.
    fn up(&mut self) -> Result<Option<Level>> {
        let Some(level) = self.levels.pop() else { return Ok(None) };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let above = fs::openat(&self.here, "..", flags, Mode::empty()).map_err(io)?;
        if identity(&above).map_err(io)? != level.identity {
            return Err(Error::internal("a directory was moved while its tree was walked"));
        }
        self.here = above;
        Ok(Some(level))
    }
}

fn identity(fd: &OwnedFd) -> rustix::io::Result<(u64, u64)> {
    fs::fstat(fd).map(|s| (s.st_dev, s.st_ino))
}

/// Removes a directory with everything in it. An absent one is fine. Errors: a mount inside it, or a fault of the disk.
pub fn remove(path: &Path) -> Result<()> {
    remove_contents(Walk::start(fs::CWD, path)?).context(|| path.display())?;
    match std::fs::remove_dir(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::from(e).context(path.display())),
        _ => Ok(()),
    }
}

/// As [`remove`], by a name in an open directory.
pub fn remove_below(parent: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    remove_contents(Walk::start(parent, name)?)?;
    match fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(io(e)),
    }
}

fn remove_contents(walk: Option<Walk>) -> Result<()> {
    let Some(mut walk) = walk else { return Ok(()) };
    let mut pending = unlink_files(&walk.here)?;
    loop {
        if let Some(name) = pending.pop() {
            match walk.down(name, pending) {
                Ok(_) => pending = unlink_files(&walk.here)?,
                Err((Errno::NOENT, rest)) => pending = rest,
                Err((e, _)) => return Err(io(e)),
            }
            continue;
        }
        let Some(level) = walk.up()? else { return Ok(()) };
        match fs::unlinkat(&walk.here, &level.name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(io(e)),
        }
        pending = level.pending;
    }
}

/// Unlinks all that is no directory and returns the directories.
fn unlink_files(directory: &OwnedFd) -> Result<Vec<CString>> {
    let mut directories = Vec::new();
    for entry in Dir::read_from(directory).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if entry.file_type() != FileType::Directory {
            match fs::unlinkat(directory, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => continue,
                // A file system that does not tell types, or a directory that took the name.
                Err(Errno::ISDIR | Errno::PERM) => {}
                Err(e) => return Err(io(e)),
            }
        }
        directories.push(name.to_owned());
    }
    Ok(directories)
}

/// Counts a tree, the directory itself included, each hard-linked file once, mounts left out.
pub fn usage(path: &Path) -> Result<DiskUsage> {
    count(path).context(|| path.display())
}

fn count(path: &Path) -> Result<DiskUsage> {
    let mut total = DiskUsage::default();
    let Some(mut walk) = Walk::start(fs::CWD, path)? else { return Ok(total) };
    let mut linked = HashSet::new();
    let root = fs::fstat(&walk.here).map_err(io)?;
    total += DiskUsage { bytes: root.st_blocks.unsigned_abs() * 512, inodes: 1 };
    let mut pending = count_entries(&walk.here, &mut total, &mut linked)?;
    loop {
        if let Some(name) = pending.pop() {
            match walk.down(name, pending) {
                Ok(_) => pending = count_entries(&walk.here, &mut total, &mut linked)?,
                Err((Errno::NOENT | Errno::ACCESS, rest)) => pending = rest,
                Err((e, _)) => return Err(io(e)),
            }
            continue;
        }
        let Some(level) = walk.up()? else { return Ok(total) };
        pending = level.pending;
    }
}

fn count_entries(directory: &OwnedFd, total: &mut DiskUsage, linked: &mut HashSet<u64>) -> Result<Vec<CString>> {
    let mut directories = Vec::new();
    for entry in Dir::read_from(directory).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = match fs::statat(directory.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(e) => return Err(io(e)),
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            directories.push(name.to_owned());
        } else if stat.st_nlink > 1 && !linked.insert(stat.st_ino) {
            continue;
        }
        *total += DiskUsage { bytes: stat.st_blocks.unsigned_abs() * 512, inodes: 1 };
    }
    Ok(directories)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn trees_deeper_than_any_path_are_counted_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        std::fs::create_dir(&top).unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let mut fd = fs::open(&top, flags, Mode::empty()).unwrap();
        let depth = 3000;
        for _ in 0..depth {
            fs::mkdirat(&fd, "deep", Mode::from_raw_mode(0o755)).unwrap();
            fd = fs::openat(&fd, "deep", flags, Mode::empty()).unwrap();
        }
        drop(fd);
        assert_eq!(usage(&top).unwrap().inodes, depth + 1);
        remove(&top).unwrap();
        remove(&top).unwrap();
        assert!(!top.exists());
    }

    #[test]
    fn links_are_removed_and_never_followed() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("kept"), "x").unwrap();
        let top = dir.path().join("top");
        std::fs::create_dir_all(top.join("a/b")).unwrap();
        std::fs::write(top.join("a/f"), vec![1; 5000]).unwrap();
        std::fs::hard_link(top.join("a/f"), top.join("a/b/g")).unwrap();
        symlink(&outside, top.join("a/link")).unwrap();
        symlink("/", top.join("root")).unwrap();
        let found = usage(&top).unwrap();
        assert_eq!(found.inodes, 6, "three directories, one file, two links");
        assert!(found.bytes >= 8192 && found.bytes < 1 << 20, "{found:?}");
        remove(&top).unwrap();
        assert!(!top.exists() && outside.join("kept").exists());
    }
}
