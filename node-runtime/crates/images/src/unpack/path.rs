//! Paths of a layer, and the directory they are resolved in.
//!
//! Owns: that nothing of an archive leads out of the layer's directory. Every path is opened with `openat2(2)` and
//! RESOLVE_IN_ROOT, so links, absolute ones too, end inside. Must not: know archives or attributes.
use crate::refused;
use berth_model::{Error, Result, ResultExt};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

/// Longest path in bytes (PATH_MAX).
const MAX_PATH: usize = super::archive::MAX_PATH;
/// Longest component in bytes (NAME_MAX).
const MAX_NAME: usize = 255;
/// Most components of a path. Real trees have a few dozen.
const MAX_DEPTH: usize = 256;
/// Most links that one path may lead through while its directories are made (the kernel's own limit is 40).
const MAX_LINKS: u32 = 40;

/// A path of an archive without `.`, empty components and leading slashes. `..` is refused, so the text never leads
/// upwards; links may, and are resolved by the kernel.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerPath(Vec<u8>);

impl LayerPath {
    /// Cleans a path. Errors: `FailedPrecondition` naming it when it has `..`, a zero byte, or is too long or too deep.
    pub fn parse(written: &[u8]) -> Result<Self> {
        let refuse = |problem: &str| Err(refused(format!("layer path {}", shown(written)), problem));
        if written.len() > MAX_PATH {
            return refuse("is longer than 4096 bytes");
        }
        let mut clean = Vec::with_capacity(written.len());
        let mut depth = 0;
        for component in written.split(|b| *b == b'/') {
            match component {
                b"" | b"." => continue,
                b".." => return refuse("leads upwards with .."),
                c if c.len() > MAX_NAME => return refuse("has a name longer than 255 bytes"),
                c if c.contains(&0) => return refuse("contains a zero byte"),
                _ => {}
            }
            depth += 1;
            if !clean.is_empty() {
                clean.push(b'/');
            }
            clean.extend_from_slice(component);
        }
        if depth > MAX_DEPTH {
            return refuse("is deeper than 256 directories");
        }
        Ok(Self(clean))
    }

    /// Whether it is the layer's root itself.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Parent and last name. `None` for the root.
    pub fn split(&self) -> Option<(LayerPath, &[u8])> {
        if self.is_root() {
            return None;
        }
        match self.0.iter().rposition(|b| *b == b'/') {
            Some(slash) => Some((Self(self.0[..slash].to_vec()), &self.0[slash + 1..])),
            None => Some((Self(Vec::new()), &self.0)),
        }
    }

    /// The path as text for people, bounded.
    pub fn shown(&self) -> String {
        shown(&self.0)
    }
}

/// Bytes as text for people: quoted, control characters escaped, cut at 200 characters.
pub fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let cut: String = text.chars().take(200).collect();
    if cut.len() < text.len() { format!("{cut:?}...") } else { format!("{cut:?}") }
}

/// The root directory of a layer being unpacked.
pub struct Root {
    fd: OwnedFd,
    /// The directory used last: archives come directory by directory.
    last: Option<(LayerPath, Rc<OwnedFd>)>,
    /// Directories made because something below them was named; their attributes come from the layers below.
    implied: BTreeSet<LayerPath>,
}

impl Root {
    /// Opens an existing directory.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::open(path, flags, Mode::empty()).map_err(io).context(|| path.display())?;
        Ok(Self { fd, last: None, implied: [LayerPath(Vec::new())].into() })
    }

    /// The directory itself.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// A directory of the layer, made with its parents where missing. Errors: `FailedPrecondition` when something that is no
    /// directory is in the way.
    pub fn directory(&mut self, path: &LayerPath) -> Result<Rc<OwnedFd>> {
        if let Some((last, fd)) = &self.last
            && last == path
        {
            return Ok(fd.clone());
        }
        let fd = Rc::new(self.ensure(path, 0)?);
        self.last = Some((path.clone(), fd.clone()));
        Ok(fd)
    }

    /// Forgets the directory used last, because something was removed that it may lie below.
    pub fn forget(&mut self) {
        self.last = None;
    }

    /// Says that a directory has attributes of its own.
    pub fn explicit(&mut self, path: &LayerPath) {
        self.implied.remove(path);
    }

    /// The directories without attributes of their own, parents first.
    pub fn into_implied(self) -> Vec<LayerPath> {
        self.implied.into_iter().collect()
    }

    fn ensure(&mut self, path: &LayerPath, links: u32) -> Result<OwnedFd> {
        match open_below(self.fd.as_fd(), path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(fd) => return Ok(fd),
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(e) => return Err(io(e)).context(|| path.shown()),
        }
        let Some((parent, name)) = path.split() else { return Err(Error::internal("layer directory is gone")) };
        let parent_fd = self.ensure(&parent, links)?;
        match fs::mkdirat(&parent_fd, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => {
                self.implied.insert(path.clone());
                open_name(parent_fd.as_fd(), name).context(|| path.shown())
            }
            Err(Errno::EXIST) => self.replace(&parent_fd, &parent, name, path, links),
            Err(e) => Err(io(e)).context(|| path.shown()),
        }
    }

    /// Something that is no directory has the name of one that is needed: a dangling link leads to where the directory is
    /// made, a whiteout of this layer becomes an opaque directory, anything else is a contradiction.
    fn replace(
        &mut self,
        parent_fd: &OwnedFd,
        parent: &LayerPath,
        name: &[u8],
        path: &LayerPath,
        links: u32,
    ) -> Result<OwnedFd> {
        let stat = fs::statat(parent_fd, name, AtFlags::SYMLINK_NOFOLLOW).map_err(io)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink if links < MAX_LINKS => {
                let target = fs::readlinkat(parent_fd, name, Vec::new()).map_err(io)?;
                let target = link_target(parent, target.to_bytes()).map_err(|e| e.context(path.shown()))?;
                self.ensure(&target, links + 1)
            }
            FileType::Symlink => Err(refused(format!("layer path {}", path.shown()), "leads through too many links")),
            FileType::CharacterDevice if stat.st_rdev == 0 => {
                fs::unlinkat(parent_fd, name, AtFlags::empty()).map_err(io)?;
                fs::mkdirat(parent_fd, name, Mode::from_raw_mode(0o755)).map_err(io)?;
                self.implied.insert(path.clone());
                let fd = open_name(parent_fd.as_fd(), name)?;
                super::whiteout::make_opaque(fd.as_fd())?;
                Ok(fd)
            }
            _ => Err(refused(format!("layer path {}", path.shown()), "is used as a directory and is none")),
        }
    }
}

