//! From references to digests, and the documents behind them.
//!
//! Owns: HEAD and GET of manifests. Must not: choose a platform for the caller.
use crate::auth::Auth;
use crate::client::Client;
use crate::error::Failure;
use crate::exchange::{Ask, content_length, read_limited};
use crate::manifest::{MediaKind, media_type};
use crate::observe::{Observation, Phase};
use crate::site::{Need, Site};
use crate::verify::{Hasher, sha256};
use berth_model::{Digest, Error, ErrorKind, Reference, Result};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, Method};
use std::sync::Arc;

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// What we can use, OCI first.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// How registries say that they do not do HEAD; a GET then tells.
const NO_HEAD: &[u16] = &[400, 405, 501];

/// What a reference stands for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Digest of the manifest or index. From a tag it is the registry's word until [`Client::manifest`] has checked it.
    pub digest: Digest,
    /// Its media type, where the registry was asked.
    pub media_type: Option<String>,
    /// Its size in bytes, where the registry was asked and said it.
    pub size: Option<u64>,
}

/// A manifest or index, byte for byte as its digest names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawManifest {
    /// The bytes; never re-serialise them.
    pub bytes: Bytes,
    /// Media type without parameters, as the registry declares it; empty where it declares none.
    pub media_type: String,
    /// Digest of the bytes.
    pub digest: Digest,
}

impl Client {
    /// The digest behind a reference. One that carries a digest is its own answer and asks nobody.
    ///
    /// Errors: `NotFound`, `PermissionDenied`, and `Unknown` starting `RegistryUnavailable` where the registry cannot be asked.
    pub async fn resolve(&self, reference: &Reference, auth: &Auth) -> Result<Resolved> {
        match reference.digest() {
            Some(digest) => Ok(Resolved { digest: digest.clone(), media_type: None, size: None }),
            None => self.resolve_remote(reference, auth).await,
        }
    }

    /// The same, and the registry is asked even for a digest: does it have it, and may these credentials read it? Errors: as
    /// [`Client::resolve`].
    pub async fn resolve_remote(&self, reference: &Reference, auth: &Auth) -> Result<Resolved> {
        // A digest proves itself, wherever it is found; what a tag stands for is the word of whoever is asked.
        let need = if reference.digest().is_some() { Need::Content } else { Need::Tags };
        self.across(reference.host(), need, |site| self.resolve_at(site, reference, auth)).await
    }

    async fn resolve_at(&self, site: Arc<Site>, reference: &Reference, auth: &Auth) -> Result<Resolved, Failure> {
        let name = tag_or_digest(reference);
        let mut ask = manifest_ask(&site, Method::HEAD, reference, auth, name);
        ask.phase = Phase::Resolve;
        let response = self.exchange().ask(&ask).await?;
        if !NO_HEAD.contains(&response.status().as_u16())
            && let Some(resolved) = head_answer(reference, response.headers())?
        {
            return Ok(resolved);
        }
        let found = self.manifest_at(site, reference, name, auth).await?;
        if let Some(expected) = reference.digest() {
            verify(&found.bytes, expected)?;
        }
        let size = Some(found.bytes.len() as u64);
        Ok(Resolved { digest: found.digest, media_type: Some(found.media_type), size })
    }

    /// The manifest or index with this digest, checked against it. Errors: as [`Client::resolve`], `FailedPrecondition` where
    /// the content has another digest or is of a kind that nobody should use any more, `ResourceExhausted` where it is larger
    /// than the client's `max_manifest_bytes`.
    pub async fn manifest(&self, repo: &Reference, digest: &Digest, auth: &Auth) -> Result<RawManifest> {
        let get = |site| async move {
            let found = self.manifest_at(site, repo, digest.as_str(), auth).await?;
            verify(&found.bytes, digest)?;
            Ok(found)
        };
        self.across(repo.host(), Need::Content, get).await
    }

    pub(crate) async fn manifest_at(
        &self,
        site: Arc<Site>,
        repo: &Reference,
        name: &str,
        auth: &Auth,
    ) -> Result<RawManifest, Failure> {
        let config = self.config();
        let response = self.exchange().ask(&manifest_ask(&site, Method::GET, repo, auth, name)).await?;
        let media_type = content_type(response.headers());
        refuse_schema1(repo, &media_type)?;
        let bytes = read_limited(site.name(), response, config.max_manifest_bytes, config.timeouts.stall).await?;
        self.tell(&Observation::Bytes { place: site.place(), count: bytes.len() as u64 });
        Ok(RawManifest { digest: sha256(&bytes), bytes, media_type })
    }
}

fn manifest_ask<'a>(site: &'a Site, method: Method, repo: &'a Reference, auth: &'a Auth, name: &str) -> Ask<'a> {
    let pass = if method == Method::HEAD { NO_HEAD } else { &[] };
    let ask = Ask::new(site, repo, auth, Phase::Manifest, method, format!("manifests/{name}"));
    Ask { accept: ACCEPT, pass, ..ask }
}

fn tag_or_digest(reference: &Reference) -> &str {
    match (reference.digest(), reference.tag()) {
        (Some(digest), _) => digest.as_str(),
        (None, Some(tag)) => tag.as_str(),
        // A reference has one of them by construction.
        (None, None) => "latest",
    }
}

/// What a HEAD tells; `None` where it tells too little and a GET must follow.
fn head_answer(reference: &Reference, headers: &HeaderMap) -> Result<Option<Resolved>> {
    let media_type = content_type(headers);
    refuse_schema1(reference, &media_type)?;
    let said = headers.get(CONTENT_DIGEST).and_then(|v| v.to_str().ok()).and_then(|d| Digest::parse(d).ok());
    let Some(digest) = said.filter(|_| MediaKind::of(&media_type).is_some()) else { return Ok(None) };
    if reference.digest().is_some_and(|expected| *expected != digest) {
        return Ok(None);
    }
    Ok(Some(Resolved { digest, media_type: Some(media_type), size: content_length(headers) }))
}

fn content_type(headers: &HeaderMap) -> String {
    headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).map(media_type).unwrap_or_default()
}

fn verify(bytes: &[u8], expected: &Digest) -> Result<()> {
    let mut hasher = Hasher::new();
    hasher.update(bytes);
    hasher.verify("manifest", expected)
}

fn refuse_schema1(repo: &Reference, media_type: &str) -> Result<()> {
    if MediaKind::is_schema1(media_type) {
        let text = format!(
            "{}: Docker image manifest version 2 schema 1 is not supported (it proves no digests); push the image again \
             with a tool of this decade",
            repo.repository()
        );
        return Err(Error::new(ErrorKind::FailedPrecondition, text));
    }
    Ok(())
}
