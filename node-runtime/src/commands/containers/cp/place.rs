//! An end of a copy that is a path: what is there, and what a copy to it becomes. Paths are walked below a root, where neither
//! `..` nor a symbolic link leads out.
use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, openat2, statat};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// How often a walk is tried again that a rename ran against.
const TRIES: u32 = 16;

/// A root directory.
pub struct Root(OwnedFd);

impl Root {
    /// Opens one; its path is the node's own.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self(rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC | OFlags::DIRECTORY, Mode::empty())?))
    }

    /// What a path leads to, as a descriptor that only names it.
    fn at(&self, path: &Path, follow: bool) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::CLOEXEC | if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let mut left = TRIES;
        loop {
            match openat2(&self.0, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN) if left > 0 => left -= 1,
                other => return other,
            }
        }
    }
}

/// A path below a root.
pub struct Place {
    pub root: Root,
    pub path: PathBuf,
    /// As the user wrote it.
    pub what: String,
}

/// What is to be copied.
pub struct Source {
    /// It, by a descriptor that only names it; a symbolic link itself.
    pub item: OwnedFd,
    /// What a copy of it is called.
    pub name: OsString,
    /// It is a directory.
    pub is_directory: bool,
    /// Only what is in it is meant.
    pub contents: bool,
    /// As the user wrote it.
    pub what: String,
}

impl Place {
    /// A path of the node.
    pub fn local(path: &Path) -> Result<Self> {
        let absolute = std::path::absolute(path).with_context(|| path.display().to_string())?;
        // A trailing `/.` says something here, and must not be lost.
        let absolute = if contents_of(path) { absolute.join(".") } else { absolute };
        Ok(Self { root: Root::open(Path::new("/"))?, path: absolute, what: path.display().to_string() })
    }

    /// What is there to be copied.
    pub fn source(&self, follow: bool) -> Result<Source> {
        let (contents, path) = (contents_of(&self.path), clean(&self.path));
        let item = self.root.at(&path, follow || contents).map_err(|e| self.failed(e))?;
        let is_directory = kind(&item)?.is_dir();
        if contents && !is_directory {
            bail!("{}: is no directory", self.what);
        }
        let name = path.file_name().map_or_else(|| OsString::from("root"), OsStr::to_owned);
        Ok(Source { item, name, is_directory, contents, what: self.what.clone() })
    }

    /// The directory that is there.
    pub fn directory(&self) -> Result<OwnedFd> {
        let found = self.root.at(&clean(&self.path), true).map_err(|e| self.failed(e))?;
        if !kind(&found)?.is_dir() {
            bail!("{}: is no directory, and a tar stream goes into one", self.what);
        }
        Ok(found)
    }

    /// Where a copy goes: something that exists, and the copy's name in it; without a name it is that itself.
    pub fn target(&self, source: &Source) -> Result<(OwnedFd, OsString)> {
        let path = clean(&self.path);
        let wants_directory = self.path.as_os_str().as_bytes().ends_with(b"/") || contents_of(&self.path);
        let found = match self.root.at(&path, true) {
            Ok(found) => found,
            Err(Errno::NOENT) => {
                if wants_directory && !source.is_directory {
                    bail!("{}: there is no such directory", self.what);
                }
                let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
                let name = path.file_name().with_context(|| format!("{}: has no name", self.what))?;
                let at = self.root.at(parent, true);
                let at =
                    at.map_err(|e| anyhow::anyhow!("{}: the directory that it is to be in: {}", self.what, words(e)))?;
                return Ok((at, name.to_owned()));
            }
            Err(e) => return Err(self.failed(e)),
        };
        match (kind(&found)?.is_dir(), source.is_directory) {
            (true, true) if source.contents => Ok((found, OsString::new())),
            (true, _) => Ok((found, source.name.clone())),
            (false, true) => bail!("{}: is a file, and a directory is not copied to one", self.what),
            (false, false) if wants_directory => bail!("{}: is no directory", self.what),
            // Written to where a symbolic link leads, as docker does.
            (false, false) => Ok((found, OsString::new())),
        }
    }

    fn failed(&self, e: Errno) -> anyhow::Error {
        anyhow::anyhow!("{}: {}", self.what, words(e))
    }
}

/// The kind of what a descriptor names.
pub fn kind(item: &impl AsFd) -> Result<FileType> {
    Ok(FileType::from_raw_mode(statat(item, c"", AtFlags::EMPTY_PATH)?.st_mode))
}

/// Whether what is in it is meant: docker's trailing `/.`.
fn contents_of(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    bytes.ends_with(b"/.") || bytes == b"."
}

/// Without a root in front, and without `.` and doubled slashes. `..` stays: the walk decides on it.
fn clean(path: &Path) -> PathBuf {
    let kept = path.components().filter(|c| matches!(c, Component::Normal(_) | Component::ParentDir));
    let cleaned: PathBuf = kept.collect();
    if cleaned.as_os_str().is_empty() { PathBuf::from(".") } else { cleaned }
}

/// An error without its number.
pub fn words(e: Errno) -> String {
    let text = std::io::Error::from(e).to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn place(root: &Path, path: &str) -> Place {
        Place { root: Root::open(root).unwrap(), path: path.into(), what: path.into() }
    }

    #[test]
    fn nothing_leads_out_of_a_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(dir.path().join("secret"), "outside").unwrap();
        fs::write(root.join("secret"), "inside").unwrap();
        std::os::unix::fs::symlink("../../../secret", root.join("etc/up")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret"), root.join("etc/abs")).unwrap();
        for path in ["../secret", "/../../secret", "etc/up"] {
            let item = place(&root, path).source(true).unwrap().item;
            let (found, wanted) = (rustix::fs::fstat(&item).unwrap(), rustix::fs::stat(root.join("secret")).unwrap());
            assert_eq!((found.st_dev, found.st_ino), (wanted.st_dev, wanted.st_ino), "{path}");
        }
        assert!(place(&root, "etc/abs").source(true).is_err());
        assert!(kind(&place(&root, "etc/abs").source(false).unwrap().item).unwrap().is_symlink());
    }

    #[test]
    fn targets_are_dockers() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("f"), "").unwrap();
        let source = |path: &str| place(dir.path(), path).source(false).unwrap();
        let name = |to: &str, from: &str| {
            place(dir.path(), to).target(&source(from)).map(|(_, name)| name.to_string_lossy().into_owned())
        };
        assert_eq!(name("new", "f").unwrap(), "new");
        assert_eq!(name("d", "f").unwrap(), "f");
        assert_eq!(name("f", "f").unwrap(), "", "the file itself is written");
        assert_eq!(name("d", "d").unwrap(), "d");
        assert_eq!(name("d", "d/.").unwrap(), "");
        assert_eq!(name("new/", "d").unwrap(), "new");
        for (to, from, part) in [
            ("new/", "f", "no such directory"),
            ("f", "d", "is a file"),
            ("f/", "f", "is no"),
            ("no/new", "f", "the directory that it is to be in: no such file"),
        ] {
            let error = name(to, from).unwrap_err().to_string();
            assert!(error.contains(part) || error.contains("not a directory"), "{to} {from}: {error}");
        }
        assert!(place(dir.path(), "f").directory().is_err() && place(dir.path(), "d").directory().is_ok());
    }
}
