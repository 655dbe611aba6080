//! Images from archives: an OCI image layout or what `docker save` writes, as a tar stream.
//!
//! Owns: which images of an archive are taken, and that all of them become visible or none leaves anything. Must not: trust the archive:
//! every blob is taken by its digest, layers go the same checked way as from a registry, and a name proves nothing (the image's
//! evidence has no source, so image policy judges it by the reference that a pod writes).
//!
//! Of an image for several platforms the node's own is taken. One that is here already gets names alone and keeps the manifest by whose
//! digest it is known.
mod index;
mod plan;
mod spool;

pub(crate) use index::name_annotations;
pub(crate) use spool::Spool;

use crate::commit::Entry;
use crate::flights::{self, Listeners, Wanted};
use crate::image_config;
use crate::pull::{Assembly, BlobSource, Lease, given_up};
use crate::record::{Bundle, Evidence, ImageRecord};
use crate::{Images, refused};
use berth_model::{Digest, ErrorKind, PullProgress, PullStage, Reference, Result, ResultExt};
use berth_registry::{ImageManifest, Platform};
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Decides about a name before anything is made of its image; returns what is to be told to people.
pub type Approve = Box<dyn Fn(&Reference) -> Result<Vec<String>> + Send + Sync>;

/// What to import.
pub struct ImportRequest {
    /// The archive's bytes; an error ends them and the import.
    pub archive: mpsc::Receiver<Result<Bytes>>,
    /// A name for the image, if the archive has one image only.
    pub name: Option<Reference>,
    /// Of images for several platforms, which one.
    pub platform: Platform,
    /// Image policy.
    pub approve: Approve,
    /// Where progress is told.
    pub progress: Option<mpsc::Sender<PullProgress>>,
}

/// What an import gave.
#[derive(Debug, Clone)]
pub struct Imported {
    /// Images with the names that they got, in the archive's order.
    pub images: Vec<(Arc<ImageRecord>, Vec<Reference>)>,
    /// What image policy says to people.
    pub warnings: Vec<String>,
}

/// One image of an archive, ready to be unpacked.
pub(crate) struct Found {
    names: Vec<Reference>,
    manifest_digest: Digest,
    manifest_bytes: Bytes,
    manifest: ImageManifest,
    bundle: Option<Bundle>,
}

/// What there is to say to an import that runs.
struct Job {
    images: Images,
    spool: Arc<Spool>,
    listeners: Listeners,
    wanted: Wanted,
}

impl Images {
    /// Takes the images of an archive in. When this is dropped the import ends where it can, and nothing of it stays.
    ///
    /// Errors: `FailedPrecondition` for an archive that is torn, hostile or incomplete; `NotFound` where it has nothing for this
    /// platform; `ResourceExhausted` for a limit or a full disk; what `approve` refuses.
    pub async fn import(&self, request: ImportRequest) -> Result<Imported> {
        let (images, (wish, wanted)) = (self.clone(), flights::wish());
        let task = tokio::spawn(async move {
            let result = images.import_once(request, wanted).await;
            if result.is_err()
                && let Err(e) = images.collect().await
            {
                tracing::warn!(error = %e, "cannot clean up after an import");
            }
            result
        });
        let result = task.await;
        drop(wish);
        result.map_err(|e| berth_model::Error::internal(format!("the import ended early: {e}")))?
    }

    async fn import_once(&self, request: ImportRequest, wanted: Wanted) -> Result<Imported> {
        let ImportRequest { archive, name, platform, approve, progress } = request;
        let listeners = Listeners::default();
        listeners.add(progress);
        let images = self.clone();
        let reading = self.blocking(move || Spool::read(&images.inner.layout, &images.limits(), archive));
        let spool = Arc::new(reading.await?);
        let (plan, limits) = (spool.clone(), self.limits());
        let mut found = self.blocking(move || plan::plan(&plan, &limits, &platform)).await?;
        if let Some(name) = name {
            match found.as_mut_slice() {
                [only] => only.names = vec![name],
                several => {
                    return Err(refused(
                        "image archive",
                        format!("has {} images, so it cannot be named", several.len()),
                    ));
                }
            }
        }
        let names: Vec<&Reference> = found.iter().flat_map(|f| &f.names).collect();
        let warnings = names.into_iter().map(approve).collect::<Result<Vec<_>>>()?.concat();
        let job = Job { images: self.clone(), spool, listeners, wanted };
        let mut lease = Lease::new(self);
        let mut records = Vec::new();
        for found in found {
            let record = job.unpack(&found, &mut lease).await.context(|| shown(&found))?;
            records.push((record, found.names));
        }
        job.keep_blobs(&records).await?;
        let manifests: Vec<Digest> = records.iter().map(|(record, _)| record.manifest_digest.clone()).collect();
        let entry = |(record, names): &(ImageRecord, Vec<Reference>)| Entry {
            id: record.id.clone(),
            names: names.iter().map(ToString::to_string).collect(),
            evidence: Evidence::default(),
            fresh: Some(record.clone()),
            yields: true,
        };
        let images = self.commit_all(records.iter().map(entry).collect()).await?;
        drop(lease);
        if images.iter().zip(&manifests).any(|(image, manifest)| image.manifest_digest != *manifest) {
            // It was here by another manifest: what this one names is of no use.
            self.sweep_later();
        }
        let names = records.into_iter().map(|(_, names)| names);
        Ok(Imported { images: images.into_iter().zip(names).collect(), warnings })
    }
}

