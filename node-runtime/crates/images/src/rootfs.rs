//! Root filesystems of containers: a writable directory over an image's snapshots. Nothing is mounted here; `berth-init`
//! does that in the container's own mount namespace.
//!
//! Owns: the directories and the records of who uses what. Must not: outlive its container's removal.
use crate::merged::{self, Found};
use crate::quota::Quota;
use crate::tree::{self, DiskUsage};
use crate::unpack::io;
use crate::{Images, now, volume};
use berth_model::{ContainerId, Digest, Error, ErrorKind, ImageId, Result, ResultExt, UnixNanos};
use berth_store::Sync;
use rustix::fs::{self, Gid, Mode, OFlags, Uid};
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a number that another store took at the same time is given up for the next one.
const MAX_CHOICES: usize = 16;

/// What a root filesystem stands on. Format: `docs/formats/images.md`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootfsRecord {
    /// The image.
    pub image: ImageId,
    /// Chain ids of its layers, lowest first.
    pub layers: Vec<Digest>,
    /// Images that are mounted beside it.
    #[serde(default)]
    pub image_volumes: Vec<ImageVolume>,
    /// Paths in the container that have a directory of their own, `volumes/0` and on.
    #[serde(default)]
    pub volumes: Vec<PathBuf>,
    /// Number of its project, where the file system keeps project quota.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<u32>,
}

/// An image that a container mounts as a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageVolume {
    /// The image.
    pub image: ImageId,
    /// Chain ids of its layers, lowest first.
    pub layers: Vec<Digest>,
}

impl RootfsRecord {
    /// One without volumes.
    pub(crate) fn of(image: ImageId, layers: Vec<Digest>) -> Self {
        Self { image, layers, image_volumes: Vec::new(), volumes: Vec::new(), project: None }
    }

    /// Chain ids of all snapshots that the container needs.
    pub(crate) fn uses(&self) -> impl Iterator<Item = &Digest> {
        self.layers.iter().chain(self.image_volumes.iter().flat_map(|v| &v.layers))
    }
}

/// What a container's root filesystem is to be made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootfsPlan {
    /// The image.
    pub image: ImageId,
    /// The host's uid and gid of root in the pod's user namespace.
    pub mapped_root: Option<(u32, u32)>,
    /// Images that are mounted as volumes: their snapshots stay as long as the container does.
    pub image_volumes: Vec<ImageId>,
    /// Absolute paths in the container that get a directory of their own, filled from the image (its `VOLUME`s).
    pub volumes: Vec<PathBuf>,
    /// Most bytes that the container may write there, all together.
    pub limit: Option<u64>,
}

impl RootfsPlan {
    /// One without volumes, in the host's user namespace.
    pub fn new(image: ImageId) -> Self {
        Self { image, mapped_root: None, image_volumes: Vec::new(), volumes: Vec::new(), limit: None }
    }
}

/// A file of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFile {
    /// Where it is, once all links were followed.
    pub path: PathBuf,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// The directories to assemble an overlay from, and those of volumes.
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
    /// Layers of each image volume in the order of the plan, topmost first, at least two each.
    pub image_volumes: Vec<Vec<PathBuf>>,
    /// Path in the container and directory of each volume.
    pub volumes: Vec<(PathBuf, PathBuf)>,
}

/// A reading of what a container has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootfsUsage {
    /// Blocks and inodes of the writable layer, and of the directories of the image's volumes.
    pub usage: DiskUsage,
    /// When it was counted.
    pub at: UnixNanos,
}

impl Images {
    /// Makes a container's root filesystem. Asking again for the same image returns what exists. Errors: `NotFound` for an image
    /// that is not here, `AlreadyExists` for a container that stands on another one, `FailedPrecondition` for a volume that is
    /// a file in the image.
    pub async fn prepare_rootfs(&self, owner: &ContainerId, plan: RootfsPlan) -> Result<RootfsDirs> {
        let (images, owner) = (self.clone(), owner.clone());
        self.blocking(move || images.prepare(&owner, &plan)).await
    }

    /// The directories of a root filesystem that was made before. Errors: `NotFound`.
    pub fn rootfs(&self, owner: &ContainerId) -> Result<RootfsDirs> {
        let record = self.state().rootfs.get(owner).cloned();
        let record = record.ok_or_else(|| Error::not_found("root filesystem of container", owner))?;
        Ok(self.rootfs_dirs(owner, &record))
    }

