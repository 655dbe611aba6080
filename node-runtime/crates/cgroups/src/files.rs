//! Opening, reading and writing files of cgroup trees, beneath a tree's root and without following links or leaving the
//! file system. Must not know what the files mean.
use berth_model::{Error, ErrorKind};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Largest file we read: `cgroup.procs` with half a million entries.
const MAX_FILE: u64 = 4 * 1024 * 1024;
/// Marks directories that we made, so that removal after a restart of the daemon knows them. Kernfs keeps extended
/// attributes as long as the directory lives.
const MADE_BY_US: &str = "trusted.berth";

/// A mounted hierarchy.
#[derive(Debug)]
pub(crate) struct Tree {
    fd: OwnedFd,
    root: PathBuf,
}

impl Tree {
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::openat(CWD, root, flags, Mode::empty())?;
        Ok(Self { fd, root: root.to_owned() })
    }

    /// Where the hierarchy is mounted.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of a group on the host.
    pub(crate) fn path(&self, dir: &str) -> PathBuf {
        if dir.is_empty() { self.root.clone() } else { self.root.join(dir) }
    }

    /// Opens a group; "" is the root.
    pub(crate) fn group(&self, dir: &str) -> io::Result<Group> {
        let name = if dir.is_empty() { "." } else { dir };
        let fd = beneath(self.fd.as_fd(), name, OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok(Group { fd, path: self.path(dir) })
    }

    /// Makes one directory and marks it. `AlreadyExists` if it is there.
    pub(crate) fn make(&self, dir: &str) -> io::Result<()> {
        let (parent, name) = dir.rsplit_once('/').unwrap_or(("", dir));
        let parent = self.group(parent)?;
        rustix::fs::mkdirat(&parent.fd, name, Mode::from_raw_mode(0o755))?;
        let marked = parent
            .child(name)
            .and_then(|made| Ok(rustix::fs::fsetxattr(&made.fd, MADE_BY_US, b"1", rustix::fs::XattrFlags::empty())?));
        if marked.is_err() {
            let _ = rustix::fs::unlinkat(&parent.fd, name, rustix::fs::AtFlags::REMOVEDIR);
        }
        marked
    }

    /// Removes one directory without children.
    pub(crate) fn remove(&self, dir: &str) -> io::Result<()> {
        let (parent, name) = dir.rsplit_once('/').unwrap_or(("", dir));
        let parent = self.group(parent)?;
        Ok(rustix::fs::unlinkat(&parent.fd, name, rustix::fs::AtFlags::REMOVEDIR)?)
    }

    /// Whether we made this directory.
    pub(crate) fn is_ours(&self, dir: &str) -> bool {
        let mut value = [0u8; 8];
        self.group(dir).is_ok_and(|group| rustix::fs::fgetxattr(&group.fd, MADE_BY_US, &mut value[..]).is_ok())
    }
}

/// A group's directory in one hierarchy.
#[derive(Debug)]
pub(crate) struct Group {
    fd: OwnedFd,
    path: PathBuf,
}

impl Group {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The same directory behind a descriptor of its own.
    pub(crate) fn again(&self) -> io::Result<Group> {
        Ok(Group { fd: beneath(self.fd.as_fd(), ".", OFlags::RDONLY | OFlags::DIRECTORY)?, path: self.path.clone() })
    }

