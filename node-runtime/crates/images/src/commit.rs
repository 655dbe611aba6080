//! Changes of images and names: on the disk first, then visible.
//!
//! Owns: the order of that, and what a pull's result looks like as a record. Must not: fetch anything.
use crate::pull::PullRequest;
use crate::record::{Evidence, ImageRecord};
use crate::state::State;
use crate::unpack::io;
use crate::{Images, now};
use berth_model::{ImageId, Reference, Result, ResultExt};
use berth_store::ImageChanges;
use rustix::fs::{self, Mode, OFlags};
use std::sync::Arc;

/// An image that is to be made visible.
pub(crate) struct Entry {
    pub id: ImageId,
    /// Further names.
    pub names: Vec<String>,
    /// What is found out about it.
    pub evidence: Evidence,
    /// As it was put together; `None` where it was here.
    pub fresh: Option<ImageRecord>,
    /// One that is here keeps its manifest: this one brings names alone. An archive's bytes are no better than those that came from a
    /// registry, by whose digest people know the image.
    pub yields: bool,
}

impl Entry {
    /// What is to be written. `whole` says whether the existing one has its documents.
    fn record(&mut self, existing: Option<ImageRecord>, whole: bool) -> Result<ImageRecord> {
        let mut record = match (existing, self.fresh.take()) {
            (Some(existing), Some(fresh)) => {
                // An index names manifests by their digests: it belongs to no other one.
                let same = existing.manifest_digest == fresh.manifest_digest;
                if self.yields && whole {
                    let bundle = existing.bundle.or(fresh.bundle.filter(|_| same));
                    ImageRecord { bundle, ..existing }
                } else {
                    // The layers' blobs are those of the manifest that came now.
                    let bundle = fresh.bundle.or(existing.bundle.filter(|_| same));
                    ImageRecord { bundle, pulled_at: existing.pulled_at, evidence: existing.evidence, ..fresh }
                }
            }
            (Some(existing), None) => existing,
            (None, Some(fresh)) => ImageRecord { pulled_at: now(), ..fresh },
            // Removed while it was pulled: the caller starts over.
            (None, None) => return Err(berth_model::Error::not_found("image", &self.id)),
        };
        record.evidence.merge(&self.evidence);
        Ok(record)
    }
}

impl Images {
    /// Makes a pulled image visible under the names of the request. `fresh` is the image as it was put together, `None` when it
    /// was here already under `id`.
    pub(crate) async fn commit(
        &self,
        request: &PullRequest,
        id: &ImageId,
        fresh: Option<ImageRecord>,
    ) -> Result<Arc<ImageRecord>> {
        let (id, names, evidence) = (id.clone(), names(request), request.evidence.clone());
        let mut all = self.commit_all(vec![Entry { id, names, evidence, fresh, yields: false }]).await?;
        all.pop().ok_or_else(|| berth_model::Error::internal("a commit without an image"))
    }

    /// Makes images visible: all of them, or none. Returns them in the same order.
    pub(crate) async fn commit_all(&self, mut entries: Vec<Entry>) -> Result<Vec<Arc<ImageRecord>>> {
        let _guard = self.inner.committing.lock().await;
        // One image may come twice, by two manifests.
        let mut records: Vec<ImageRecord> = Vec::new();
        let mut changes = ImageChanges::default();
        for entry in &mut entries {
            let earlier = records.iter().position(|record| record.id == entry.id).map(|at| records.remove(at));
            let (existing, whole) = {
                let state = self.state();
                let existing = earlier.or_else(|| state.image(&entry.id).map(|image| (**image).clone()));
                let whole = existing.as_ref().is_some_and(|image| state.has_documents(image));
                (existing, whole)
            };
            records.push(entry.record(existing, whole)?);
            changes.put_references.extend(entry.names.iter().map(|n| (n.clone(), entry.id.to_string())));
        }
        for record in &records {
            changes.put_images.push((record.id.to_string(), record.encode()?));
        }
        let images = self.clone();
        let chains: Vec<_> = records.iter().flat_map(|record| record.chain_ids().cloned()).collect();
        self.blocking(move || {
            images.sync(&chains)?;
            images.inner.database.change_images(&changes)
        })
        .await?;
        let mut state = self.state();
        for record in records {
            state.touch(&record.id, now());
            state.put_image(record, Vec::new());
        }
        let put = |entry: Entry| state.name_image(&entry.id, entry.names);
        let all: Vec<_> = entries.into_iter().map(put).collect();
        all.into_iter()
            .map(|image| image.ok_or_else(|| berth_model::Error::internal("an image without a record")))
            .collect()
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
        self.remove_records(&[id], |_, _| true).await?;
        self.sweep_later();
        Ok(())
    }

    /// Forgets those images that may go, with all their names; `committing` is held. They are out of sight at once, under the lock under
    /// which `may` was asked, so that no container begins on them in between; and they come back if the disk refuses.
    pub(crate) async fn remove_records(
        &self,
        ids: &[ImageId],
        may: impl Fn(&State, &ImageId) -> bool,
    ) -> Result<Vec<(Arc<ImageRecord>, Vec<String>)>> {
        let removed: Vec<_> = {
            let mut state = self.state();
            ids.iter().filter_map(|id| if may(&state, id) { state.remove_image(id) } else { None }).collect()
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
