//! Copies into a directory: each name is made in a directory that was opened without following a symbolic link, so that what is
//! copied cannot lead what follows somewhere else (CVE-2018-15664, CVE-2019-1002101).
use super::Count;
use super::ids::Ids;
use super::place::words;
use super::walk::{Entry, Kind, Sink, open_again};
use anyhow::{Context, Result, bail};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, openat, openat2, statat,
};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

/// To whom copies belong.
pub enum Owner {
    /// To whoever copies.
    Caller,
    /// To the container's root.
    Root(Ids),
    /// To the container's user of the same number.
    Mapped(Ids),
    /// To the node's user of the number that it had inside.
    Inside(Ids),
}

/// A directory that copies are made in.
pub struct Writer {
    base: OwnedFd,
    owner: Owner,
    what: String,
    count: Count,
    /// Their times are set last: what is made in them changes them. Their modes too: one may forbid writing.
    directories: Vec<(PathBuf, u32, i64)>,
}

impl Writer {
    /// In this directory; or this file itself, for an entry without a path.
    pub fn new(base: OwnedFd, owner: Owner, what: String) -> Self {
        Self { base, owner, what, count: Count::default(), directories: Vec::new() }
    }

    /// Sets what is to be set last.
    pub fn finish(self) -> Result<Count> {
        for (path, mode, modified) in self.directories.iter().rev() {
            let failed = |e| self.failed(path, e);
            let opened = self.open_directory(path).map_err(failed)?;
            rustix::fs::fchmod(&opened, Mode::from_raw_mode(*mode)).map_err(failed)?;
            rustix::fs::futimens(&opened, &times(*modified)).map_err(failed)?;
        }
        Ok(self.count)
    }

    fn failed(&self, path: &Path, e: Errno) -> anyhow::Error {
        let why = match e {
            Errno::LOOP | Errno::NOTDIR => "a symbolic link or a file is in the way of a directory".to_owned(),
            e => words(e),
        };
        anyhow::anyhow!("{}: {}: {why}", self.what, path.display())
    }