    fn child(&self, name: &str) -> io::Result<Group> {
        let fd = beneath(self.fd.as_fd(), name, OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok(Group { fd, path: self.path.join(name) })
    }

    /// Reads a file; `InvalidData` if it is larger than 4 MiB or not text.
    pub(crate) fn read(&self, file: &str) -> io::Result<String> {
        use io::Read as _;
        let fd = beneath(self.fd.as_fd(), file, OFlags::RDONLY)?;
        let mut text = String::new();
        std::fs::File::from(fd).take(MAX_FILE + 1).read_to_string(&mut text)?;
        if text.len() as u64 > MAX_FILE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "file is larger than 4 MiB"));
        }
        Ok(text)
    }

    /// Writes a value in one write(2), as the kernel's parsers want it.
    pub(crate) fn write(&self, file: &str, value: &str) -> io::Result<()> {
        let fd = beneath(self.fd.as_fd(), file, OFlags::WRONLY | OFlags::TRUNC)?;
        loop {
            match rustix::io::write(&fd, value.as_bytes()) {
                Err(Errno::INTR) => {}
                Ok(written) if written < value.len() => return Err(io::Error::from(io::ErrorKind::WriteZero)),
                result => return Ok(result.map(drop)?),
            }
        }
    }

    pub(crate) fn open_file(&self, file: &str, flags: OFlags) -> io::Result<OwnedFd> {
        beneath(self.fd.as_fd(), file, flags)
    }

    pub(crate) fn has(&self, file: &str) -> bool {
        rustix::fs::accessat(&self.fd, file, rustix::fs::Access::EXISTS, rustix::fs::AtFlags::empty()).is_ok()
    }

    /// Names of the files and directories in it.
    pub(crate) fn entries(&self) -> io::Result<Vec<(String, bool)>> {
        let mut found = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                found.push((name, entry.file_type() == rustix::fs::FileType::Directory));
            }
        }
        Ok(found)
    }

    /// All groups below this one, parents first, and this one at the front. Groups that vanish meanwhile are left out.
    pub(crate) fn tree(self) -> Vec<Group> {
        let mut all = vec![self];
        let mut next = 0;
        while next < all.len() {
            let names = all[next].entries().unwrap_or_default();
            let children: Vec<Group> =
                names.into_iter().filter(|(_, dir)| *dir).filter_map(|(name, _)| all[next].child(&name).ok()).collect();
            all.extend(children);
            next += 1;
        }
        all
    }

    /// Processes of this very group (`cgroup.procs`), a zombie's not among them.
    pub(crate) fn own_pids(&self) -> io::Result<Vec<u32>> {
        let text = self.read("cgroup.procs")?;
        // 0 stands for a process that this PID namespace does not see.
        Ok(text.lines().filter_map(|line| line.trim().parse().ok()).filter(|pid| *pid != 0).collect())
    }
}

fn beneath(dir: BorrowedFd<'_>, name: &str, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve =
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    Ok(rustix::fs::openat2(dir, name, flags | OFlags::CLOEXEC, Mode::empty(), resolve)?)
}

/// Whether a group or its file is not there (any more): files of a removed group give ENODEV.
pub(crate) fn is_gone(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::NotFound || errno(e) == Some(Errno::NODEV)
}

pub(crate) fn errno(e: &io::Error) -> Option<Errno> {
    Errno::from_io_error(e)
}

/// The error of an operation on a group, told as `what: reason`; a missing one is `NotFound`.
pub(crate) fn failed(what: impl std::fmt::Display, e: io::Error) -> Error {
    if is_gone(&e) {
        return Error::new(ErrorKind::NotFound, format!("{what}: {e}"));
    }
    Error::from(e).context(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_the_tree_is_reached() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("root/a/b")).unwrap();
        std::fs::write(dir.path().join("secret"), "x").unwrap();
        std::fs::write(dir.path().join("root/a/file"), "12345\n").unwrap();
        std::os::unix::fs::symlink("../secret", dir.path().join("root/link")).unwrap();
        std::os::unix::fs::symlink("a", dir.path().join("root/alias")).unwrap();
        let tree = Tree::open(&dir.path().join("root")).unwrap();
        assert!(tree.group("../").is_err());
        assert!(tree.group("a/../../").is_err());
        assert!(tree.group("alias").is_err(), "a link was followed");
        assert!(tree.group("").unwrap().read("link").is_err(), "a link was followed");
        let group = tree.group("a").unwrap();
        assert_eq!(group.read("file").unwrap(), "12345\n");
        group.write("file", "9").unwrap();
        assert_eq!(group.read("file").unwrap(), "9");
        assert!(group.write("missing", "9").is_err(), "a file was made");
        assert_eq!(group.tree().len(), 2);
    }
}
