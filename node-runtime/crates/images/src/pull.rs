//! One pull: manifest, configuration, layers.
//!
//! Owns: the order of a pull, what runs in parallel, and that a failure leaves nothing but garbage that is removed. Must not:
//! speak HTTP (the registry client does), or make anything visible (that is [`crate::commit`]).
mod layers;

pub(crate) use layers::{Assembly, BlobSource};

use crate::flights::{Listeners, Wanted};
use crate::image_config::{self, ParsedConfig};
use crate::layout::Temporary;
use crate::record::{Evidence, ImageRecord};
use crate::state::Blob;
use crate::{Images, refused};
use berth_model::{
    ByteSource, Digest, Error, ErrorKind, ImageId, Observation, PhaseLog, PullPhase, PullProgress, PullStage,
    Reference, Result,
};
use berth_registry::{Auth, Descriptor, ImageManifest, ManifestKind, Platform, parse_manifest, select_platform};
use bytes::Bytes;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Configurations that are of images; anything else is an artifact.
const CONFIG_TYPES: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
/// Layers that are archives. How they are compressed their first bytes tell.
const LAYER_TYPES: [&str; 10] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
];

/// Indexes on the way to an image. One is common; a few publishers put theirs into another.
const MAX_NESTED: usize = 3;

/// How long the finished layers of a pull that a registry failed wait for the next attempt. The kubelet's longest pause between two
/// attempts is five minutes.
const KEEP_PARTIAL: Duration = Duration::from_secs(600);

/// What to pull.
#[derive(Debug, Clone)]
pub struct PullRequest {
    /// As the user wrote it, completed.
    pub reference: Reference,
    /// What it was resolved to: the digest of a manifest or an index.
    pub digest: Digest,
    /// Of an image for several platforms, which one.
    pub platform: Platform,
    /// Credentials.
    pub auth: Auth,
    /// What trust found out about this digest; stored with the image.
    pub evidence: Evidence,
    /// Where progress is told. A listener that does not keep up misses some.
    pub progress: Option<mpsc::Sender<PullProgress>>,
    /// Where its phases are noted, named `pull/fetch/…`. A pull that joins an equal one has none of its own.
    pub log: PhaseLog,
}

/// A pull that runs.
struct Pull {
    images: Images,
    request: PullRequest,
    listeners: Listeners,
    wanted: Wanted,
}

/// Keeps blobs and snapshots from the collector while a pull needs them.
pub(crate) struct Lease {
    images: Images,
    digests: Vec<Digest>,
    /// How long they stay after its end.
    keep: Duration,
}

impl Lease {
    /// One without content.
    pub(crate) fn new(images: &Images) -> Self {
        Self { images: images.clone(), digests: Vec::new(), keep: Duration::ZERO }
    }

    /// Adds to it. What is added before one looks whether it is here stays here.
    pub(crate) fn add(&mut self, digests: Vec<Digest>) {
        self.images.state().lease(&digests);
        self.digests.extend(digests);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = self.images.state();
        state.release(&self.digests);
        if !self.keep.is_zero() {
            state.retained.push((Instant::now() + self.keep, std::mem::take(&mut self.digests)));
        }
    }
}

impl Images {
    /// Pulls an image, or joins an equal pull. What is here already is not fetched again.
    ///
    /// When this is dropped the pull goes on for the others that wait for it. When it was the last one, nothing more is fetched, and
    /// what is half-done is removed at once; layers that were finished stay for a while, so that the next attempt begins with them.
    /// A pull that has begun to become visible becomes so.
    ///
    /// Errors: the registry client's (`Unknown` starting `RegistryUnavailable`, `NotFound`, `PermissionDenied`); `FailedPrecondition` for
    /// content that is not as promised or unsafe; `ResourceExhausted` for a limit or a full disk. A pull that fails leaves no
    /// file behind.
    pub async fn fetch(&self, request: PullRequest) -> Result<Arc<ImageRecord>> {
        let images = self.clone();
        let start = |request, listeners, wanted| Pull { images, request, listeners, wanted }.run();
        self.inner.flights.join(request, start).await
    }

    /// The configuration of an image, byte for byte as it was pulled. Errors: `NotFound`.
    pub async fn config_document(&self, id: &ImageId) -> Result<Vec<u8>> {
        if self.state().image(id).is_none() {
            return Err(berth_model::Error::not_found("image", id));
        }
        Ok(self.blob_bytes(id).await?.into())
    }
}

