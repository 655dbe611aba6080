//! Root filesystems of containers: a writable directory over an image's snapshots. Nothing is mounted here; `berth-init`
//! does that in the container's own mount namespace.
//!
//! Owns: the directories and the records of who uses what. Must not: outlive its container's removal.
use crate::Images;
use crate::tree::{self, DiskUsage};
use crate::unpack::io;
use berth_model::{ContainerId, Digest, Error, ErrorKind, ImageId, Result, ResultExt, UnixNanos};
use berth_store::Sync;
use rustix::fs::{self, Gid, Mode, OFlags, Uid};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a root filesystem stands on. Format: `docs/formats/images.md`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootfsRecord {
    /// The image.
    pub image: ImageId,
    /// Chain ids of its layers, lowest first.
    pub layers: Vec<Digest>,
}

/// The directories to assemble an overlay from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootfsDirs {
    /// Layers, topmost first. Never empty.
    pub lower: Vec<PathBuf>,
    /// Writable layer.
    pub upper: PathBuf,
    /// Overlay's work directory.
    pub work: PathBuf,
    /// An empty directory to mount on.
    pub mountpoint: PathBuf,
}

/// A reading of what a container has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootfsUsage {
    /// Blocks and inodes of the writable layer.
    pub usage: DiskUsage,
    /// When it was counted.
    pub at: UnixNanos,
}

impl Images {
    /// Makes a container's root filesystem. Asking again for the same image returns what exists. `mapped_root` is the host's uid and
    /// gid of root in the pod's user namespace. Errors: `NotFound` for an image that is not here, `AlreadyExists` for a container
    /// that stands on another one.
    pub async fn prepare_rootfs(
        &self,
        owner: &ContainerId,
        image: &ImageId,
        mapped_root: Option<(u32, u32)>,
    ) -> Result<RootfsDirs> {
        let (images, owner, image) = (self.clone(), owner.clone(), image.clone());
        self.blocking(move || images.prepare(&owner, &image, mapped_root)).await
    }

    fn prepare(&self, owner: &ContainerId, image: &ImageId, mapped_root: Option<(u32, u32)>) -> Result<RootfsDirs> {
        let record = {
            let mut state = self.state();
            if let Some(existing) = state.rootfs.get(owner) {
                if existing.image != *image {
                    let text =
                        format!("container {owner} has a root filesystem of image {}: remove it first", existing.image);
                    return Err(Error::new(ErrorKind::AlreadyExists, text));
                }
                let record = existing.clone();
                drop(state);
                return Ok(self.rootfs_dirs(owner, &record));
            }
            let found = state.image(image).ok_or_else(|| Error::not_found("image", image))?;
            let record = RootfsRecord { image: image.clone(), layers: found.chain_ids().cloned().collect() };
            // From here on the snapshots stay, whatever is removed meanwhile.
            state.rootfs.insert(owner.clone(), record.clone());
            record
        };
        let dirs = self.rootfs_dirs(owner, &record);
        let made = self.make_dirs(owner, &record, &dirs, mapped_root);
        if let Err(e) = made {
            let discarded = self.inner.layout.discard(&self.rootfs_path(owner));
            self.state().rootfs.remove(owner);
            self.sweep_later();
            return Err(discarded.err().unwrap_or(e).context(format!("root filesystem of container {owner}")));
        }
        Ok(dirs)
    }

    fn make_dirs(
        &self,
        owner: &ContainerId,
        record: &RootfsRecord,
        dirs: &RootfsDirs,
        mapped_root: Option<(u32, u32)>,
    ) -> Result<()> {
        // Written first, so that a crash leaves nothing without an owner. A power cut may tear it: the container is gone then.
        self.inner.rootfs_records.write_synced(owner.as_str(), record, Sync::Later)?;
        for path in [&dirs.upper, &dirs.work, &dirs.mountpoint] {
            std::fs::DirBuilder::new().mode(0o755).create(path).context(|| path.display())?;
        }
        let open = |path: &Path| fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let upper = open(&dirs.upper).map_err(io)?;
        // Overlayfs shows the root of the upper layer, so it must look like the image's.
        if let Some(top) = dirs.lower.first().filter(|_| !record.layers.is_empty()) {
            let stat = fs::stat(top).map_err(io).context(|| top.display())?;
            if mapped_root.is_none() && (stat.st_uid, stat.st_gid) != (0, 0) {
                fs::fchown(&upper, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid))).map_err(io)?;
            }
            fs::fchmod(&upper, Mode::from_raw_mode(stat.st_mode & 0o7777)).map_err(io)?;
        }
        if let Some((uid, gid)) = mapped_root {
            fs::fchown(&upper, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).map_err(io)?;
        }
        Ok(())
    }

    /// The tree of an image without a writable layer, topmost layer first, for image volumes. The snapshots stay as long as the image or
    /// a root filesystem made by `owner` does. Errors: `NotFound`.
    pub fn layers(&self, image: &ImageId) -> Result<Vec<PathBuf>> {
        let found = self.state().image(image).cloned().ok_or_else(|| Error::not_found("image", image))?;
        Ok(self.trees(&found.chain_ids().cloned().collect::<Vec<_>>()))
    }

    fn trees(&self, layers: &[Digest]) -> Vec<PathBuf> {
        match layers {
            [] => vec![self.inner.layout.empty()],
            layers => layers.iter().rev().map(|id| self.inner.layout.snapshot_tree(id)).collect(),
        }
    }

    fn rootfs_dirs(&self, owner: &ContainerId, record: &RootfsRecord) -> RootfsDirs {
        let base = self.rootfs_path(owner);
        RootfsDirs {
            lower: self.trees(&record.layers),
            upper: base.join("upper"),
            work: base.join("work"),
            mountpoint: base.join("mount"),
        }
    }

    fn rootfs_path(&self, owner: &ContainerId) -> PathBuf {
        self.inner.layout.rootfs().join(owner.as_str())
    }

    /// Removes a container's root filesystem and lets go of its image's snapshots. Nothing may be mounted from it any more. The disk is
    /// freed soon after. An absent one is fine.
    pub async fn remove_rootfs(&self, owner: &ContainerId) -> Result<()> {
        let (images, owner) = (self.clone(), owner.clone());
        self.blocking(move || {
            images.inner.layout.discard(&images.rootfs_path(&owner))?;
            images.state().rootfs.remove(&owner);
            images.inner.usage.forget(&owner);
            images.sweep_later();
            Ok(())
        })
        .await
    }

    /// The containers that have a root filesystem, for whoever reconciles after a crash.
    pub fn rootfs_owners(&self) -> Vec<ContainerId> {
        self.state().rootfs.keys().cloned().collect()
    }

    /// What a container had written when it was last counted; `None` if it never was. Counts nothing.
    pub fn last_rootfs_usage(&self, owner: &ContainerId) -> Option<RootfsUsage> {
        self.inner.usage.get(owner, Duration::MAX)
    }

    /// What a container has written, counted not longer ago than `max_age`. Errors: `NotFound`.
    pub async fn rootfs_usage(&self, owner: &ContainerId, max_age: Duration) -> Result<RootfsUsage> {
        if !self.state().rootfs.contains_key(owner) {
            return Err(Error::not_found("root filesystem of container", owner));
        }
        if let Some(reading) = self.inner.usage.get(owner, max_age) {
            return Ok(reading);
        }
        let (images, owner) = (self.clone(), owner.clone());
        self.blocking(move || {
            let usage = tree::usage(&images.rootfs_path(&owner).join("upper"))?;
            Ok(images.inner.usage.put(owner, usage))
        })
        .await
    }
}
