//! What refers to an image on its registry, and what its index brings beside it: signatures, attestations, bills of materials.
//!
//! Owns: that nothing is told which does not prove that it refers to the image. Must not: keep anything, judge what is found (trust does).
use crate::Images;
use berth_model::{Digest, ErrorKind, Reference, Result};
use berth_registry::{Auth, Descriptor, ManifestKind, ReferrersBy, parse_manifest};
use futures_util::{StreamExt, stream};

/// Manifests that are asked for at the same time.
const AT_ONCE: usize = 4;
/// The annotation by which BuildKit says which image of the index an attestation is about (docs/attestations/attestation-storage.md).
const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";
/// What BuildKit's attestations are, for those who look for them by type.
const ATTESTATION: &str = "attestation-manifest";

/// How a referrer was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundBy {
    /// By the registry's referrers API.
    Api,
    /// By the tag that stands in for the API.
    Tag,
    /// In the image's own index.
    Index,
}

impl FoundBy {
    /// A word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Tag => "tag",
            Self::Index => "index",
        }
    }
}

/// Something that refers to an image; that it does is proven by its manifest, or by the image's own index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageReferrer {
    /// Digest of its manifest.
    pub digest: Digest,
    /// What it refers to: the image as it was asked for, or one platform's of its index.
    pub subject: Digest,
    /// Media type of its manifest.
    pub media_type: String,
    /// What it is; may be empty.
    pub artifact_type: String,
    /// Bytes of its manifest.
    pub size: u64,
    /// Annotations, as the list has them.
    pub annotations: std::collections::BTreeMap<String, String>,
    /// How it was found.
    pub by: FoundBy,
}

/// What was found, and what was listed without proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageReferrers {
    /// What the reference stands for.
    pub subject: Digest,
    /// By type, then digest.
    pub list: Vec<ImageReferrer>,
    /// Why something that the registry lists is left out.
    pub refused: Vec<String>,
}

impl Images {
    /// What refers to an image, by its registry. Errors: the registry client's.
    pub async fn referrers(&self, reference: &Reference, auth: &Auth) -> Result<ImageReferrers> {
        let client = self.client();
        let subject = client.resolve_remote(reference, auth).await?.digest;
        let (mut list, mut refused) = (self.beside(reference, &subject, auth).await?, Vec::new());
        let found = client.referrers(reference, &subject, auth).await?;
        let by = match found.by {
            ReferrersBy::Api => FoundBy::Api,
            ReferrersBy::Tag => FoundBy::Tag,
        };
        // Each with what it needs of its own: futures that borrow in a stream cannot be moved between threads.
        let proofs = found.list.into_iter().map(|listed| {
            let (client, reference, subject, auth) = (client.clone(), reference.clone(), subject.clone(), auth.clone());
            async move {
                let about = client.prove_referrer(&reference, &subject, &listed.digest, &auth).await;
                (listed, about)
            }
        });
        let mut proofs = stream::iter(proofs).buffer_unordered(AT_ONCE);
        while let Some((listed, about)) = proofs.next().await {
            match about {
                Ok(about) => list.push(ImageReferrer {
                    digest: listed.digest,
                    subject: subject.clone(),
                    media_type: listed.media_type,
                    artifact_type: about.artifact_type,
                    size: listed.size,
                    annotations: listed.annotations,
                    by,
                }),
                // The list is whole, or it is an error: who asks must not take a registry that failed for one that has nothing.
                Err(e) if !matches!(e.kind(), ErrorKind::FailedPrecondition | ErrorKind::NotFound) => return Err(e),
                Err(e) => refused.push(format!("{}: {}", listed.digest, e.message())),
            }
        }
        list.sort_by(|a, b| (&a.artifact_type, &a.digest).cmp(&(&b.artifact_type, &b.digest)));
        refused.sort();
        Ok(ImageReferrers { subject: subject.clone(), list, refused })
    }

    /// What an image's own index brings beside its images. Empty for a single manifest.
    async fn beside(&self, reference: &Reference, subject: &Digest, auth: &Auth) -> Result<Vec<ImageReferrer>> {
        let raw = self.client().manifest(reference, subject, auth).await?;
        let ManifestKind::Index(entries) = parse_manifest(&raw.bytes, &raw.media_type)? else { return Ok(Vec::new()) };
        Ok(entries.into_iter().filter(Descriptor::is_attestation).map(|entry| attestation(entry, subject)).collect())
    }
}

fn attestation(entry: Descriptor, index: &Digest) -> ImageReferrer {
    let about = entry.annotations.get(REFERENCE_DIGEST).and_then(|text| Digest::parse(text).ok());
    ImageReferrer {
        subject: about.unwrap_or_else(|| index.clone()),
        digest: entry.digest,
        media_type: entry.media_type,
        artifact_type: ATTESTATION.to_owned(),
        size: entry.size,
        annotations: entry.annotations,
        by: FoundBy::Index,
    }
}