fn shown(found: &Found) -> String {
    found.names.first().map_or_else(|| found.manifest.config.digest.to_string(), ToString::to_string)
}

impl Job {
    /// Unpacks one image.
    async fn unpack(&self, found: &Found, lease: &mut Lease) -> Result<ImageRecord> {
        let Found { manifest, manifest_digest, manifest_bytes, bundle, .. } = found;
        let id = manifest.config.digest.clone();
        let config_bytes = self.small(&manifest.config.digest, self.images.limits().max_config)?;
        let parsed = image_config::parse(&config_bytes, manifest.layers.len(), &self.images.limits())?;
        let chain_ids = image_config::chain_ids(&parsed.diff_ids);
        lease.add([id.clone(), manifest_digest.clone()].into());
        lease.add(chain_ids.iter().chain(manifest.layers.iter().map(|l| &l.digest)).cloned().collect());
        if let Some(bundle) = bundle {
            lease.add(bundle.blobs.iter().chain([&bundle.index]).cloned().collect());
        }
        self.images.keep(manifest_digest.clone(), manifest_bytes.clone()).await?;
        self.images.keep(id.clone(), config_bytes).await?;
        let assembly = Assembly {
            images: self.images.clone(),
            source: BlobSource::Archive(self.spool.clone()),
            listeners: self.listeners.clone(),
            wanted: self.wanted.clone(),
            log: Default::default(),
        };
        let layers = assembly.layers(manifest, &parsed.diff_ids, &chain_ids).await?;
        let size = manifest.config.size + manifest.layers.iter().map(|l| l.size).sum::<u64>();
        self.listeners.tell(&PullProgress { item: String::new(), stage: PullStage::Done, current: size, total: size });
        Ok(ImageRecord {
            id,
            config: parsed.config,
            repo_tags: Vec::new(),
            repo_digests: Vec::new(),
            manifest_digest: manifest_digest.clone(),
            size,
            layers,
            created: parsed.created,
            pulled_at: 0,
            pinned: false,
            evidence: Evidence::default(),
            bundle: bundle.clone(),
        })
    }

    fn small(&self, digest: &Digest, limit: u64) -> Result<Bytes> {
        let file = self.spool.content(digest).ok_or_else(|| refused("image archive", format!("has no {digest}")))?;
        self.spool.small(file, limit)
    }

    /// Moves what stays from the spool into the store: no byte is written a second time.
    async fn keep_blobs(&self, records: &[(ImageRecord, Vec<Reference>)]) -> Result<()> {
        let mut digests: Vec<Digest> = Vec::new();
        if self.images.keeps_layer_blobs() {
            digests.extend(records.iter().flat_map(|(r, _)| r.layers.iter().map(|l| l.digest.clone())));
        }
        let bundles = records.iter().filter_map(|(r, _)| r.bundle.as_ref());
        digests.extend(bundles.flat_map(|b| b.blobs.iter().chain([&b.index]).cloned()));
        digests.sort();
        digests.dedup();
        let (images, spool, wanted) = (self.images.clone(), self.spool.clone(), self.wanted.clone());
        let moving = self.images.blocking(move || {
            for digest in digests {
                if images.state().blobs.contains_key(&digest) {
                    continue;
                }
                if let Some(file) = spool.content(&digest) {
                    std::fs::File::open(&file.path).and_then(|f| f.sync_data()).context(|| file.path.display())?;
                    images.place_blob(images.inner.layout.adopt(file.path.clone()), &digest)?;
                }
            }
            Ok(())
        });
        moving.await?;
        if wanted.is_given_up() {
            return Err(given_up());
        }
        Ok(())
    }
}

/// What an archive that nobody can use is told as.
pub(crate) fn no_image(problem: impl std::fmt::Display) -> berth_model::Error {
    berth_model::Error::new(ErrorKind::NotFound, format!("image archive: {problem}"))
}
