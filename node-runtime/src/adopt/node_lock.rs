//! One operation a node, whatever roots of Berth there are on it: all of them would change the same kubelet.
//!
//! Owns: that lock, a file that root alone can open, since whoever can take it keeps the node from being taken over, given back and recovered.
//! It lies where all roots look, and goes with the lock. Must not: know journals.
use super::record::try_exclusive;
use anyhow::{Context, Result, bail};
use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Where it lies.
const DIRECTORY: &str = "/run";
/// How often it is opened anew where whoever had it has taken the file away.
const TRIES: u32 = 50;

/// Held until it is dropped.
pub(super) struct NodeLock {
    path: PathBuf,
    _file: File,
}

impl NodeLock {
    /// Takes it for the node whose mount namespace this process is in. Errors: somebody else has it; it cannot be made.
    pub(super) fn take() -> Result<Self> {
        // Nodes that are namespaces of one machine may share the directory.
        let namespace = std::fs::metadata("/proc/self/ns/mnt").context("own mount namespace")?.ino();
        Self::at(Path::new(DIRECTORY).join(format!("berth-adopt-{namespace}.lock")))
    }

    fn at(path: PathBuf) -> Result<Self> {
        let nofollow = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or_default();
        for _ in 0..TRIES {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(nofollow);
            let file = options.open(&path).with_context(|| format!("the node's lock {}", path.display()))?;
            if !try_exclusive(&file) {
                bail!("an operation of another root of Berth is under way on this node ({} is locked)", path.display());
            }
            if is_there(&file, &path)? {
                return Ok(Self { path, _file: file });
            }
        }
        bail!("the node's lock {} is taken and given back all the time", path.display())
    }
}

/// Whether the name still means the file that was opened: another one may be locked by somebody else.
fn is_there(file: &File, path: &Path) -> Result<bool> {
    let own = file.metadata()?;
    match std::fs::symlink_metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (own.dev(), own.ino())),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e).with_context(|| path.display().to_string()),
    }
}

impl Drop for NodeLock {
    fn drop(&mut self) {
        // While it is locked: whoever opened it before looks whether it is still there. One that stays is taken by the next one.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn one_has_it_and_nobody_else_can_open_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = NodeLock::at(path.clone()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(NodeLock::at(path.clone()).is_err());
        drop(lock);
        assert!(!path.exists());
        // Left by one that was killed.
        std::fs::write(&path, "").unwrap();
        drop(NodeLock::at(path).unwrap());
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &link).unwrap();
        assert!(NodeLock::at(link).is_err() && !dir.path().join("elsewhere").exists());
    }

    #[test]
    fn a_file_that_was_taken_away_meanwhile_is_no_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let file = File::create(&path).unwrap();
        assert!(is_there(&file, &path).unwrap());
        std::fs::remove_file(&path).unwrap();
        assert!(!is_there(&file, &path).unwrap());
        let _other = File::create(&path).unwrap();
        assert!(!is_there(&file, &path).unwrap());
    }
}