    /// Whether an image has something at a path, links of the image followed inside it. Errors: `NotFound` for the image,
    /// `FailedPrecondition` for a path that cannot be followed.
    pub async fn has_path(&self, image: &ImageId, path: &Path) -> Result<bool> {
        let (layers, path) = (self.layers(image)?, path.to_owned());
        self.blocking(move || Ok(!matches!(merged::find(&layers, &path)?, Found::Missing))).await
    }

    /// The file that a path leads to in an image, as it is without any mount. `None` where there is none, or something else
    /// than a regular file. Errors: `NotFound` for the image; `FailedPrecondition` for one that is longer than `limit` bytes,
    /// or whose path never ends.
    pub async fn read_file(&self, image: &ImageId, path: &str, limit: u64) -> Result<Option<ImageFile>> {
        let (layers, path) = (self.layers(image)?, PathBuf::from(path));
        self.blocking(move || {
            let Found::File(leaf) = merged::find(&layers, &path)? else { return Ok(None) };
            let Some((file, length)) = leaf.open().context(|| path.display())? else { return Ok(None) };
            if length > limit {
                return Err(crate::refused(
                    format!("{} in the image", path.display()),
                    format!("is longer than {limit} bytes"),
                ));
            }
            let mut bytes = Vec::new();
            file.take(limit).read_to_end(&mut bytes).context(|| path.display())?;
            Ok(Some(ImageFile { path: leaf.path(), bytes }))
        })
        .await
    }

    fn prepare(&self, owner: &ContainerId, plan: &RootfsPlan) -> Result<RootfsDirs> {
        let record = {
            let mut state = self.state();
            if let Some(existing) = state.rootfs.get(owner) {
                if existing.image != plan.image {
                    let text =
                        format!("container {owner} has a root filesystem of image {}: remove it first", existing.image);
                    return Err(Error::new(ErrorKind::AlreadyExists, text));
                }
                let record = existing.clone();
                drop(state);
                return Ok(self.rootfs_dirs(owner, &record));
            }
            let layers = |id: &ImageId| -> Result<Vec<Digest>> {
                let found = state.image(id).ok_or_else(|| Error::not_found("image", id))?;
                Ok(found.chain_ids().cloned().collect())
            };
            let volume = |id: &ImageId| Ok(ImageVolume { image: id.clone(), layers: layers(id)? });
            let record = RootfsRecord {
                image_volumes: plan.image_volumes.iter().map(volume).collect::<Result<_>>()?,
                volumes: plan.volumes.clone(),
                ..RootfsRecord::of(plan.image.clone(), layers(&plan.image)?)
            };
            // From here on the snapshots stay, whatever is removed meanwhile.
            state.rootfs.insert(owner.clone(), record.clone());
            let images = record.image_volumes.iter().map(|v| &v.image).chain([&record.image]);
            images.for_each(|image| state.touch(image, now()));
            record
        };
        let dirs = self.rootfs_dirs(owner, &record);
        let made = self.begin_rootfs(owner, record.clone(), plan.limit);
        let made = made.and_then(|()| make_dirs(&record, &dirs, plan)).and_then(|()| fill_volumes(&dirs));
        if let Err(e) = made {
            let discarded = self.inner.layout.discard(&self.rootfs_path(owner));
            let gone = self.state().rootfs.remove(owner);
            gone.and_then(|r| r.project).into_iter().for_each(|project| self.quota().end(project));
            self.sweep_later();
            return Err(discarded.err().unwrap_or(e).context(format!("root filesystem of container {owner}")));
        }
        Ok(dirs)
    }

    /// Its record and its project.
    fn begin_rootfs(&self, owner: &ContainerId, mut record: RootfsRecord, limit: Option<u64>) -> Result<()> {
        for _ in 0..MAX_CHOICES {
            let projects = self.state().projects();
            record.project = self.quota().choose(&projects);
            if !self.state().claim_project(owner, record.project) {
                continue;
            }
            // Written first, so that a crash leaves nothing without an owner. A power cut may tear it: the container is gone then.
            self.inner.rootfs_records.write_synced(owner.as_str(), &record, Sync::Later)?;
            if self.quota().begin(record.project, &self.rootfs_path(owner), limit)? {
                return Ok(());
            }
        }
        let problem = format!(
            "no free project number was found in {MAX_CHOICES} attempts: several stores share the disk; try again"
        );
        Err(Error::new(ErrorKind::Unavailable, problem))
    }