impl Images {
    /// Writes a small blob into the store. It is leased by now.
    pub(crate) async fn keep(&self, digest: Digest, bytes: Bytes) -> Result<()> {
        let images = self.clone();
        self.blocking(move || {
            if images.state().blobs.contains_key(&digest) {
                return Ok(());
            }
            let layout = &images.inner.layout;
            let (temporary, mut file) = layout.temporary_file()?;
            file.write_all(&bytes)?;
            file.sync_data()?;
            images.place_blob(temporary, &digest)
        })
        .await
    }

    /// Gives a whole, checked and synced blob its place.
    pub(crate) fn place_blob(&self, file: Temporary, digest: &Digest) -> Result<()> {
        let blob = Blob::at(file.path())?;
        let _placing = self.placing();
        file.commit(&self.inner.layout.new_blob(digest))?;
        let mut state = self.state();
        state.blobs.insert(digest.clone(), blob);
        state.passing.remove(digest);
        Ok(())
    }
}

impl Pull {
    async fn run(self) -> Result<Arc<ImageRecord>> {
        let mut lease = Lease::new(&self.images);
        let result = self.run_once(&mut lease).await;
        match &result {
            Ok(image) => {
                self.remember();
                self.tell("", PullStage::Done, image.size, image.size);
            }
            // Asking again may help: then the layers that were finished are not fetched again.
            Err(e) if matches!(e.kind(), ErrorKind::Unknown | ErrorKind::Unavailable | ErrorKind::DeadlineExceeded) => {
                lease.keep = KEEP_PARTIAL;
                drop(lease);
                self.images.sweep_after(KEEP_PARTIAL + Duration::from_secs(1));
            }
            // Waited for, so that the caller finds the disk as it was.
            Err(_) => {
                drop(lease);
                if let Err(e) = self.images.collect().await {
                    tracing::warn!(error = %e, "cannot clean up after a pull");
                }
            }
        }
        result
    }

    /// Keeps the credentials in mind that led here.
    fn remember(&self) {
        let PullRequest { reference, auth, .. } = &self.request;
        if *auth == Auth::Anonymous {
            return;
        }
        let images = self.images.list();
        let sources = images.iter().flat_map(|image| &image.evidence.sources);
        let here: std::collections::HashSet<String> = sources.map(|source| source.reference.repository()).collect();
        self.images.inner.remembered.keep(reference.repository(), auth, |other| here.contains(other));
    }

    async fn run_once(&self, lease: &mut Lease) -> Result<Arc<ImageRecord>> {
        if let Some(id) = self.present() {
            match self.images.commit(&self.request, &id, None).await {
                // Removed between the two: fetch it.
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                other => return other,
            }
        }
        let manifest = self.timed("manifest", PullPhase::Fetch, self.unless_given_up(self.manifest()));
        let (manifest_digest, manifest_bytes, manifest) = manifest.await?;
        check_types(&manifest)?;
        let id = manifest.config.digest.clone();
        lease.add(vec![id.clone(), manifest_digest.clone()]);
        let config = self.unless_given_up(self.config(&manifest.config));
        let config_bytes = self.timed("config", PullPhase::Fetch, config).await?;
        let parsed = image_config::parse(&config_bytes, manifest.layers.len(), &self.images.limits())?;
        let chain_ids = image_config::chain_ids(&parsed.diff_ids);
        lease.add(chain_ids.iter().chain(manifest.layers.iter().map(|l| &l.digest)).cloned().collect());
        for (digest, bytes) in [(&manifest_digest, manifest_bytes), (&id, config_bytes)] {
            self.images.keep(digest.clone(), bytes).await?;
        }
        let layers = self.assembly().layers(&manifest, &parsed.diff_ids, &chain_ids).await?;
        let ParsedConfig { config, created, .. } = parsed;
        let fresh = ImageRecord {
            id: id.clone(),
            config,
            repo_tags: Vec::new(),
            repo_digests: Vec::new(),
            manifest_digest,
            size: manifest.config.size + manifest.layers.iter().map(|l| l.size).sum::<u64>(),
            layers,
            created,
            pulled_at: 0,
            pinned: false,
            evidence: Evidence::default(),
            bundle: None,
        };
        self.timed("commit", PullPhase::Commit, self.images.commit(&self.request, &id, Some(fresh))).await
    }

