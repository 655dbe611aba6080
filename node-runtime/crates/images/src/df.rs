//! What each image and each container takes on disk.
//!
//! Owns: how bytes that several images share are told. Must not: count a tree; figures are those of the last counting.
use crate::record::ImageRecord;
use crate::tree::DiskUsage;
use crate::{CollectionTotals, FsUsage, Images, RootfsUsage};
use berth_model::{ContainerId, Digest, Result};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// One image's part of the disk.
#[derive(Debug, Clone)]
pub struct ImageUsage {
    /// The image.
    pub image: Arc<ImageRecord>,
    /// Bytes of its layers and blobs.
    pub size: u64,
    /// Those of them that other images have as well.
    pub shared: u64,
    /// Containers that stand on it, or mount it.
    pub containers: usize,
}

/// One container's part of it.
#[derive(Debug, Clone)]
pub struct LayerUsage {
    /// The container.
    pub owner: ContainerId,
    /// What it has written, if that was ever counted.
    pub written: Option<RootfsUsage>,
}

/// The whole.
#[derive(Debug, Clone)]
pub struct StoreUsage {
    /// Sums.
    pub fs: FsUsage,
    /// Bytes that go with the images that nobody uses.
    pub reclaimable: u64,
    /// Images.
    pub images: Vec<ImageUsage>,
    /// Containers.
    pub containers: Vec<LayerUsage>,
    /// Layers that several images stand on, and how many layers there are in all.
    pub shared_layers: usize,
    /// Layers.
    pub layers: usize,
    /// Bytes of compressed layers that are kept.
    pub kept_blobs: DiskUsage,
    /// What collections have removed.
    pub collected: CollectionTotals,
}

impl Images {
    /// What each image and each container takes, from memory.
    pub fn store_usage(&self) -> Result<StoreUsage> {
        let (fs, collected) = (self.fs_usage()?, self.collection_totals());
        let state = self.state();
        let images = state.images();
        let mut owners: HashMap<Digest, usize> = HashMap::new();
        for image in &images {
            for digest in distinct(image) {
                *owners.entry(digest.clone()).or_default() += 1;
            }
        }
        let takes = |digest: &Digest| {
            let snapshot = state.snapshots.get(digest).map_or(0, |s| s.usage.bytes);
            snapshot + state.blobs.get(digest).map_or(0, |b| b.usage.bytes)
        };
        let unused: HashSet<&Digest> = state.snapshots.keys().chain(state.blobs.keys()).collect();
        let mut held: HashSet<Digest> = state.rootfs.values().flat_map(|r| r.uses().cloned()).collect();
        let mut usages = Vec::new();
        for image in &images {
            let (mut size, mut shared) = (0, 0);
            for digest in distinct(image) {
                size += takes(digest);
                if owners.get(digest).is_some_and(|n| *n > 1) {
                    shared += takes(digest);
                }
            }
            let containers = state.users(&image.id).count();
            if containers > 0 || image.pinned {
                held.extend(distinct(image).into_iter().cloned());
            }
            usages.push(ImageUsage { image: image.clone(), size, shared, containers });
        }
        let reclaimable = unused.into_iter().filter(|d| !held.contains(*d)).map(takes).sum();
        let layer_digests: HashSet<&Digest> = images.iter().flat_map(|i| i.layers.iter().map(|l| &l.digest)).collect();
        let mut kept_blobs = DiskUsage::default();
        layer_digests.iter().filter_map(|d| state.blobs.get(*d)).for_each(|blob| kept_blobs += blob.usage);
        let shared_layers = state.snapshots.keys().filter(|id| owners.get(*id).is_some_and(|n| *n > 1)).count();
        let owners: Vec<ContainerId> = state.rootfs.keys().cloned().collect();
        let layers = state.snapshots.len();
        drop(state);
        let containers =
            owners.into_iter().map(|owner| LayerUsage { written: self.last_rootfs_usage(&owner), owner }).collect();
        Ok(StoreUsage { fs, reclaimable, images: usages, containers, shared_layers, layers, kept_blobs, collected })
    }
}

/// Everything that belongs to an image, each once.
fn distinct(image: &ImageRecord) -> HashSet<&Digest> {
    image.chain_ids().chain(image.blobs()).collect()
}
