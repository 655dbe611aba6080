//! Where things lie below the store's root, and how they get there and away.
//!
//! Owns: names on disk (`docs/formats/images.md`), temporary files, the trash. Must not: know which of it is still needed.
use crate::tree;
use berth_model::{Digest, Error, Result, ResultExt};
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The directories of one store.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
    /// This run's, so that no name of another one is met: what that left may lie in the trash still.
    run: u64,
    serial: Arc<AtomicU64>,
}

/// A file or directory in the making. It is removed when dropped, unless it was moved to its place.
#[derive(Debug)]
pub struct Temporary {
    path: PathBuf,
}

impl Layout {
    /// Makes the directories. They are root's alone: layers hold set-uid programs that no one on the host may run
    /// (compare CVE-2021-41103).
    pub fn create(root: &Path) -> Result<Self> {
        let run = RandomState::new().hash_one(std::process::id());
        let layout = Self { root: root.to_owned(), run, serial: Arc::default() };
        for directory in ["blobs/sha256", "snapshots", "rootfs", "ingest", "trash", "empty"] {
            let path = layout.root.join(directory);
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).context(|| path.display())?;
        }
        Ok(layout)
    }

    /// The root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Directory of the blobs.
    pub fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    /// A blob.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    /// Directory of the snapshots.
    pub fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    /// A snapshot, by chain id.
    pub fn snapshot(&self, chain_id: &Digest) -> PathBuf {
        self.snapshots().join(chain_id.hex())
    }

    /// The tree of a snapshot: what overlayfs stacks.
    pub fn snapshot_tree(&self, chain_id: &Digest) -> PathBuf {
        self.snapshot(chain_id).join("fs")
    }

    /// Directory of the containers' root filesystems.
    pub fn rootfs(&self) -> PathBuf {
        self.root.join("rootfs")
    }

    /// The lowest layer of an image without layers.
    pub fn empty(&self) -> PathBuf {
        self.root.join("empty")
    }

    /// Directory of what is in the making.
    pub fn ingest(&self) -> PathBuf {
        self.root.join("ingest")
    }

    /// A new temporary directory.
    pub fn temporary_directory(&self) -> Result<Temporary> {
        let path = self.ingest().join(self.unique());
        std::fs::DirBuilder::new().mode(0o700).create(&path).context(|| path.display())?;
        Ok(Temporary { path })
    }

    /// A new temporary file.
    pub fn temporary_file(&self) -> Result<(Temporary, File)> {
        let path = self.ingest().join(self.unique());
        let file = File::options().write(true).create_new(true).open(&path).context(|| path.display())?;
        Ok((Temporary { path }, file))
    }

    /// Takes charge of a file that lies in the making already.
    pub fn adopt(&self, path: PathBuf) -> Temporary {
        Temporary { path }
    }

    /// Moves something out of sight, at once and whatever its size. An absent one is fine.
    pub fn discard(&self, path: &Path) -> Result<()> {
        match std::fs::rename(path, self.root.join("trash").join(self.unique())) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            // A name needs space where the trash's directory is full. What is to go can go right here.
            Err(e) if e.kind() == std::io::ErrorKind::StorageFull => remove_any(path),
            other => other.context(|| path.display()),
        }
    }

    /// Moves a blob or snapshot out of sight, quickly: what cannot go to the trash for want of space gets another name where it is, and
    /// has to be removed by the caller, at leisure. An absent one is fine.
    pub fn set_aside(&self, path: &Path) -> Result<Option<PathBuf>> {
        let full = |e: &std::io::Error| e.kind() == std::io::ErrorKind::StorageFull;
        match std::fs::rename(path, self.root.join("trash").join(self.unique())) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) if full(&e) => {}
            other => return other.map(|()| None).context(|| path.display()),
        }
        // No digest: the next start sweeps it, should this run not come to it.
        let aside = path.with_extension("gone");
        match std::fs::rename(path, &aside) {
            Err(e) if full(&e) => remove_any(path).map(|()| None),
            other => other.map(|()| Some(aside)).context(|| path.display()),
        }
    }

    /// Removes what was set aside.
    pub fn remove(&self, aside: &Path) -> Result<()> {
        remove_any(aside)
    }

    /// Errors: `ResourceExhausted` where less than so many bytes are free on the store's disk; zero asks for nothing.
    pub fn need_free(&self, least: u64) -> Result<()> {
        if least == 0 {
            return Ok(());
        }
        let stat = rustix::fs::statvfs(&self.root).map_err(crate::unpack::io)?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free >= least {
            return Ok(());
        }
        let problem = format!(
            "disk of {} has {free} bytes free, less than the {least} that are kept (min_free): remove images or enlarge it",
            self.root.display()
        );
        Err(Error::new(berth_model::ErrorKind::ResourceExhausted, problem))
    }

    /// What the store's own directories take, without what is in them.
    pub fn own_usage(&self) -> crate::DiskUsage {
        let own = ["", "blobs", "blobs/sha256", "snapshots", "ingest", "trash", "empty"];
        let mut total = crate::DiskUsage::default();
        own.iter().filter_map(|name| measured(&self.root.join(name)).ok()).for_each(|usage| total += usage);
        total
    }

    /// Removes what was discarded. Blocks as long as that takes. Errors: the first one; the rest is removed all the same.
    pub fn empty_trash(&self) -> Result<()> {
        let trash = self.root.join("trash");
        let mut result = Ok(());
        for entry in std::fs::read_dir(&trash).context(|| trash.display())? {
            let removed = entry.map_err(Error::from).and_then(|e| remove_any(&e.path()));
            result = result.and(removed);
        }
        result
    }

    /// Unique within one run by the serial, and across runs by chance: process ids come again, after a boot above all.
    fn unique(&self) -> String {
        format!("{:016x}-{}", self.run, self.serial.fetch_add(1, Ordering::Relaxed))
    }
}

