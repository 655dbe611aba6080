//! Readings of what is used on disk.
//!
//! Owns: the cache of countings, and the sums over them. Must not: count anything when asked for a sum.
use crate::rootfs::RootfsUsage;
use crate::tree::DiskUsage;
use crate::{Images, now};
use berth_model::{ContainerId, Result, UnixNanos};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The last reading of each container.
#[derive(Debug, Default)]
pub struct Readings(Mutex<HashMap<ContainerId, (Instant, RootfsUsage)>>);

impl Readings {
    fn lock(&self) -> MutexGuard<'_, HashMap<ContainerId, (Instant, RootfsUsage)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A reading that is not too old.
    pub fn get(&self, owner: &ContainerId, max_age: Duration) -> Option<RootfsUsage> {
        self.lock().get(owner).filter(|(at, _)| at.elapsed() <= max_age).map(|(_, reading)| *reading)
    }

    fn put(&self, owner: ContainerId, reading: RootfsUsage) {
        self.lock().insert(owner, (Instant::now(), reading));
    }

    /// Forgets a container.
    pub fn forget(&self, owner: &ContainerId) {
        self.lock().remove(owner);
    }

    fn sum(&self) -> DiskUsage {
        let mut total = DiskUsage::default();
        self.lock().values().for_each(|(_, reading)| total += reading.usage);
        total
    }
}

/// What images and containers use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FsUsage {
    /// The store's directory, on the file system that is used.
    pub mountpoint: PathBuf,
    /// Snapshots, blobs, and the store's own directories; what is on its way is not in it.
    pub images: DiskUsage,
    /// Writable layers, by their last readings.
    pub containers: DiskUsage,
    /// When this was read.
    pub at: UnixNanos,
}

impl Images {
    /// Keeps a reading, as long as its owner is here: a count that ends after the removal is of nobody.
    pub(crate) fn keep_reading(&self, owner: ContainerId, usage: DiskUsage) -> RootfsUsage {
        let reading = RootfsUsage { usage, at: now() };
        // Held over both, and the removal forgets the reading after it has taken the owner away.
        let state = self.state();
        if state.rootfs.contains_key(&owner) {
            self.inner.usage.put(owner, reading);
        }
        reading
    }

    /// What images and containers use, from memory.
    pub fn fs_usage(&self) -> Result<FsUsage> {
        let mut images = self.inner.layout.own_usage();
        {
            let state = self.state();
            state.snapshots.values().for_each(|s| images += s.usage);
            state.blobs.values().for_each(|blob| images += blob.usage);
        }
        let mountpoint = self.inner.layout.root().to_owned();
        Ok(FsUsage { mountpoint, images, containers: self.inner.usage.sum(), at: now() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ImagesConfig;
    use crate::rootfs::RootfsRecord;
    use berth_model::Digest;
    use berth_registry::{Client, ClientConfig};
    use berth_store::Database;

    #[test]
    fn a_count_that_ends_after_its_container_is_of_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(&dir.path().join("db")).unwrap();
        let client = Client::new(ClientConfig::default()).unwrap();
        let images = Images::open(ImagesConfig::new(dir.path().join("images")), database.into(), client).unwrap();
        let owner = ContainerId::from_random([1; 32]);
        let usage = DiskUsage { bytes: 4096, inodes: 1 };
        images.state().rootfs.insert(owner.clone(), RootfsRecord::of(Digest::from_bytes([1; 32]), Vec::new()));
        images.keep_reading(owner.clone(), usage);
        assert_eq!(images.fs_usage().unwrap().containers, usage);
        images.state().rootfs.remove(&owner);
        images.inner.usage.forget(&owner);
        images.keep_reading(owner, usage);
        assert_eq!(images.fs_usage().unwrap().containers, DiskUsage::default());
    }
}
