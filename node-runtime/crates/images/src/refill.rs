//! Compressed layers that are not here, fetched again from where the image came from.
//!
//! Owns: which are missing, and who is asked for them. Must not: take bytes that are not exactly those of the digest.
//!
//! A layer lacks its compressed bytes where they are not kept (`spec.runtime.storage.keepCompressedLayers`), and where the pull found it
//! unpacked: another image, or a container, stood on it.
use crate::export::{INDEX, MANIFEST, declared_type};
use crate::layout::Temporary;
use crate::pull::Lease;
use crate::record::ImageRecord;
use crate::{Images, refused};
use berth_model::{Digest, Error, ErrorKind, Reference, Result, ResultExt};
use berth_registry::{Auth, Descriptor, Hasher, ImageManifest, Liars, ManifestKind, parse_manifest};
use bytes::Bytes;
use futures_util::StreamExt;
use std::collections::HashSet;
use std::io::Write;

/// How often the space left on the disk is looked at, in bytes written.
const SPACE_CHECK_EVERY: u64 = 32 << 20;

/// An image with all of its bytes at hand.
pub(crate) struct Complete {
    /// Its manifest, byte for byte.
    pub manifest_bytes: Bytes,
    /// The same, parsed.
    pub manifest: ImageManifest,
    /// The index that it came in, and its media type, where the node has all of it.
    pub index: Option<(Bytes, String)>,
    images: Images,
    /// Layers that came for this alone.
    fetched: Vec<Digest>,
    /// Keeps it all here.
    _lease: Lease,
}

impl Drop for Complete {
    fn drop(&mut self) {
        if self.fetched.is_empty() || self.images.keeps_layer_blobs() {
            return;
        }
        // Leased still; the sweep comes after the lease has ended, by whichever collection is next.
        self.images.state().passing.extend(self.fetched.drain(..));
        self.images.sweep_after(std::time::Duration::from_millis(100));
    }
}

impl Images {
    /// Makes sure that every blob of an image is here, and stays as long as the result lives. `auth` are credentials for a registry, used
    /// for sources there before those that the image was pulled with and the node's own. Errors: `FailedPrecondition` when layers are not here and no registry gives
    /// them again.
    pub(crate) async fn complete(&self, image: &ImageRecord, auth: Option<(&str, &Auth)>) -> Result<Complete> {
        let mut lease = Lease::new(self);
        lease.add(image.blobs().cloned().collect());
        self.look_for(image).await?;
        let manifest_bytes = self.blob_bytes(&image.manifest_digest).await?;
        let manifest =
            match parse_manifest(&manifest_bytes, "").or_else(|_| parse_manifest(&manifest_bytes, MANIFEST))? {
                ManifestKind::Image(manifest) => manifest,
                ManifestKind::Index(_) => {
                    return Err(refused(format!("manifest {}", image.manifest_digest), "is an index"));
                }
            };
        let index = match &image.bundle {
            Some(bundle) => {
                let bytes = self.blob_bytes(&bundle.index).await?;
                let declared = declared_type(&bytes).unwrap_or_else(|| INDEX.to_owned());
                Some((bytes, declared))
            }
            None => None,
        };
        let images = self.clone();
        let mut complete = Complete { manifest_bytes, manifest, index, images, fetched: Vec::new(), _lease: lease };
        for layer in complete.manifest.layers.clone() {
            let here = self.state().blobs.contains_key(&layer.digest);
            if !here {
                self.fetch_again(image, &layer, auth).await?;
                complete.fetched.push(layer.digest);
            }
        }
        Ok(complete)
    }

    /// Takes blobs that the disk has lost out of the table. Errors: `FailedPrecondition` where one is more than a layer.
    async fn look_for(&self, image: &ImageRecord) -> Result<()> {
        let (layout, digests) = (self.inner.layout.clone(), image.blobs().cloned().collect::<Vec<_>>());
        let lost =
            self.blocking(move || Ok(digests.into_iter().filter(|d| !layout.blob(d).exists()).collect::<Vec<_>>()));
        for digest in lost.await? {
            self.state().blobs.remove(&digest);
            if image.layers.iter().all(|layer| layer.digest != digest) {
                return Err(lost_blob(&digest));
            }
        }
        Ok(())
    }

