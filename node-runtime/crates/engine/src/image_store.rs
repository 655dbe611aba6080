//! The image store's use cases beside pulling: names, archives, pushes, the disk.
//!
//! Owns: what policy says about names that come in by an archive, and that the store keeps to its settings. Must not: decide which images
//! may go (that is the images' knowledge).
use crate::context::Engine;
use crate::image::platform_of;
use crate::pod::stop::run_to_end;
use berth_images::{
    CollectionTotals, ImageRecord, ImageReferrers, ImportRequest, Imported, Prune, Pruned, PushOutcome, PushRequest,
    Removed, Step, StoreLimits, StoreUsage,
};
use berth_model::{Error, ImageId, PullProgress, Reference, Result};
use berth_registry::Auth;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// How often the store's limits are looked at; pulls are what changes much.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// What to push.
pub struct PushSpec {
    /// The image: a name or an id.
    pub image: String,
    /// Where to; empty is the image's own name.
    pub target: String,
    /// Credentials.
    pub auth: Auth,
    /// Where progress goes.
    pub progress: Option<mpsc::Sender<PullProgress>>,
}

/// What to import.
pub struct ImportSpec {
    /// The archive; an error ends it.
    pub archive: mpsc::Receiver<Result<Bytes>>,
    /// A name for the only image; empty keeps the archive's.
    pub name: String,
    /// Of images for several platforms, which one; empty is the node's.
    pub platform: String,
    /// Namespace whose policies apply to the names; empty is unknown: the strictest set.
    pub namespace: String,
    /// Where progress goes.
    pub progress: Option<mpsc::Sender<PullProgress>>,
}

impl Engine {
    /// Gives an image a further name. Errors: `NotFound`, `InvalidArgument`.
    pub async fn tag_image(self: &Arc<Self>, image: &str, name: &str) -> Result<Arc<ImageRecord>> {
        let (engine, image, name) = (self.clone(), image.to_owned(), Reference::parse(name)?);
        run_to_end(async move { engine.images.tag(&image, &name).await }).await
    }

    /// Removes one name of an image, and the image with its last one. Errors: `NotFound`; `FailedPrecondition` for one that is used or
    /// pinned, unless `force`.
    pub async fn untag_image(self: &Arc<Self>, name: &str, force: bool) -> Result<Removed> {
        let (engine, name) = (self.clone(), name.to_owned());
        run_to_end(async move { engine.images.untag(&name, force).await }).await
    }

    /// Removes images that nobody uses.
    pub async fn prune_images(self: &Arc<Self>, prune: Prune) -> Result<Pruned> {
        let engine = self.clone();
        let pruned = run_to_end(async move { engine.images.prune(&prune).await }).await?;
        tracing::info!(images = pruned.deleted.len(), bytes = pruned.bytes, "unused images are removed");
        Ok(pruned)
    }

    /// How an image came to be, newest step first, with its id. Errors: `NotFound`.
    pub async fn image_history(&self, name: &str) -> Result<(ImageId, Vec<Step>)> {
        let image = self.images.find(name)?.ok_or_else(|| Error::not_found("image", name))?;
        Ok((image.id.clone(), self.images.history(image.id.as_str()).await?))
    }

    /// What refers to an image on its registry. Errors: the registry client's.
    pub async fn image_referrers(&self, reference: &Reference, auth: &Auth) -> Result<ImageReferrers> {
        self.images.referrers(reference, auth).await
    }

    /// What images and containers take on disk; containers counted anew where that takes a moment.
    pub async fn disk_usage(self: &Arc<Self>) -> Result<StoreUsage> {
        let owners = self.images.rootfs_owners();
        self.layers(owners).await;
        self.images.store_usage()
    }

    /// What collections have removed since the daemon began.
    pub fn image_collection(&self) -> CollectionTotals {
        self.images.collection_totals()
    }

