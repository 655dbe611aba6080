//! Opening container logs for the monitor: it writes to a descriptor and never sees a path.
use berth_model::{Error, Result, ResultExt};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Opens a log for appending, made with its directory if missing; a symbolic link in its place is refused.
pub fn open(path: &Path) -> Result<OwnedFd> {
    open_fresh(path).map(|(fd, _)| fd)
}

/// As [`open`]; also tells whether the file was made, so that an error later on can take it away again.
pub fn open_fresh(path: &Path) -> Result<(OwnedFd, bool)> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::invalid("log_path", "must name a file"));
    };
    std::fs::create_dir_all(parent).context(|| format!("log directory {}", parent.display()))?;
    let directory = rustix::fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(io)
        .context(|| format!("log directory {}", parent.display()))?;
    let made = try_open(&directory, Path::new(name), OFlags::CREATE | OFlags::EXCL);
    let opened = match made {
        Ok(fd) => Ok((fd, true)),
        Err(Errno::EXIST) => try_open(&directory, Path::new(name), OFlags::empty()).map(|fd| (fd, false)),
        Err(e) => Err(e),
    };
    opened.map_err(io).context(|| format!("log {}", path.display()))
}

fn try_open(directory: &OwnedFd, name: &Path, more: OFlags) -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CLOEXEC | OFlags::NOFOLLOW | more;
    let mode = if more.contains(OFlags::CREATE) { Mode::from_raw_mode(0o640) } else { Mode::empty() };
    rustix::fs::openat2(directory, name, flags, mode, ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH)
}

fn io(e: Errno) -> Error {
    Error::from(std::io::Error::from(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_in_place_of_the_log_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("pods/a/0.log");
        let (_, fresh) = open_fresh(&log).unwrap();
        assert!(fresh);
        assert!(!open_fresh(&log).unwrap().1, "it is there already");
        let target = dir.path().join("secret");
        std::fs::write(&target, "keep").unwrap();
        std::fs::remove_file(&log).unwrap();
        std::os::unix::fs::symlink(&target, &log).unwrap();
        assert!(open(&log).is_err());
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "keep");
    }
}
