//! Changes of images and names: on the disk first, then visible.
//!
//! Owns: the order of that, and what a pull's result looks like as a record. Must not: fetch anything.
use crate::pull::PullRequest;
use crate::record::{Evidence, ImageRecord};
use crate::unpack::io;
use crate::{Images, now};
use berth_model::{ImageId, Reference, Result, ResultExt};
use berth_store::ImageChanges;
use rustix::fs::{self, Mode, OFlags};
use std::sync::Arc;

impl Images {
    /// Makes a pulled image visible under the names of the request. `fresh` is the image as it was put together, `None` when it
    /// was here already under `id`.
    pub(crate) async fn commit(
        &self,
        request: &PullRequest,
        id: &ImageId,
        fresh: Option<ImageRecord>,
    ) -> Result<Arc<ImageRecord>> {
        self.commit_as(names(request), &request.evidence, id, fresh).await
    }

    /// The same under these names, with this evidence.
    pub(crate) async fn commit_as(
        &self,
        names: Vec<String>,
        evidence: &Evidence,
        id: &ImageId,
        fresh: Option<ImageRecord>,
    ) -> Result<Arc<ImageRecord>> {
        let _guard = self.inner.committing.lock().await;
        let existing = self.state().image(id).cloned();
        let mut record = match (existing, fresh) {
            // The layers' blobs are those of the manifest that was pulled now.
            (Some(existing), Some(fresh)) => ImageRecord {
                pulled_at: existing.pulled_at,
                evidence: existing.evidence.clone(),
                bundle: fresh.bundle.or_else(|| existing.bundle.clone()),
                ..fresh
            },
            (Some(existing), None) => (*existing).clone(),
            (None, Some(fresh)) => ImageRecord { pulled_at: now(), ..fresh },
            // Removed while it was pulled: the caller starts over.
            (None, None) => return Err(berth_model::Error::not_found("image", id)),
        };
        record.evidence.merge(evidence);
        let changes = ImageChanges {
            put_images: vec![(id.to_string(), record.encode()?)],
            put_references: names.iter().map(|n| (n.clone(), id.to_string())).collect(),
            ..ImageChanges::default()
        };
        let images = self.clone();
        let chains: Vec<_> = record.chain_ids().cloned().collect();
        self.blocking(move || {
            images.sync(&chains)?;
            images.inner.database.change_images(&changes)
        })
        .await?;
        Ok(self.state().put_image(record, names))
    }

    /// Makes snapshots and the names of blobs durable: one sync for all of a pull, before its record.
    fn sync(&self, chains: &[berth_model::Digest]) -> Result<()> {
        let directory = self.inner.layout.blobs();
        let fd =
            fs::open(&directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(io)?;
        if self.state().is_synced(chains) {
            // The blobs' data was synced when they were written.
            return fs::fsync(&fd).map_err(io).context(|| format!("cannot sync {}", directory.display()));
        }
        fs::syncfs(&fd).map_err(io).context(|| format!("cannot sync the disk of {}", directory.display()))?;
        self.state().set_synced(chains);
        Ok(())
    }

    /// Removes the image that a text stands for, with all its names. What containers still use of it stays until they let go. An
    /// unknown image is fine. Errors: `InvalidArgument` for a text that is no name of an image.
    pub async fn remove(&self, text: &str) -> Result<()> {
        let _guard = self.inner.committing.lock().await;
        let id = match self.find(text)? {
            Some(image) => image.id.clone(),
            None => return Ok(()),
        };
        self.remove_records(&[id]).await?;
        self.sweep_later();
        Ok(())
    }

    /// Forgets images with all their names; `committing` is held. They are out of sight at once, so that no container begins on them, and
    /// come back if the disk refuses.
    pub(crate) async fn remove_records(&self, ids: &[ImageId]) -> Result<Vec<(Arc<ImageRecord>, Vec<String>)>> {
        let removed: Vec<_> = {
            let mut state = self.state();
            ids.iter().filter_map(|id| state.remove_image(id)).collect()
        };
        let changes = ImageChanges {
            remove_images: removed.iter().map(|(image, _)| image.id.to_string()).collect(),
            remove_references: removed.iter().flat_map(|(_, names)| names.clone()).collect(),
            ..ImageChanges::default()
        };
        let database = self.inner.database.clone();
        if let Err(e) = self.blocking(move || database.change_images(&changes)).await {
            let mut state = self.state();
            for (image, names) in removed {
                state.put_image((*image).clone(), names);
            }
            return Err(e);
        }
        Ok(removed)
    }
}

/// The names that a pull gives: its digest in its repository, and the tag unless the digest was what the user wrote.
fn names(request: &PullRequest) -> Vec<String> {
    let reference = &request.reference;
    let by_digest = reference.with_digest_only(request.digest.clone());
    let by_tag = if reference.digest().is_none() { reference.tag_only() } else { None };
    [Some(by_digest), by_tag].into_iter().flatten().map(|r: Reference| r.to_string()).collect()
}