    /// Takes the images of an archive in. Image policy decides about each name, as at a pull. Errors: `PolicyDenied`; the store's.
    pub async fn import_images(self: &Arc<Self>, spec: ImportSpec) -> Result<Imported> {
        let ImportSpec { archive, name, platform, namespace, progress } = spec;
        let platform = platform_of(&platform)?;
        let name = if name.is_empty() { None } else { Some(Reference::parse(&name)?) };
        let engine = self.clone();
        let approve = Box::new(move |name: &Reference| engine.decide_reference(&namespace, name));
        let imported = self.images.import(ImportRequest { archive, name, platform, approve, progress }).await?;
        for (image, names) in &imported.images {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            tracing::info!(image = %image.id, ?names, "image is imported");
        }
        Ok(imported)
    }

    /// Writes images into one archive. Errors: `NotFound`; `FailedPrecondition` for layers that were not kept.
    pub async fn export_images(&self, names: &[String]) -> Result<mpsc::Receiver<Result<Bytes>>> {
        self.images.export(names).await
    }

    /// Pushes an image. Returns where to, and what that is now. Errors: the store's and the registry client's.
    pub async fn push_image(&self, spec: PushSpec) -> Result<(Reference, PushOutcome)> {
        let PushSpec { image, target, auth, progress } = spec;
        let target = if target.is_empty() { self.own_name(&image)? } else { Reference::parse(&target)? };
        let request = PushRequest { image, target: target.clone(), auth, progress };
        let outcome = self.images.push(request).await?;
        tracing::info!(target = %target, digest = %outcome.digest, sent = outcome.sent, "image is pushed");
        Ok((target, outcome))
    }

    /// A text as the place to push to: it must be a name of its image. An id would be read as a repository of the default registry.
    fn own_name(&self, text: &str) -> Result<Reference> {
        let image = self.images.find(text)?.ok_or_else(|| Error::not_found("image", text))?;
        let name = Reference::parse(text).ok().map(|name| match name.digest() {
            Some(digest) => name.with_digest_only(digest.clone()),
            None => name,
        });
        let name = name.filter(|name| image.repo_tags.contains(name) || image.repo_digests.contains(name));
        name.ok_or_else(|| {
            Error::invalid(
                "target",
                format!(
                    "{text} is no name of the image: say where to push it, as in `berth push {text} REGISTRY/NAME:TAG`"
                ),
            )
        })
    }

    /// Keeps the image store to its settings, live, until the settings end.
    pub async fn follow_storage(self: Arc<Self>) {
        let mut settings = self.settings.clone();
        let mut told_over = false;
        loop {
            let storage = settings.borrow_and_update().storage.clone();
            self.images.keep_layer_blobs(storage.keep_compressed_layers);
            self.images.set_pinned(&storage.pinned);
            let limits = StoreLimits {
                high: storage.high,
                low: storage.low,
                max_bytes: storage.max_bytes,
                min_age: Duration::from_secs(storage.min_age_seconds),
            };
            if limits.high.is_some() || limits.max_bytes.is_some() {
                told_over = self.keep_storage(&limits, told_over).await;
            }
            tokio::select! {
                changed = settings.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// One look at the limits. Whether the store is over them is told when it begins, not at each look; returns it.
    async fn keep_storage(&self, limits: &StoreLimits, told_over: bool) -> bool {
        let pruned = match self.images.keep_within(limits).await {
            Ok(pruned) => pruned,
            Err(e) => {
                tracing::warn!(error = %e, "the image store cannot be kept within its limits");
                return told_over;
            }
        };
        if !pruned.deleted.is_empty() {
            tracing::info!(images = ?pruned.untagged, bytes = pruned.bytes, "images are removed to keep the store's limits");
        }
        if pruned.over > 0 && !told_over {
            tracing::warn!(bytes = pruned.over, "the image store is over its limit, and nothing more may be removed");
        }
        pruned.over > 0
    }
}
