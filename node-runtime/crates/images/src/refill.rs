//! Compressed layers that were not kept, fetched again from where the image came from.
//!
//! Owns: which are missing. Must not: take bytes that are not exactly those of the digest.
use crate::pull::Lease;
use crate::record::ImageRecord;
use crate::{Images, refused};
use berth_model::{Digest, Result, ResultExt};
use berth_registry::{Auth, Descriptor, ImageManifest, ManifestKind, VerifyingStream, parse_manifest};
use bytes::Bytes;
use futures_util::StreamExt;
use std::io::Write;

/// An image with all of its bytes at hand.
pub(crate) struct Complete {
    /// Its manifest, byte for byte.
    pub manifest_bytes: Bytes,
    /// The same, parsed.
    pub manifest: ImageManifest,
    /// Keeps it all here.
    _lease: Lease,
}

impl Images {
    /// Makes sure that every blob of an image is here, and stays as long as the result lives. Errors: `FailedPrecondition` when layers
    /// were not kept and no registry gives them again.
    pub(crate) async fn complete(&self, image: &ImageRecord) -> Result<Complete> {
        let mut lease = Lease::new(self);
        lease.add(image.blobs().cloned().collect());
        let manifest_bytes = self.blob_bytes(&image.manifest_digest).await?;
        let manifest = match parse_manifest(&manifest_bytes, "")
            .or_else(|_| parse_manifest(&manifest_bytes, "application/vnd.oci.image.manifest.v1+json"))?
        {
            ManifestKind::Image(manifest) => manifest,
            ManifestKind::Index(_) => {
                return Err(refused(format!("manifest {}", image.manifest_digest), "is an index"));
            }
        };
        for layer in &manifest.layers {
            let here = self.state().blobs.contains_key(&layer.digest);
            if !here {
                self.fetch_again(image, layer).await?;
            }
        }
        Ok(Complete { manifest_bytes, manifest, _lease: lease })
    }

    /// A small blob's bytes.
    pub(crate) async fn blob_bytes(&self, digest: &Digest) -> Result<Bytes> {
        let path = self.inner.layout.blob(digest);
        self.blocking(move || Ok(std::fs::read(&path).context(|| path.display())?.into())).await
    }

    async fn fetch_again(&self, image: &ImageRecord, layer: &Descriptor) -> Result<()> {
        let mut problem = "no registry is known that has it".to_owned();
        for source in image.evidence.sources.iter().rev() {
            let client = self.client();
            let stream = match client.blob(&source.reference, layer, &Auth::Anonymous, 0).await {
                Ok(stream) => stream,
                Err(e) => {
                    problem = e.message().to_owned();
                    continue;
                }
            };
            let mut stream = VerifyingStream::new(stream, layer.digest.clone(), layer.size);
            let (temporary, mut file) = self.inner.layout.temporary_file()?;
            while let Some(piece) = stream.next().await {
                let piece = piece?;
                file = self.blocking(move || file.write_all(&piece).map(|()| file).map_err(Into::into)).await?;
            }
            let (images, digest) = (self.clone(), layer.digest.clone());
            return self
                .blocking(move || {
                    file.sync_data().map_err(Into::into).and_then(|()| images.place_blob(temporary, &digest))
                })
                .await;
        }
        Err(refused(
            format!("layer {} of image {}", layer.digest, image.id),
            format!(
                "was not kept (spec.runtime.storage.keepCompressedLayers), and cannot be fetched again: {problem}; remove the image \
                 and pull it again with the setting on"
            ),
        ))
    }
}