    /// The tree of an image without a writable layer, topmost layer first. The snapshots stay as long as the image or a root
    /// filesystem on it does. Errors: `NotFound`.
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
            image_volumes: record.image_volumes.iter().map(|v| self.read_only_stack(&v.layers, &base)).collect(),
            volumes: numbered(&record.volumes, &base.join("volumes")),
        }
    }

    /// The layers of an overlay without a writable one, which needs two at the least: an empty one is put below.
    fn read_only_stack(&self, layers: &[Digest], base: &Path) -> Vec<PathBuf> {
        let mut trees = self.trees(layers);
        if trees.len() == 1 {
            // Not the empty one of images without layers: no directory may be in one overlay twice.
            trees.push(base.join("mount"));
        }
        trees
    }

    fn rootfs_path(&self, owner: &ContainerId) -> PathBuf {
        self.inner.layout.rootfs(owner)
    }

    /// The quota of new root filesystems.
    pub(crate) fn quota(&self) -> &Quota {
        &self.inner.quotas[0]
    }

    /// The quota of the place that a root filesystem is in.
    fn quota_at(&self, path: &Path) -> &Quota {
        self.inner.quotas.get(self.inner.layout.number_of(path)).unwrap_or(self.quota())
    }

    /// Removes a container's root filesystem and lets go of its image's snapshots. Nothing may be mounted from it any more. The disk is
    /// freed soon after. An absent one is fine.
    pub async fn remove_rootfs(&self, owner: &ContainerId) -> Result<()> {
        let (images, owner) = (self.clone(), owner.clone());
        self.blocking(move || {
            let path = images.rootfs_path(&owner);
            images.inner.layout.discard(&path)?;
            let gone = {
                let mut state = images.state();
                let gone = state.rootfs.remove(&owner);
                if let Some(record) = &gone {
                    let used = record.image_volumes.iter().map(|v| &v.image).chain([&record.image]);
                    used.for_each(|image| state.touch(image, now()));
                }
                gone
            };
            gone.and_then(|r| r.project).into_iter().for_each(|project| images.quota_at(&path).end(project));
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
        let project = match self.state().rootfs.get(owner) {
            Some(record) => record.project,
            None => return Err(Error::not_found("root filesystem of container", owner)),
        };
        // The kernel counts as it writes, the work directory included: nothing to wait for, and nothing to keep.
        let taken = |project| self.quota_at(&self.rootfs_path(owner)).taken(project);
        if let Some(taken) = project.and_then(taken) {
            let usage = DiskUsage { bytes: taken.bytes, inodes: taken.inodes };
            return Ok(self.keep_reading(owner.clone(), usage));
        }
        if let Some(reading) = self.inner.usage.get(owner, max_age) {
            return Ok(reading);
        }
        let (images, owner) = (self.clone(), owner.clone());
        self.blocking(move || {
            let base = images.rootfs_path(&owner);
            let mut usage = tree::usage(&base.join("upper"))?;
            // What is written into a volume of the image is written by the container as well.
            usage += tree::usage(&base.join("volumes"))?;
            Ok(images.keep_reading(owner, usage))
        })
        .await
    }
}

fn numbered(paths: &[PathBuf], below: &Path) -> Vec<(PathBuf, PathBuf)> {
    paths.iter().enumerate().map(|(n, path)| (path.clone(), below.join(n.to_string()))).collect()
}

fn fill_volumes(dirs: &RootfsDirs) -> Result<()> {
    let Some(base) = dirs.volumes.first().and_then(|(_, dir)| dir.parent()) else { return Ok(()) };
    std::fs::DirBuilder::new().mode(0o700).create(base).context(|| base.display())?;
    dirs.volumes.iter().try_for_each(|(path, dir)| volume::fill(&dirs.lower, path, dir))
}

fn make_dirs(record: &RootfsRecord, dirs: &RootfsDirs, plan: &RootfsPlan) -> Result<()> {
    let mapped_root = plan.mapped_root;
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