impl Temporary {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves it to its place, atomically.
    pub fn commit(self, place: &Path) -> Result<()> {
        std::fs::rename(&self.path, place).context(|| place.display())?;
        std::mem::forget(self);
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(e) = remove_any(&self.path) {
            // The next start sweeps it.
            tracing::warn!(path = %self.path.display(), error = %e, "cannot remove a temporary");
        }
    }
}

/// What one file or directory takes, as the kernel counts blocks.
pub fn measured(path: &Path) -> Result<crate::DiskUsage> {
    let meta = std::fs::symlink_metadata(path).context(|| path.display())?;
    Ok(crate::DiskUsage { bytes: meta.blocks() * 512, inodes: 1 })
}

/// Removes a file or a tree.
fn remove_any(path: &Path) -> Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => tree::remove(path),
        Ok(_) => match std::fs::remove_file(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::from(e).context(path.display())),
            _ => Ok(()),
        },
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::from(e).context(path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process id comes again, after a boot above all, and what it left in the trash is there still.
    #[test]
    fn what_another_run_left_in_the_trash_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..3 {
            let layout = Layout::create(dir.path()).unwrap();
            let going = layout.snapshot(&Digest::from_bytes([1; 32]));
            std::fs::create_dir_all(going.join("fs")).unwrap();
            layout.discard(&going).unwrap();
        }
        assert_eq!(std::fs::read_dir(dir.path().join("trash")).unwrap().count(), 3);
    }

    #[test]
    fn temporaries_vanish_unless_they_are_committed() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(&dir.path().join("images")).unwrap();
        let kept = layout.temporary_directory().unwrap();
        std::fs::write(kept.path().join("f"), "x").unwrap();
        let place = layout.snapshot(&Digest::from_bytes([1; 32]));
        kept.commit(&place).unwrap();
        let dropped = layout.temporary_directory().unwrap();
        std::fs::create_dir_all(dropped.path().join("a/b")).unwrap();
        drop(dropped);
        drop(layout.temporary_file().unwrap());
        assert_eq!(std::fs::read_dir(layout.ingest()).unwrap().count(), 0);
        assert!(place.join("f").exists());
        layout.discard(&place).unwrap();
        layout.discard(&place).unwrap();
        assert!(!place.exists());
        layout.empty_trash().unwrap();
        assert_eq!(std::fs::read_dir(dir.path().join("images/trash")).unwrap().count(), 0);
    }
}
