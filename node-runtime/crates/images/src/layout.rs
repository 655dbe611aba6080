//! Where things lie below the store's root, and how they get there and away.
//!
//! Owns: names on disk (`docs/formats/images.md`), temporary files, the trash. Must not: know which of it is still needed.
use crate::tree;
use berth_model::{ContainerId, Digest, Error, Result, ResultExt};
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const BLOBS: &str = "blobs/sha256";
const SNAPSHOTS: &str = "snapshots";
const ROOTFS: &str = "rootfs";
const INGEST: &str = "ingest";
const TRASH: &str = "trash";
/// What each place has.
const DIRECTORIES: [&str; 6] = [BLOBS, SNAPSHOTS, ROOTFS, INGEST, TRASH, "empty"];

/// The directories of one store. What is made lies below the root; what was made while the store had another root lies there still, is
/// found there and goes from there.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
    /// Roots of before, the latest first.
    former: Arc<[PathBuf]>,
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
    pub fn create(root: &Path, former: &[PathBuf]) -> Result<Self> {
        let run = RandomState::new().hash_one(std::process::id());
        let layout = Self { root: root.to_owned(), former: former.into(), run, serial: Arc::default() };
        for (place, directory) in layout.places().flat_map(|place| DIRECTORIES.map(|d| (place, d))) {
            let path = place.join(directory);
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).context(|| path.display())?;
        }
        Ok(layout)
    }

    /// The root, then those of before.
    pub fn places(&self) -> impl Iterator<Item = &PathBuf> {
        std::iter::once(&self.root).chain(self.former.iter())
    }

    /// Where something is: below the root, unless a former one alone has it. Without former ones nothing is looked up.
    fn find(&self, name: &Path) -> PathBuf {
        let here = self.root.join(name);
        if self.former.is_empty() || here.symlink_metadata().is_ok() {
            return here;
        }
        self.former.iter().map(|place| place.join(name)).find(|path| path.symlink_metadata().is_ok()).unwrap_or(here)
    }

    /// Number of the place that a path is in, in the order of [`Self::places`].
    pub fn number_of(&self, path: &Path) -> usize {
        self.places().position(|place| path.starts_with(place)).unwrap_or(0)
    }

    /// Forgets the former places where nothing is any more.
    pub fn forget_empty(&mut self) {
        self.former = self.former.iter().filter(|place| is_in_use(place)).cloned().collect();
    }

    /// The root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Directory of the blobs that are made.
    pub fn blobs(&self) -> PathBuf {
        self.root.join(BLOBS)
    }

    /// Directories of blobs.
    pub fn all_blobs(&self) -> impl Iterator<Item = PathBuf> {
        self.places().map(|place| place.join(BLOBS))
    }

    /// A blob.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.find(&Path::new(BLOBS).join(digest.hex()))
    }

    /// Where a blob is put.
    pub fn new_blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    /// Directories of snapshots.
    pub fn all_snapshots(&self) -> impl Iterator<Item = PathBuf> {
        self.places().map(|place| place.join(SNAPSHOTS))
    }

    /// A snapshot, by chain id.
    pub fn snapshot(&self, chain_id: &Digest) -> PathBuf {
        self.find(&Path::new(SNAPSHOTS).join(chain_id.hex()))
    }

    /// Where a snapshot is put.
    pub fn new_snapshot(&self, chain_id: &Digest) -> PathBuf {
        self.root.join(SNAPSHOTS).join(chain_id.hex())
    }

    /// The tree of a snapshot: what overlayfs stacks.
    pub fn snapshot_tree(&self, chain_id: &Digest) -> PathBuf {
        self.snapshot(chain_id).join("fs")
    }

    /// Directories of the containers' root filesystems, that of new ones first.
    pub fn all_rootfs(&self) -> impl Iterator<Item = PathBuf> {
        self.places().map(|place| place.join(ROOTFS))
    }

    /// A container's root filesystem.
    pub fn rootfs(&self, owner: &ContainerId) -> PathBuf {
        self.find(&Path::new(ROOTFS).join(owner.as_str()))
    }

    /// The lowest layer of an image without layers.
    pub fn empty(&self) -> PathBuf {
        self.root.join("empty")
    }

    /// Directory of what is in the making.
    pub fn ingest(&self) -> PathBuf {
        self.root.join(INGEST)
    }

    /// Directories of what is, or was, in the making.
    pub fn all_ingest(&self) -> impl Iterator<Item = PathBuf> {
        self.places().map(|place| place.join(INGEST))
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
        match std::fs::rename(path, self.trash_for(path)) {
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
        match std::fs::rename(path, self.trash_for(path)) {
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
        let own = ["", "blobs", BLOBS, SNAPSHOTS, INGEST, TRASH, "empty"];
        let mut total = crate::DiskUsage::default();
        let all = self.places().flat_map(|place| own.map(|name| place.join(name)));
        all.filter_map(|path| measured(&path).ok()).for_each(|usage| total += usage);
        total
    }

    /// Removes what was discarded. Blocks as long as that takes. Errors: the first one; the rest is removed all the same.
    pub fn empty_trash(&self) -> Result<()> {
        let empty = |trash: PathBuf| {
            let entries = std::fs::read_dir(&trash).context(|| trash.display())?;
            let removed = entries.map(|entry| entry.map_err(Error::from).and_then(|e| remove_any(&e.path())));
            removed.fold(Ok(()), Result::and)
        };
        self.places().map(|place| empty(place.join(TRASH))).fold(Ok(()), Result::and)
    }

    /// A name in the trash of the place that a path is in: nothing is moved from one disk to another.
    fn trash_for(&self, path: &Path) -> PathBuf {
        let place = self.places().nth(self.number_of(path)).unwrap_or(&self.root);
        place.join(TRASH).join(self.unique())
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

/// Whether a place has something that an image or a container needs; after a sweep. What cannot be read is.
fn is_in_use(place: &Path) -> bool {
    let is_empty = |name: &str| std::fs::read_dir(place.join(name)).is_ok_and(|mut entries| entries.next().is_none());
    ![BLOBS, SNAPSHOTS, ROOTFS].into_iter().all(is_empty)
}

/// Removes the directories of a store at a place that no store has any more, and nothing else that lies there.
pub fn remove_place(place: &Path) -> Result<()> {
    ["blobs", SNAPSHOTS, ROOTFS, INGEST, TRASH, "empty"].iter().try_for_each(|name| remove_any(&place.join(name)))
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
            let layout = Layout::create(dir.path(), &[]).unwrap();
            let going = layout.snapshot(&Digest::from_bytes([1; 32]));
            std::fs::create_dir_all(going.join("fs")).unwrap();
            layout.discard(&going).unwrap();
        }
        assert_eq!(std::fs::read_dir(dir.path().join("trash")).unwrap().count(), 3);
    }

    #[test]
    fn temporaries_vanish_unless_they_are_committed() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(&dir.path().join("images"), &[]).unwrap();
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
