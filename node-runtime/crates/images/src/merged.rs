//! The tree that a stack of layers shows, read without mounting it.
//!
//! Owns: the rules of overlayfs for reading (kernel `overlayfs.rst`): the topmost entry counts, directories are merged, whiteouts
//! and opaque directories hide what is below. Must not: leave a layer, write, or hold more than one way down.
use crate::refused;
use crate::unpack::{io, is_opaque, is_whiteout};
use berth_model::{Result, ResultExt};
use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::collections::{BTreeSet, VecDeque};
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

/// As many links as the kernel follows (`MAXSYMLINKS`, linux/namei.h).
const MAX_LINKS: usize = 40;
/// Most components looked at for one path, those of links included. Trees of layers are at most 256 deep.
const MAX_STEPS: usize = 1024;

/// A directory as the stack shows it: one of each layer that has a part in it, topmost first. Never empty.
pub struct Directory(Vec<OwnedFd>);

/// What a name in a directory stands for.
pub enum Entry {
    /// A directory.
    Directory(Directory),
    /// Anything else: what it is, and the layer's directory that has it, by its place in [`Directory`].
    Other(Box<Stat>, usize),
}

/// What a path leads to.
pub enum Found {
    /// A directory.
    Directory(Directory),
    /// Anything else.
    File(Box<Leaf>),
    /// Nothing.
    Missing,
}

/// What is no directory: where links have led to, and the layer's directory that has it.
pub struct Leaf {
    directory: OwnedFd,
    path: Vec<CString>,
    stat: Stat,
}

impl Leaf {
    /// Where it is in the image, once all links were followed.
    pub fn path(&self) -> PathBuf {
        let names = self.path.iter().map(|name| OsStr::from_bytes(name.to_bytes()));
        Path::new("/").join(names.collect::<PathBuf>())
    }

    /// Opens it for reading. `None` for what is no regular file.
    pub fn open(&self) -> Result<Option<(File, u64)>> {
        let Some(name) = self.path.last().filter(|_| FileType::from_raw_mode(self.stat.st_mode).is_file()) else {
            return Ok(None);
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(&self.directory, name, flags, Mode::empty()).map_err(io)?;
        let length = u64::try_from(self.stat.st_size).unwrap_or(u64::MAX);
        Ok(Some((File::from(file), length)))
    }
}

impl Directory {
    /// The root of a stack. `layers` are their directories, topmost first.
    pub fn root(layers: &[PathBuf]) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |path: &PathBuf| fs::open(path, flags, Mode::empty()).map_err(io).context(|| path.display());
        let all = layers.iter().map(open).collect::<Result<Vec<_>>>()?;
        if all.is_empty() { Err(refused("image", "has no layer")) } else { Ok(Self(all)) }
    }

    /// The topmost directory: its attributes are those that are shown.
    pub fn top(&self) -> BorrowedFd<'_> {
        self.0[0].as_fd()
    }

    /// The layer's directory that an [`Entry::Other`] is in.
    pub fn layer(&self, place: usize) -> BorrowedFd<'_> {
        self.0[place].as_fd()
    }

    /// What a name stands for. Links are not followed.
    pub fn entry(&self, name: &CStr) -> Result<Option<Entry>> {
        let mut merged = Vec::new();
        for (place, layer) in self.0.iter().enumerate() {
            let stat = match fs::statat(layer, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(e) => return Err(io(e)),
            };
            if is_whiteout(&stat) {
                break;
            }
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                if merged.is_empty() {
                    return Ok(Some(Entry::Other(Box::new(stat), place)));
                }
                break;
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let directory = fs::openat(layer, name, flags, Mode::empty()).map_err(io)?;
            let opaque = is_opaque(directory.as_fd())?;
            merged.push(directory);
            if opaque {
                break;
            }
        }
        Ok((!merged.is_empty()).then_some(Entry::Directory(Self(merged))))
    }

    /// All names that are shown, sorted.
    pub fn names(&self) -> Result<BTreeSet<CString>> {
        let (mut names, mut hidden) = (BTreeSet::new(), BTreeSet::new());
        for layer in &self.0 {
            for entry in Dir::read_from(layer).map_err(io)? {
                let entry = entry.map_err(io)?;
                let name = entry.file_name();
                if matches!(name.to_bytes(), b"." | b"..") || names.contains(name) || hidden.contains(name) {
                    continue;
                }
                // Only a character device can be a whiteout; some file systems do not tell the type here.
                let suspect = matches!(entry.file_type(), FileType::CharacterDevice | FileType::Unknown);
                let whiteout = suspect && is_whiteout(&fs::statat(layer, name, AtFlags::SYMLINK_NOFOLLOW).map_err(io)?);
                if whiteout {
                    hidden.insert(name.to_owned())
                } else {
                    names.insert(name.to_owned())
                };
            }
        }
        Ok(names)
    }
}