/// Where a dangling link leads, lexically and never above the root. The kernel decides again when the result is opened.
fn link_target(parent: &LayerPath, target: &[u8]) -> Result<LayerPath> {
    let mut parts: Vec<&[u8]> = Vec::new();
    if !target.starts_with(b"/") {
        parts.extend(parent.0.split(|b| *b == b'/').filter(|c| !c.is_empty()));
    }
    for component in target.split(|b| *b == b'/') {
        match component {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            other => parts.push(other),
        }
    }
    LayerPath::parse(&parts.join(&b'/'))
}

/// Opens below a root directory: links stay inside, magic links of procfs are refused.
pub fn open_below(root: BorrowedFd<'_>, path: &LayerPath, flags: OFlags) -> Result<OwnedFd, Errno> {
    let text: &[u8] = if path.is_root() { b"." } else { path.as_bytes() };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    loop {
        match fs::openat2(root, text, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // A rename elsewhere on the system makes the kernel unsure; it asks to try again (openat2(2)).
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Opens a directory by its name, never through a link.
pub fn open_name(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(parent, name, flags, Mode::empty()).map_err(io)
}

/// An errno as our error.
pub fn io(e: Errno) -> Error {
    std::io::Error::from(e).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(text: &str) -> LayerPath {
        LayerPath::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn paths_are_cleaned_or_refused() {
        for (written, clean) in
            [("./a//b/./c/", "a/b/c"), ("/etc/x", "etc/x"), ("./", ""), ("", ""), ("a..b/..c", "a..b/..c")]
        {
            assert_eq!(path(written).as_bytes(), clean.as_bytes());
        }
        let deep = "a/".repeat(257);
        let long = "a".repeat(256);
        for bad in ["..", "../a", "a/../b", "a/..", "a\0b", &deep, &long, &"ab/".repeat(1400)] {
            assert!(LayerPath::parse(bad.as_bytes()).is_err(), "{bad:?} was taken");
        }
        assert_eq!(path("a/b").split(), Some((path("a"), b"b".as_slice())));
        assert_eq!(path("a").split(), Some((path(""), b"a".as_slice())));
    }

    #[test]
    fn directories_are_made_inside_whatever_the_links_say() {
        let outside = tempfile::tempdir().unwrap();
        let layer = outside.path().join("layer");
        std::fs::create_dir(&layer).unwrap();
        let link = |target: &str, name: &str| std::os::unix::fs::symlink(target, layer.join(name)).unwrap();
        link("/abs/new", "a");
        link("../../../up", "b");
        link("loop2", "loop1");
        link("loop1", "loop2");
        std::fs::write(layer.join("file"), "").unwrap();
        let mut root = Root::open(&layer).unwrap();
        root.directory(&path("a/x")).unwrap();
        root.directory(&path("b/y")).unwrap();
        assert!(layer.join("abs/new/x").is_dir() && layer.join("up/y").is_dir());
        for bad in ["loop1/x", "file/x"] {
            assert!(root.directory(&path(bad)).is_err(), "{bad}");
        }
        let left: Vec<_> = std::fs::read_dir(outside.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["layer"]);
        let implied: Vec<_> = root.into_implied();
        assert!(implied.contains(&path("")) && implied.contains(&path("abs/new")), "{implied:?}");
    }

    proptest! {
        #[test]
        fn what_is_taken_has_no_way_up(bytes in proptest::collection::vec(prop_oneof![Just(b'.'), Just(b'/'), any::<u8>()], 0..60)) {
            if let Ok(path) = LayerPath::parse(&bytes) {
                prop_assert!(path.as_bytes().split(|b| *b == b'/').all(|c| c != b".." && c != b"."));
                prop_assert_eq!(LayerPath::parse(path.as_bytes()).unwrap(), path);
            }
        }
    }
}