    /// Runs a step, and tells what it took.
    async fn timed<T>(&self, name: &str, phase: PullPhase, step: impl Future<Output = Result<T>>) -> Result<T> {
        let begun = Instant::now();
        let done = step.await;
        self.took(name, phase, begun, begun.elapsed());
        done
    }

    fn took(&self, name: &str, phase: PullPhase, begun: Instant, took: Duration) {
        let PullRequest { reference, log, .. } = &self.request;
        log.add_lasting(format!("pull/fetch/{name}"), begun, took);
        self.images.inner.config.observer.tell(Observation::PullPhase { registry: reference.host(), phase, took });
    }

    /// Follows a request that can be dropped midway.
    async fn unless_given_up<T>(&self, request: impl Future<Output = Result<T>>) -> Result<T> {
        let mut wanted = self.wanted.clone();
        tokio::select! {
            () = wanted.given_up() => Err(given_up()),
            result = request => result,
        }
    }

    /// The image, if this digest is here with all of its layers, its manifest and its configuration.
    fn present(&self) -> Option<ImageId> {
        let state = self.images.state();
        let image = state.image_by_digest(&self.request.digest)?;
        // Which variant is here nobody has written down: another one than the node's usual is looked for anew.
        if !state.is_whole(image) || self.request.platform != Platform::host() {
            return None;
        }
        self.tell("", PullStage::Exists, image.size, image.size);
        let bytes = image.layers.iter().map(|l| l.size).sum();
        self.images.inner.config.observer.tell(Observation::PullBytes { source: ByteSource::Present, bytes });
        Some(image.id.clone())
    }

    /// The manifest for this platform, with its digest and bytes.
    async fn manifest(&self) -> Result<(Digest, Bytes, ImageManifest)> {
        let PullRequest { reference, digest, auth, .. } = &self.request;
        let client = self.images.client();
        self.tell("", PullStage::Resolving, 0, 0);
        let mut digest = digest.clone();
        for _ in 0..=MAX_NESTED {
            let raw = client.manifest(reference, &digest, auth).await?;
            digest = match parse_manifest(&raw.bytes, &raw.media_type)? {
                ManifestKind::Image(manifest) => return Ok((raw.digest, raw.bytes, manifest)),
                ManifestKind::Index(entries) => {
                    let most = self.images.limits().max_index_entries;
                    if entries.len() > most {
                        let problem = format!("has {} entries, more than {most} (maxIndexEntries)", entries.len());
                        return Err(refused("image index", problem));
                    }
                    select_platform(&entries, &self.request.platform)?.digest.clone()
                }
            };
        }
        Err(refused(
            "image index",
            format!("names indexes inside indexes, deeper than the {MAX_NESTED} that are followed"),
        ))
    }

    async fn config(&self, descriptor: &Descriptor) -> Result<Bytes> {
        let PullRequest { reference, auth, .. } = &self.request;
        let limit = self.images.limits().max_config;
        self.images.client().small_blob(reference, descriptor, auth, limit).await
    }

    /// The layers' way to the disk.
    fn assembly(&self) -> Assembly {
        let PullRequest { reference, auth, .. } = &self.request;
        Assembly {
            images: self.images.clone(),
            source: BlobSource::Registry { reference: reference.clone(), auth: auth.clone() },
            listeners: self.listeners.clone(),
            wanted: self.wanted.clone(),
            log: self.request.log.clone(),
        }
    }

    fn tell(&self, item: &str, stage: PullStage, current: u64, total: u64) {
        self.listeners.tell(&PullProgress { item: item.to_owned(), stage, current, total });
    }
}

pub(crate) fn given_up() -> Error {
    Error::new(ErrorKind::Unavailable, "the pull was given up by all who waited for it")
}

pub(crate) fn check_types(manifest: &ImageManifest) -> Result<()> {
    let config = manifest.config.media_type.as_str();
    if !CONFIG_TYPES.contains(&config) {
        return Err(refused(
            "image manifest",
            format!("has a configuration of type {config:?}: an artifact, not an image"),
        ));
    }
    match manifest.layers.iter().find(|l| !LAYER_TYPES.contains(&l.media_type.as_str())) {
        Some(layer) => Err(refused(
            "image manifest",
            format!("has a layer of type {:?}, which is not supported", layer.media_type),
        )),
        None => Ok(()),
    }
}
