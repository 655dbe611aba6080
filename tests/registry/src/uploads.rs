//! Pushing: upload sessions, blobs, manifests.
//!
//! Owns: what PUT, POST, PATCH and DELETE do. Must not: answer reads.
//! Source: OCI distribution spec 1.1, "Pushing blobs", "Pushing manifests".
use crate::auth::query_pairs;
use crate::routes::{Answer, CONTENT_DIGEST, Target};
use crate::sha256;
use crate::state::State;
use berth_model::Digest;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, LOCATION, RANGE};
use http::request::Parts;
use http::{Method, StatusCode};

const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// POST, PATCH and PUT below `blobs/uploads/`, and DELETE of a blob.
pub(crate) fn blob(state: &mut State, parts: &Parts, target: &Target<'_>, body: &Bytes) -> Answer {
    let query = query_pairs(parts.uri.query().unwrap_or_default());
    let get = |key: &str| query.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
    let session = target.last.strip_prefix("uploads").map(|s| s.trim_start_matches('/'));
    match (&parts.method, session) {
        (&Method::POST, Some("")) => {
            if let Some(digest) = get("digest") {
                return complete(state, target.repo, digest, body.to_vec());
            }
            if let Some(digest) = get("mount").and_then(|d| Digest::parse(d).ok())
                && state.blobs.contains_key(&digest)
            {
                return created(target.repo, "blobs", &digest);
            }
            let id = format!("upload-{}", state.next_serial());
            state.uploads.insert(id.clone(), Vec::new());
            accepted(target.repo, &id, 0)
        }
        (&Method::PATCH, Some(id)) => match state.uploads.get_mut(id) {
            Some(upload) => {
                upload.extend_from_slice(body);
                accepted(target.repo, id, upload.len())
            }
            None => unknown_upload(),
        },
        (&Method::PUT, Some(id)) => match (state.uploads.remove(id), get("digest")) {
            (Some(mut upload), Some(digest)) => {
                upload.extend_from_slice(body);
                complete(state, target.repo, digest, upload)
            }
            (Some(_), None) => Answer::error(StatusCode::BAD_REQUEST, "DIGEST_INVALID", "digest is missing"),
            (None, _) => unknown_upload(),
        },
        (&Method::GET, Some(id)) => match state.uploads.get(id) {
            Some(upload) => accepted(target.repo, id, upload.len()).with_status(StatusCode::NO_CONTENT),
            None => unknown_upload(),
        },
        _ => Answer::error(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "not for blobs"),
    }
}

/// PUT and DELETE of a manifest.
pub(crate) fn manifest(state: &mut State, parts: &Parts, target: &Target<'_>, body: Bytes) -> Answer {
    let digest = sha256(&body);
    let by_digest = Digest::parse(target.last).ok();
    let repo = state.repos.entry(target.repo.to_owned()).or_default();
    match parts.method {
        Method::PUT => {
            if by_digest.as_ref().is_some_and(|d| *d != digest) {
                return Answer::error(StatusCode::BAD_REQUEST, "DIGEST_INVALID", "body has another digest");
            }
            let media_type = parts.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
            repo.manifests.insert(digest.clone(), (media_type.to_owned(), body));
            if by_digest.is_none() {
                repo.tags.insert(target.last.to_owned(), digest.clone());
            }
            created(target.repo, "manifests", &digest)
        }
        Method::DELETE => {
            let found = match by_digest {
                Some(digest) => {
                    repo.tags.retain(|_, d| *d != digest);
                    repo.manifests.remove(&digest).is_some()
                }
                None => repo.tags.remove(target.last).is_some(),
            };
            Answer::status(if found { StatusCode::ACCEPTED } else { StatusCode::NOT_FOUND })
        }
        _ => Answer::error(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "not for manifests"),
    }
}

fn complete(state: &mut State, repo: &str, digest: &str, bytes: Vec<u8>) -> Answer {
    let digest = match Digest::parse(digest) {
        Ok(digest) if digest == sha256(&bytes) => digest,
        _ => return Answer::error(StatusCode::BAD_REQUEST, "DIGEST_INVALID", "content has another digest"),
    };
    state.blobs.insert(digest.clone(), bytes.into());
    created(repo, "blobs", &digest)
}

fn created(repo: &str, kind: &str, digest: &Digest) -> Answer {
    let mut answer = Answer::status(StatusCode::CREATED);
    answer.header(LOCATION, &format!("/v2/{repo}/{kind}/{digest}"));
    answer.header(CONTENT_DIGEST, digest.as_str());
    answer
}

fn accepted(repo: &str, id: &str, length: usize) -> Answer {
    let mut answer = Answer::status(StatusCode::ACCEPTED);
    answer.header(LOCATION, &format!("/v2/{repo}/blobs/uploads/{id}"));
    answer.header(UPLOAD_UUID, id);
    answer.header(RANGE, &format!("0-{}", length.saturating_sub(1)));
    answer
}

fn unknown_upload() -> Answer {
    Answer::error(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN", "no such upload")
}