    /// A directory below the base, for changing it.
    fn open_directory(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.base, path, flags, Mode::empty(), resolve)
    }

    fn own(&self, entry: &Entry) -> Option<(u32, u32)> {
        match &self.owner {
            Owner::Caller => None,
            Owner::Root(ids) => Some(ids.outside(0, 0)),
            Owner::Mapped(ids) => Some(ids.outside(entry.uid, entry.gid)),
            Owner::Inside(ids) => Some(ids.inside(entry.uid, entry.gid)),
        }
    }

    fn own_by_name(&self, parent: &OwnedFd, name: &OsStr, entry: &Entry) -> Result<(), Errno> {
        let Some((uid, gid)) = self.own(entry) else { return Ok(()) };
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        rustix::fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
    }

    fn directory(&mut self, parent: &OwnedFd, name: &OsStr, entry: &Entry) -> Result<()> {
        let failed = |e| self.failed(&entry.path, e);
        match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
            Ok(()) => {
                self.own_by_name(parent, name, entry).map_err(failed)?;
                self.directories.push((entry.path.clone(), entry.mode, entry.modified));
                Ok(())
            }
            // One that is there keeps what it is.
            Err(Errno::EXIST) => {
                match openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY, Mode::empty()) {
                    Ok(_) => Ok(()),
                    Err(e) => Err(failed(e)),
                }
            }
            Err(e) => Err(failed(e)),
        }
    }

    fn file(&mut self, parent: &OwnedFd, name: &OsStr, entry: &Entry, data: &mut dyn Read) -> Result<()> {
        let failed = |e| self.failed(&entry.path, e);
        let create = || {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(parent, name, flags, Mode::from_raw_mode(0o600)).map(File::from)
        };
        let file = match create() {
            Err(Errno::EXIST) => self.over(parent, name, entry)?.map_or_else(create, Ok),
            other => other,
        };
        self.fill(file.map_err(failed)?, entry, data)
    }

    /// What is there is written anew if it is a file; a file that runs, and anything else but a directory, is replaced.
    fn over(&self, parent: &OwnedFd, name: &OsStr, entry: &Entry) -> Result<Option<File>> {
        let failed = |e| self.failed(&entry.path, e);
        let there = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        match FileType::from_raw_mode(there.st_mode) {
            FileType::Directory => bail!("{}: {}: is a directory", self.what, entry.path.display()),
            FileType::RegularFile => {
                let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
                match openat(parent, name, flags, Mode::empty()) {
                    Ok(file) => return Ok(Some(file.into())),
                    Err(Errno::TXTBSY | Errno::LOOP) => {}
                    Err(e) => return Err(failed(e)),
                }
            }
            _ => {}
        }
        rustix::fs::unlinkat(parent, name, AtFlags::empty()).map_err(failed)?;
        Ok(None)
    }

    fn fill(&mut self, mut file: File, entry: &Entry, data: &mut dyn Read) -> Result<()> {
        let copied = std::io::copy(data, &mut file);
        let copied = copied.with_context(|| format!("{}: {}", self.what, entry.path.display()))?;
        let failed = |e| self.failed(&entry.path, e);
        if let Some((uid, gid)) = self.own(entry) {
            rustix::fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).map_err(failed)?;
        }
        // After the owner, whose change takes set-user-ID away.
        rustix::fs::fchmod(&file, Mode::from_raw_mode(entry.mode)).map_err(failed)?;
        rustix::fs::futimens(&file, &times(entry.modified)).map_err(failed)?;
        self.count.files += 1;
        self.count.bytes += copied;
        Ok(())
    }

    fn replace(&mut self, parent: &OwnedFd, name: &OsStr, entry: &Entry) -> Result<()> {
        let make = || match &entry.kind {
            Kind::Link(target) => rustix::fs::symlinkat(target, parent, name),
            _ => rustix::fs::mknodat(parent, name, FileType::Fifo, Mode::from_raw_mode(entry.mode), 0),
        };
        let failed = |e| self.failed(&entry.path, e);
        match make() {
            Err(Errno::EXIST) => {
                rustix::fs::unlinkat(parent, name, AtFlags::empty()).map_err(failed)?;
                make().map_err(failed)?;
            }
            other => other.map_err(failed)?,
        }
        self.own_by_name(parent, name, entry).map_err(failed)?;
        self.count.files += 1;
        Ok(())
    }
}

impl Sink for Writer {
    fn put(&mut self, entry: &Entry, data: &mut dyn Read) -> Result<()> {
        let path = entry.path.strip_prefix(".").unwrap_or(&entry.path).to_owned();
        if path.components().any(|c| !matches!(c, Component::Normal(_))) {
            bail!("{}: the path {:?} leads out of the destination", self.what, entry.path);
        }
        let entry = &Entry { path, ..entry.clone() };
        let Some(name) = entry.path.file_name() else {
            // The target itself: a directory is there, and a file is written where it is.
            return match entry.kind {
                Kind::Directory => Ok(()),
                Kind::File => {
                    let file = open_again(&self.base, true).map_err(|e| self.failed(Path::new("."), e))?;
                    self.fill(file, entry, data)
                }
                _ => bail!("{}: is there already, and is not replaced by a link", self.what),
            };
        };
        let parent = entry.path.parent().unwrap_or(Path::new(""));
        let opened = self.open_directory(parent).map_err(|e| self.failed(parent, e))?;
        match entry.kind {
            Kind::Directory => self.directory(&opened, name, entry),
            Kind::File => self.file(&opened, name, entry, data),
            Kind::Link(_) | Kind::Fifo => self.replace(&opened, name, entry),
        }
    }
}

fn times(modified: i64) -> Timestamps {
    let at = Timespec { tv_sec: modified, tv_nsec: 0 };
    Timestamps { last_access: at, last_modification: at }
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
