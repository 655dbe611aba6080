//! One push: the blobs of an image, side by side, then its manifest.
//!
//! Owns: what belongs to an image on a registry, and the order. Must not: speak HTTP (the registry client does).
//!
//! An image that came in an index of which the node has everything (its attestations) goes as that index, so that its digest stays; else
//! as the one manifest of the node's platform.
use crate::Images;
use crate::export::manifest_type;
use crate::record::ImageRecord;
use crate::refill::Complete;
use berth_model::{Digest, Error, PullProgress, PullStage, Reference, Result};
use berth_registry::{Auth, Descriptor, ManifestKind, Pushed, Upload, parse_manifest};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Blobs on their way at once.
const AT_ONCE: usize = 3;
/// Digits of a digest that name a blob to people.
const SHORT: usize = 12;

/// What to push.
pub struct PushRequest {
    /// The image: a name or an id.
    pub image: String,
    /// Where to, with the tag.
    pub target: Reference,
    /// Credentials.
    pub auth: Auth,
    /// Where progress is told. A listener that does not keep up misses some.
    pub progress: Option<mpsc::Sender<PullProgress>>,
}

/// What a push did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushOutcome {
    /// What the tag stands for now.
    pub digest: Digest,
    /// Bytes of that document.
    pub size: u64,
    /// Whether it is an index.
    pub index: bool,
    /// Blobs that were there, that were mounted, and that were sent.
    pub blobs: [usize; 3],
    /// Bytes that were sent.
    pub sent: u64,
}

/// A manifest or index, in the order in which they go.
struct Document {
    digest: Digest,
    media_type: String,
    bytes: Bytes,
}

impl Images {
    /// Pushes an image. Blobs that the registry has are not sent; those of another repository there are mounted. When this is dropped
    /// the push ends. Errors: `NotFound` for the image; the registry client's; `FailedPrecondition` for layers that were not kept.
    pub async fn push(&self, request: PushRequest) -> Result<PushOutcome> {
        let PushRequest { image: text, target, auth, progress } = request;
        let image = self.find(&text)?.ok_or_else(|| Error::not_found("image", &text))?;
        let complete = self.complete(&image, Some((target.host(), &auth))).await?;
        let (documents, blobs) = self.contents(&image, &complete).await?;
        let client = self.client();
        let uploads: Vec<Upload> =
            blobs.into_iter().map(|blob| self.upload(&image, &target, blob, &progress)).collect();
        // Each with what it needs of its own: futures that borrow in a stream cannot be moved between threads.
        let sending = uploads.into_iter().map(|upload| {
            let (client, target, auth, progress) = (client.clone(), target.clone(), auth.clone(), progress.clone());
            async move {
                let pushed = client.push_blob(&target, &upload, &auth).await?;
                let stage = if pushed == Pushed::Uploaded { PullStage::Done } else { PullStage::Exists };
                tell(progress.as_ref(), &upload.descriptor, stage, upload.descriptor.size);
                Ok::<_, Error>((pushed, upload.descriptor.size))
            }
        });
        let pushed: Vec<(Pushed, u64)> = stream::iter(sending).buffer_unordered(AT_ONCE).try_collect().await?;
        let last = documents.len().saturating_sub(1);
        for (n, document) in documents.iter().enumerate() {
            let name = if n == last { target.clone() } else { target.with_digest_only(document.digest.clone()) };
            client.push_manifest(&name, &document.media_type, &document.bytes, &auth).await?;
        }
        let document = documents.last().ok_or_else(|| Error::internal("an image without a manifest"))?;
        let count = |kind: Pushed| pushed.iter().filter(|(p, _)| *p == kind).count();
        Ok(PushOutcome {
            digest: document.digest.clone(),
            size: document.bytes.len() as u64,
            index: complete.index.is_some(),
            blobs: [Pushed::Existed, Pushed::Mounted, Pushed::Uploaded].map(count),
            sent: pushed.iter().filter(|(p, _)| *p == Pushed::Uploaded).map(|(_, size)| size).sum(),
        })
    }

    /// Everything that belongs to an image: manifests, each after what it names, and blobs.
    async fn contents(&self, image: &ImageRecord, complete: &Complete) -> Result<(Vec<Document>, Vec<Descriptor>)> {
        let mut blobs: HashMap<Digest, Descriptor> = HashMap::new();
        let mut take = |found: &[Descriptor]| blobs.extend(found.iter().map(|d| (d.digest.clone(), d.clone())));
        take(&complete.manifest.layers);
        take(std::slice::from_ref(&complete.manifest.config));
        let own = Document {
            digest: image.manifest_digest.clone(),
            media_type: manifest_type(&complete.manifest_bytes),
            bytes: complete.manifest_bytes.clone(),
        };
        let mut documents = vec![own];
        if let (Some(bundle), Some((index, media_type))) = (&image.bundle, &complete.index) {
            let entries = match parse_manifest(index, media_type)? {
                ManifestKind::Index(entries) => entries,
                ManifestKind::Image(_) => return Err(Error::internal(format!("index {} is none", bundle.index))),
            };
            for entry in entries.iter().filter(|e| e.digest != image.manifest_digest) {
                let bytes = self.blob_bytes(&entry.digest).await?;
                if let ManifestKind::Image(beside) = parse_manifest(&bytes, &entry.media_type)? {
                    take(&beside.layers);
                    take(std::slice::from_ref(&beside.config));
                }
                let (digest, media_type) = (entry.digest.clone(), entry.media_type.clone());
                documents.push(Document { digest, media_type, bytes });
            }
            let (digest, media_type) = (bundle.index.clone(), media_type.clone());
            documents.push(Document { digest, media_type, bytes: index.clone() });
        }
        Ok((documents, blobs.into_values().collect()))
    }

    fn upload(
        &self,
        image: &ImageRecord,
        target: &Reference,
        descriptor: Descriptor,
        progress: &Option<mpsc::Sender<PullProgress>>,
    ) -> Upload {
        // Another repository of that registry, if the image has a name there.
        let names = image.repo_digests.iter().chain(&image.repo_tags);
        let from = names.chain(image.evidence.sources.iter().map(|s| &s.reference));
        let mut from = from.filter(|n| n.host() == target.host() && n.path() != target.path());
        let from = from.next().cloned();
        let (file, listener) = (self.inner.layout.blob(&descriptor.digest), progress.clone());
        let named = Arc::new(descriptor.clone());
        let tell = move |bytes: u64| tell(listener.as_ref(), &named, PullStage::Uploading, bytes);
        Upload { descriptor, file, from, tell: Box::new(tell) }
    }
}

fn tell(listener: Option<&mpsc::Sender<PullProgress>>, blob: &Descriptor, stage: PullStage, current: u64) {
    let item = blob.digest.hex()[..SHORT].to_owned();
    if let Some(listener) = listener {
        // One that does not keep up misses some.
        let _ = listener.try_send(PullProgress { item, stage, current, total: blob.size });
    }
}