    /// A small blob's bytes. Errors: `FailedPrecondition` for one that the disk has lost.
    pub(crate) async fn blob_bytes(&self, digest: &Digest) -> Result<Bytes> {
        let path = self.inner.layout.blob(digest);
        let read = self.blocking(move || match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::from(e).context(path.display())),
        });
        if let Some(bytes) = read.await? {
            return Ok(bytes.into());
        }
        // A pull fetches what is not known.
        self.state().blobs.remove(digest);
        Err(lost_blob(digest))
    }

    /// From any of the image's sources, the latest first.
    async fn fetch_again(&self, image: &ImageRecord, layer: &Descriptor, auth: Option<(&str, &Auth)>) -> Result<()> {
        let mut asked = HashSet::new();
        let mut problems = Vec::new();
        for source in image.evidence.sources.iter().rev() {
            let source = &source.reference;
            if !asked.insert(source.repository()) {
                continue;
            }
            for (own, by) in self.credentials_for(source, auth) {
                match self.fetch_from(source, layer, &own).await {
                    Ok(()) => return Ok(()),
                    // The same everywhere.
                    Err(e) if e.kind() == ErrorKind::ResourceExhausted => return Err(e),
                    Err(e) => {
                        problems.push(format!("{} (with {by}): {}", source.repository(), e.message()));
                        // Who may not see a repository is told by some registries that there is none.
                        if !matches!(e.kind(), ErrorKind::PermissionDenied | ErrorKind::NotFound) {
                            break;
                        }
                    }
                }
            }
        }
        Err(missing(image, layer, &problems))
    }

    /// What a source may be shown, one after the other. Credentials are for the registry that they were given for, and no other; those
    /// of a pull are for its repository.
    fn credentials_for(&self, source: &Reference, given: Option<(&str, &Auth)>) -> Vec<(Auth, &'static str)> {
        let given = given.filter(|(host, auth)| *host == source.host() && **auth != Auth::Anonymous);
        let given = given.map(|(_, auth)| (auth.clone(), "those given"));
        let pulled = self.inner.remembered.of(&source.repository()).map(|auth| (auth, "those of its pull"));
        let node = Some((Auth::Anonymous, "the node's own credentials"));
        [given, pulled, node].into_iter().flatten().collect()
    }

    async fn fetch_from(&self, source: &Reference, layer: &Descriptor, auth: &Auth) -> Result<()> {
        let mut liars = Liars::default();
        loop {
            let client = self.client();
            let mut stream = client.honest_blob(source, layer, auth, 0, &liars).await?;
            let (temporary, mut file) = self.inner.layout.temporary_file()?;
            let (mut hasher, mut size, mut next_check) = (Hasher::new(), 0, 0);
            while let Some(piece) = stream.next().await {
                let piece = piece?;
                if size >= next_check {
                    self.inner.layout.need_free(self.limits().min_free)?;
                    next_check = size + SPACE_CHECK_EVERY;
                }
                hasher.update(&piece);
                size += piece.len() as u64;
                file = self.blocking(move || file.write_all(&piece).map(|()| file).map_err(Into::into)).await?;
            }
            let digest = hasher.finish();
            if digest == layer.digest {
                return self.place_synced(temporary, file, digest).await;
            }
            if !client.blame_all(source, &stream.mirrors(), &mut liars) {
                return Err(refused(
                    format!("blob {}", layer.digest),
                    format!("was altered on its way: it has digest {digest}"),
                ));
            }
        }
    }

    async fn place_synced(&self, temporary: Temporary, file: std::fs::File, digest: Digest) -> Result<()> {
        let images = self.clone();
        self.blocking(move || {
            file.sync_data().map_err(Error::from).context(|| temporary.path().display())?;
            images.place_blob(temporary, &digest)
        })
        .await
    }
}

fn lost_blob(digest: &Digest) -> Error {
    refused(
        format!("blob {digest}"),
        "is lost on this node's disk: pull the image again, which fetches what is missing",
    )
}

fn missing(image: &ImageRecord, layer: &Descriptor, problems: &[String]) -> Error {
    let remedy = if problems.is_empty() {
        "no registry is known that has it: load the image's archive again with the setting on, or pull the image from a registry that \
         has it"
            .to_owned()
    } else {
        let hosts =
            image.evidence.sources.iter().map(|s| s.reference.host()).collect::<std::collections::BTreeSet<_>>();
        let hosts = hosts.into_iter().collect::<Vec<_>>().join(" or ");
        format!(
            "it cannot be fetched again: {}; make {hosts} reachable, log in there (berth login), or pull the image from a registry that \
             has it, and try again",
            problems.join("; ")
        )
    };
    refused(
        format!("layer {} of image {}", layer.digest, image.id),
        format!(
            "is here unpacked only (spec.runtime.storage.keepCompressedLayers is off, or the pull found it unpacked), and {remedy}"
        ),
    )
}
