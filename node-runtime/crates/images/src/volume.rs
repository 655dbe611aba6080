//! Directories of a container's own for the paths that its image declares as `VOLUME`, filled with what the image has there.
//!
//! Owns: the copy, with owners, modes, times, links and what extended attributes images may have. Must not: follow a link out of the
//! image (CVE-2022-23648), or write anywhere but into the new directory.
use crate::merged::{self, Directory, Entry, Found};
use crate::refused;
use crate::unpack::{Attributes, io};
use berth_model::{Result, ResultExt};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat};
use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Makes `target`, and fills it with what `path` leads to in the image with these layers, topmost first: nothing, if the
/// image has nothing there. Errors: `FailedPrecondition` where the image has a file.
pub fn fill(layers: &[PathBuf], path: &Path, target: &Path) -> Result<()> {
    std::fs::create_dir(target).context(|| target.display())?;
    std::fs::set_permissions(target, PermissionsExt::from_mode(0o755)).context(|| target.display())?;
    let found = match merged::find(layers, path)? {
        Found::Directory(found) => found,
        Found::Missing => return Ok(()),
        Found::File(_) => return Err(refused(format!("image volume {}", path.display()), "is a file in the image")),
    };
    let root = fs::open(target, DIRECTORY, Mode::empty()).map_err(io).context(|| target.display())?;
    let mut copy = Copy { root: &root, linked: HashMap::new(), keep_owner: rustix::process::geteuid().is_root() };
    copy.directory(&found, root.as_fd(), Path::new("")).context(|| format!("copy of {}", path.display()))
}

struct Copy<'a> {
    root: &'a OwnedFd,
    /// Files with several names, by device and inode: where the copy is below the root.
    linked: HashMap<(u64, u64), PathBuf>,
    keep_owner: bool,
}

impl Copy<'_> {
    /// Copies a directory's content, then its attributes: entries would change its times. Layers are at most 256 deep, so
    /// this recurses no deeper.
    fn directory(&mut self, from: &Directory, to: BorrowedFd<'_>, at: &Path) -> Result<()> {
        for name in from.names()? {
            let here = at.join(OsStr::from_bytes(name.to_bytes()));
            match from.entry(&name)? {
                Some(Entry::Directory(next)) => {
                    fs::mkdirat(to, &name, Mode::RWXU).map_err(io).context(|| here.display())?;
                    let made =
                        fs::openat(to, &name, DIRECTORY, Mode::empty()).map_err(io).context(|| here.display())?;
                    self.directory(&next, made.as_fd(), &here)?;
                }
                Some(Entry::Other(stat, place)) => {
                    let source = (from.layer(place), &*stat);
                    self.other(source, to, &name, &here).context(|| here.display())?;
                }
                None => {}
            }
        }
        Attributes::read(from.top())?.apply(to, self.keep_owner)
    }

    fn other(&mut self, source: (BorrowedFd<'_>, &Stat), to: BorrowedFd<'_>, name: &CStr, at: &Path) -> Result<()> {
        let (from, stat) = source;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => return self.file(source, to, name, at),
            FileType::Symlink => {
                let target: CString = fs::readlinkat(from, name, Vec::new()).map_err(io)?;
                fs::symlinkat(&target, to, name).map_err(io)?;
            }
            FileType::Fifo => {
                fs::mknodat(to, name, FileType::Fifo, Mode::from_raw_mode(stat.st_mode & 0o7777), 0).map_err(io)?;
                fs::chmodat(to, name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty()).map_err(io)?;
            }
            // Unpacking makes nothing else.
            other => return Err(refused("file of an image", format!("is a {other:?}"))),
        }
        Attributes::of_stat(stat).apply_to_name(to, name.to_bytes(), self.keep_owner)
    }

    fn file(&mut self, source: (BorrowedFd<'_>, &Stat), to: BorrowedFd<'_>, name: &CStr, at: &Path) -> Result<()> {
        let (from, stat) = source;
        let identity = (stat.st_dev, stat.st_ino);
        if stat.st_nlink > 1
            && let Some(first) = self.linked.get(&identity)
            // Too many links, or a path too long: then it becomes a file of its own.
            && fs::linkat(self.root, first, to, name, AtFlags::empty()).is_ok()
        {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut input = File::from(fs::openat(from, name, flags, Mode::empty()).map_err(io)?);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mut output = File::from(fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR).map_err(io)?);
        // The kernel copies from file to file, and shares blocks where the file system can.
        std::io::copy(&mut input, &mut output)?;
        Attributes::read(input.as_fd())?.apply(output.as_fd(), self.keep_owner)?;
        if stat.st_nlink > 1 {
            self.linked.insert(identity, at.to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    #[test]
    fn what_the_image_has_is_copied_once_and_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let layers: Vec<PathBuf> = ["top", "low"].map(|name| dir.path().join(name)).into();
        for layer in &layers {
            std::fs::create_dir_all(layer.join("data/sub")).unwrap();
        }
        let low = layers[1].join("data");
        std::fs::write(low.join("file"), vec![7; 100_000]).unwrap();
        std::fs::write(low.join("changed"), "low").unwrap();
        std::fs::set_permissions(low.join("file"), PermissionsExt::from_mode(0o640)).unwrap();
        std::fs::hard_link(low.join("file"), low.join("sub/twin")).unwrap();
        symlink("/etc/passwd", low.join("link")).unwrap();
        std::fs::write(layers[0].join("data/changed"), "top").unwrap();
        std::fs::set_permissions(layers[0].join("data"), PermissionsExt::from_mode(0o1777)).unwrap();
        symlink("data", layers[0].join("alias")).unwrap();
        let target = dir.path().join("volume");
        fill(&layers, Path::new("/alias"), &target).unwrap();
        assert_eq!(target.metadata().unwrap().permissions().mode() & 0o7777, 0o1777);
        assert_eq!(std::fs::read(target.join("file")).unwrap(), vec![7; 100_000]);
        assert_eq!(std::fs::read_to_string(target.join("changed")).unwrap(), "top");
        assert_eq!(std::fs::read_link(target.join("link")).unwrap(), Path::new("/etc/passwd"));
        let (file, twin) = (target.join("file").metadata().unwrap(), target.join("sub/twin").metadata().unwrap());
        assert_eq!((file.ino(), file.nlink(), file.mode() & 0o7777), (twin.ino(), 2, 0o640));
        assert_eq!(file.mtime(), low.join("file").metadata().unwrap().mtime());
        assert_ne!(file.ino(), low.join("file").metadata().unwrap().ino(), "the image is not shared");
        fill(&layers, Path::new("/none"), &dir.path().join("empty")).unwrap();
        assert_eq!(std::fs::read_dir(dir.path().join("empty")).unwrap().count(), 0);
        let error = fill(&layers, Path::new("/data/file"), &dir.path().join("bad")).unwrap_err();
        assert!(error.message().contains("/data/file") && error.message().contains("is a file"), "{error}");
    }
}