/// Follows a path, links too, with the stack's root as the root: `..` and absolute links stay inside. Errors:
/// `FailedPrecondition` for a path that leads through too many links or directories.
pub fn find(layers: &[PathBuf], path: &Path) -> Result<Found> {
    let refuse = |problem: &str| Err(refused(format!("path {} in the image", path.display()), problem));
    let mut left: VecDeque<CString> = components(path)?;
    let (mut done, mut links, mut steps) = (Vec::<CString>::new(), 0, 0);
    let mut here = Directory::root(layers)?;
    while let Some(name) = left.pop_front() {
        steps += 1;
        if steps > MAX_STEPS {
            return refuse("leads through too many directories");
        }
        if name.to_bytes() == b".." {
            // Only ways down are held, so the way up is a new way down.
            done.pop();
            left = std::mem::take(&mut done).into_iter().chain(left).collect();
            here = Directory::root(layers)?;
            continue;
        }
        match here.entry(&name)? {
            None => return Ok(Found::Missing),
            Some(Entry::Directory(next)) => {
                here = next;
                done.push(name);
            }
            Some(Entry::Other(stat, place)) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
                links += 1;
                if links > MAX_LINKS {
                    return refuse("leads through too many symbolic links");
                }
                let target = fs::readlinkat(here.layer(place), &name, Vec::new()).map_err(io)?;
                let target = PathBuf::from(std::ffi::OsString::from_vec(target.into_bytes()));
                if target.is_absolute() {
                    done.clear();
                }
                // From the root again: the link may lead upwards.
                left = std::mem::take(&mut done).into_iter().chain(components(&target)?).chain(left).collect();
                here = Directory::root(layers)?;
            }
            Some(Entry::Other(stat, place)) if left.is_empty() => {
                let directory = here.layer(place).try_clone_to_owned()?;
                done.push(name);
                return Ok(Found::File(Box::new(Leaf { directory, path: done, stat: *stat })));
            }
            Some(Entry::Other(..)) => return Ok(Found::Missing),
        }
    }
    Ok(Found::Directory(here))
}

fn components(path: &Path) -> Result<VecDeque<CString>> {
    let names = path.components().filter(|c| matches!(c, Component::Normal(_) | Component::ParentDir));
    let name = |c: Component<'_>| {
        CString::new(c.as_os_str().as_bytes()).map_err(|_| refused("path in the image", "contains a zero byte"))
    };
    names.map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unpack::{make_opaque, make_whiteout};
    use std::os::unix::fs::symlink;

    struct Stack {
        _dir: tempfile::TempDir,
        layers: Vec<PathBuf>,
    }

    /// Three layers, lowest last, as [`find`] takes them.
    fn stack() -> Stack {
        let dir = tempfile::tempdir().unwrap();
        let layers: Vec<PathBuf> = ["top", "middle", "low"].map(|name| dir.path().join(name)).into();
        for layer in &layers {
            std::fs::create_dir_all(layer.join("data/sub")).unwrap();
        }
        let [top, middle, low] = &layers[..] else { unreachable!() };
        std::fs::write(low.join("data/old"), "low").unwrap();
        std::fs::write(low.join("data/both"), "low").unwrap();
        std::fs::write(low.join("data/sub/deep"), "low").unwrap();
        std::fs::write(middle.join("data/both"), "middle").unwrap();
        let hide = |layer: &PathBuf, name: &[u8]| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let fd = fs::open(layer.join("data"), flags, Mode::empty()).unwrap();
            make_whiteout(fd.as_fd(), name).unwrap();
        };
        hide(middle, b"old");
        let sub = fs::open(top.join("data/sub"), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        make_opaque(sub.as_fd()).unwrap();
        std::fs::write(top.join("data/sub/new"), "top").unwrap();
        symlink("/data/sub", top.join("abs")).unwrap();
        symlink("../../../../data/./both", top.join("data/up")).unwrap();
        symlink("nowhere", top.join("dangling")).unwrap();
        symlink("loop", top.join("loop")).unwrap();
        Stack { _dir: dir, layers }
    }

    fn shown(found: Found) -> String {
        match found {
            Found::Missing => "missing".into(),
            Found::File(leaf) => format!("file {}", leaf.path().display()),
            Found::Directory(d) => d.names().unwrap().iter().map(|n| n.to_string_lossy()).collect::<Vec<_>>().join(" "),
        }
    }

    #[test]
    fn a_stack_shows_what_overlayfs_would() {
        let stack = stack();
        for (path, wanted) in [
            ("", "abs dangling data loop"),
            ("data", "both sub up"),
            ("/data/sub", "new"),
            ("data/sub/deep", "missing"),
            ("data/old", "missing"),
            ("data/both", "file /data/both"),
            ("data/both/x", "missing"),
            ("abs", "new"),
            ("abs/../both", "file /data/both"),
            ("data/up", "file /data/both"),
            ("dangling", "missing"),
            ("../../data/sub/..", "both sub up"),
        ] {
            assert_eq!(shown(find(&stack.layers, Path::new(path)).unwrap()), wanted, "{path:?}");
        }
    }

    #[test]
    fn the_topmost_file_is_read() {
        let stack = stack();
        let Found::File(leaf) = find(&stack.layers, Path::new("/data/up")).unwrap() else { panic!("no file") };
        let (file, length) = leaf.open().unwrap().unwrap();
        assert_eq!((std::io::read_to_string(file).unwrap().as_str(), length), ("middle", 6));
    }

    #[test]
    fn endless_ways_end() {
        let stack = stack();
        let error = |path: &str| find(&stack.layers, Path::new(path)).err().unwrap();
        assert!(error("loop").message().contains("symbolic links"));
        assert!(error(&"data/../".repeat(2000)).message().contains("too many directories"));
    }
}
