//! Goes through what is to be copied, by descriptors: a name is opened in the directory that was opened before it and followed
//! nowhere, so that nobody can turn the way round meanwhile.
use super::place::{Source, words};
use anyhow::{Result, bail};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Stat, openat, readlinkat, statat};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Deepest directory: PATH_MAX has no room for more.
const MAX_DEPTH: usize = 2048;

/// Something to copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative; empty is the target itself.
    pub path: PathBuf,
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Unix seconds.
    pub modified: i64,
    /// Bytes of a file.
    pub size: u64,
}

/// What it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Directory,
    File,
    Link(PathBuf),
    Fifo,
}

/// Where copies go.
pub trait Sink {
    /// Takes one. `data` is a file's.
    fn put(&mut self, entry: &Entry, data: &mut dyn Read) -> Result<()>;
}

/// Copies all of a source, under the name `top`.
pub fn walk(source: &Source, top: &OsStr, sink: &mut dyn Sink) -> Result<()> {
    let at = Walk { what: &source.what };
    at.item(&source.item, Path::new(top), 0, sink)
}

struct Walk<'a> {
    what: &'a str,
}

impl Walk<'_> {
    fn failed(&self, path: &Path, e: Errno) -> anyhow::Error {
        anyhow::anyhow!("{}: {}: {}", self.what, path.display(), words(e))
    }

    fn item(&self, item: &OwnedFd, path: &Path, depth: usize, sink: &mut dyn Sink) -> Result<()> {
        let failed = |e| self.failed(path, e);
        let stat = statat(item, c"", AtFlags::EMPTY_PATH).map_err(failed)?;
        let entry = |kind| entry(&stat, path, kind);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                if depth == MAX_DEPTH {
                    bail!("{}: {}: is deeper than {MAX_DEPTH} directories", self.what, path.display());
                }
                sink.put(&entry(Kind::Directory), &mut std::io::empty())?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let open = openat(item, c".", flags, Mode::empty()).map_err(failed)?;
                for name in names(&open).map_err(failed)? {
                    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    match openat(&open, &name, flags, Mode::empty()) {
                        Ok(child) => self.item(&child, &path.join(&name), depth + 1, sink)?,
                        // Removed since it was listed.
                        Err(Errno::NOENT) => {}
                        Err(e) => return Err(self.failed(&path.join(&name), e)),
                    }
                }
                Ok(())
            }
            FileType::RegularFile => {
                let mut file = open_again(item, false).map_err(failed)?;
                sink.put(&entry(Kind::File), &mut file)
            }
            FileType::Symlink => {
                let target = readlinkat(item, c"", Vec::new()).map_err(failed)?;
                let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                sink.put(&entry(Kind::Link(target)), &mut std::io::empty())
            }
            FileType::Fifo => sink.put(&entry(Kind::Fifo), &mut std::io::empty()),
            kind => {
                // Sockets are of a process, and devices of this node: neither means anything elsewhere.
                eprintln!("berth: warning: {}: {} is left out: {}", self.what, path.display(), word(kind));
                Ok(())
            }
        }
    }
}

fn word(kind: FileType) -> &'static str {
    match kind {
        FileType::Socket => "a socket",
        FileType::BlockDevice | FileType::CharacterDevice => "a device",
        _ => "of no kind that is known",
    }
}

fn entry(stat: &Stat, path: &Path, kind: Kind) -> Entry {
    Entry {
        path: path.to_owned(),
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        modified: stat.st_mtime,
        size: u64::try_from(stat.st_size).unwrap_or(0),
    }
}

/// Opens what a descriptor names, for reading, or for writing from its beginning; the link in /proc leads to it and to nothing
/// else (proc_pid_fd(5)).
pub fn open_again(item: &impl AsFd, write: bool) -> Result<File, Errno> {
    let flags = if write { OFlags::WRONLY | OFlags::TRUNC } else { OFlags::RDONLY | OFlags::NONBLOCK };
    let path = format!("/proc/self/fd/{}", item.as_fd().as_raw_fd());
    rustix::fs::open(path, flags | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty()).map(File::from)
}

fn names(directory: &OwnedFd) -> Result<Vec<OsString>, Errno> {
    let mut buffer = [MaybeUninit::uninit(); 16 << 10];
    let mut listing = RawDir::new(directory, &mut buffer);
    let mut names = Vec::new();
    while let Some(found) = listing.next() {
        let name = found?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    names.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    Ok(names)
}
