//! Owner, mode, times and extended attributes of what is unpacked.
//!
//! Owns: which attributes come through. `security.capability` and `user.*` do; `*.overlay.*` is refused, because overlayfs
//! would obey it (a redirect leads anywhere); all others are dropped, since they mean something else on this machine.
//! Must not: follow links.
use super::archive::Member;
use super::path::{LayerPath, io, open_below};
use crate::refused;
use berth_model::{Result, ResultExt};
use rustix::fs::{self, AtFlags, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The attributes of a file or directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: (i64, u32),
    xattrs: Vec<(String, Vec<u8>)>,
}

impl Attributes {
    /// Those of a member. Errors: `FailedPrecondition` for an attribute that overlayfs would obey.
    pub fn of(member: &Member, path: &LayerPath) -> Result<Self> {
        let mut xattrs = Vec::new();
        for (name, value) in &member.xattrs {
            if name.starts_with("trusted.overlay.") || name.starts_with("user.overlay.") {
                let problem = format!("sets {name:?}, which overlayfs would obey");
                return Err(refused(format!("layer path {}", path.shown()), problem));
            }
            if passes(name) {
                xattrs.push((name.clone(), value.clone()));
            }
        }
        let Member { mode, uid, gid, mtime, .. } = *member;
        Ok(Self { mode, uid, gid, mtime, xattrs })
    }

    /// Those of a directory that nothing describes.
    pub fn implied_default() -> Self {
        Self { mode: 0o755, ..Self::default() }
    }

    /// Reads those of an open file or directory. `O_PATH` descriptors will not do.
    pub fn read(fd: BorrowedFd<'_>) -> Result<Self> {
        let mut attributes = Self::of_stat(&fs::fstat(fd).map_err(io)?);
        let mut xattrs = Vec::new();
        for name in xattr_names(fd)? {
            if !passes(&name) || name.starts_with("user.overlay.") {
                continue;
            }
            let mut value = vec![0; 64 << 10];
            let length = fs::fgetxattr(fd, name.as_str(), &mut value).map_err(io)?;
            value.truncate(length);
            xattrs.push((name, value));
        }
        attributes.xattrs = xattrs;
        Ok(attributes)
    }

    /// Those that stat(2) tells: all but the extended ones.
    pub fn of_stat(stat: &Stat) -> Self {
        let nanos = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
        Self {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: (stat.st_mtime, nanos),
            xattrs: Vec::new(),
        }
    }

    /// Applies them. Owner first: chown(2) clears set-uid bits and file capabilities. Times last.
    pub fn apply(&self, fd: BorrowedFd<'_>, keep_owner: bool) -> Result<()> {
        if keep_owner {
            fs::fchown(fd, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid))).map_err(io)?;
        }
        fs::fchmod(fd, Mode::from_raw_mode(self.mode)).map_err(io)?;
        for (name, value) in &self.xattrs {
            if !keep_owner && name.starts_with("security.") {
                continue;
            }
            match fs::fsetxattr(fd, name.as_str(), value, XattrFlags::empty()) {
                // The peers ignore user attributes where the file system has none; a lost capability is an error.
                Err(Errno::OPNOTSUPP) if name.starts_with("user.") => {}
                other => other.map_err(|e| io(e).context(format!("cannot set {name}")))?,
            }
        }
        fs::futimens(fd, &self.times()).map_err(io)
    }

    /// Applies owner and time to a name that cannot be opened: a link or a pipe.
    pub fn apply_to_name(&self, parent: BorrowedFd<'_>, name: &[u8], keep_owner: bool) -> Result<()> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        if keep_owner {
            let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
            fs::chownat(parent, name, Some(uid), Some(gid), flags).map_err(io)?;
        }
        fs::utimensat(parent, name, &self.times(), flags).map_err(io)
    }

    /// The permission bits.
    pub fn mode(&self) -> Mode {
        Mode::from_raw_mode(self.mode)
    }

    fn times(&self) -> Timestamps {
        let time = Timespec { tv_sec: self.mtime.0, tv_nsec: self.mtime.1.into() };
        Timestamps { last_access: time, last_modification: time }
    }
}

fn passes(name: &str) -> bool {
    name == "security.capability" || name.starts_with("user.")
}

fn xattr_names(fd: BorrowedFd<'_>) -> Result<Vec<String>> {
    let mut list = vec![0; 64 << 10];
    match fs::flistxattr(fd, &mut list) {
        Ok(length) => list.truncate(length),
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(e) => return Err(io(e)),
    }
    Ok(list.split(|b| *b == 0).filter(|n| !n.is_empty()).map(|n| String::from_utf8_lossy(n).into_owned()).collect())
}

/// Gives directories that an archive only implied the attributes that the layers below have for them: overlayfs shows
/// those of the topmost layer. `parents` are the roots of the layers below, topmost first.
pub fn inherit(root: BorrowedFd<'_>, implied: &[LayerPath], parents: &[OwnedFd], keep_owner: bool) -> Result<()> {
    let open = |root: BorrowedFd<'_>, path: &LayerPath| {
        open_below(root, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW)
    };
    // Deepest first, so that a restrictive mode does not shut us out below it when we are not root.
    for path in implied.iter().rev() {
        let own = match open(root, path) {
            Ok(own) => own,
            // Something else took its place later in the archive.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            Err(e) => return Err(io(e)).context(|| path.shown()),
        };
        let mut attributes = Attributes::implied_default();
        for parent in parents {
            match open(parent.as_fd(), path) {
                Ok(fd) => attributes = Attributes::read(fd.as_fd())?,
                Err(Errno::NOENT) => continue,
                // No directory there: nothing to take over, and what is further down is hidden.
                Err(Errno::NOTDIR | Errno::LOOP) => {}
                Err(e) => return Err(io(e)).context(|| path.shown()),
            }
            break;
        }
        attributes.apply(own.as_fd(), keep_owner).map_err(|e| e.context(path.shown()))?;
    }
    Ok(())
}
