//! The distribution API: paths to answers.
//!
//! Owns: pull and listing; hands uploads and tokens on. Must not: misbehave; faults are bent in afterwards.
//! Source: OCI distribution spec 1.1, "Endpoints".
use crate::state::State;
use crate::{auth, uploads};
use berth_model::Digest;
use bytes::Bytes;
use http::header::{ACCEPT_RANGES, CONTENT_RANGE, CONTENT_TYPE, HeaderName, HeaderValue, LINK, RANGE};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use serde_json::json;

/// The digest of what is sent.
/// Referrers in one page.
const REFERRERS_AT_ONCE: usize = 50;
pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// An answer before faults.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn status(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), body: Bytes::new() }
    }

    pub fn json(status: StatusCode, value: &serde_json::Value) -> Self {
        let mut answer = Self::status(status);
        answer.header(CONTENT_TYPE, "application/json");
        answer.body = value.to_string().into();
        answer
    }

    /// The spec's error document.
    pub fn error(status: StatusCode, code: &str, message: &str) -> Self {
        Self::json(status, &json!({"errors": [{"code": code, "message": message}]}))
    }

    pub fn header(&mut self, name: HeaderName, value: &str) {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
    }

    /// The same answer with another status.
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Changes the first byte of the body.
    pub fn corrupt(&mut self) {
        let mut bytes = self.body.to_vec();
        if let Some(first) = bytes.first_mut() {
            *first ^= 0xff;
        }
        self.body = bytes.into();
    }
}

/// Answers one request.
pub(crate) fn answer(state: &mut State, parts: &Parts, body: Bytes, honour_range: bool) -> Answer {
    let path = parts.uri.path();
    if path == "/token" {
        return auth::token(state, parts, &body);
    }
    let Some(path) = path.strip_prefix("/v2/") else {
        return Answer::error(StatusCode::NOT_FOUND, "NOT_FOUND", "only /v2/ is here");
    };
    let target = Target::parse(path);
    if let Err(challenge) = auth::check(state, parts, target.as_ref().map(|t| t.repo)) {
        return *challenge;
    }
    let Some(target) = target else {
        return if path.is_empty() {
            Answer::json(StatusCode::OK, &json!({}))
        } else {
            Answer::error(StatusCode::NOT_FOUND, "NAME_INVALID", "no such endpoint")
        };
    };
    let pull = matches!(parts.method, Method::GET | Method::HEAD);
    let range = parts.headers.get(RANGE).filter(|_| honour_range);
    match target.kind {
        "manifests" if pull => manifest(state, &target),
        "manifests" => uploads::manifest(state, parts, &target, body),
        "blobs" if pull && !target.last.starts_with("uploads") => blob(state, &target, range),
        "blobs" => uploads::blob(state, parts, &target, &body),
        "tags" => tags(state, target.repo),
        "referrers" if pull => referrers(state, &target, &parts.uri),
        _ => Answer::error(StatusCode::NOT_FOUND, "UNSUPPORTED", "no such endpoint"),
    }
}

/// A path below `/v2/`: `<repo>/<kind>/<last>`.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    pub repo: &'a str,
    pub kind: &'a str,
    pub last: &'a str,
}

impl<'a> Target<'a> {
    fn parse(path: &'a str) -> Option<Self> {
        for kind in ["manifests", "blobs", "tags", "referrers"] {
            if let Some(at) = path.find(&format!("/{kind}/")) {
                return Some(Self { repo: &path[..at], kind, last: &path[at + kind.len() + 2..] });
            }
        }
        None
    }
}

fn manifest(state: &State, target: &Target<'_>) -> Answer {
    let Some((digest, media_type, bytes)) = state.manifest(target.repo, target.last) else {
        return Answer::error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "manifest unknown");
    };
    let mut answer = Answer::status(StatusCode::OK);
    answer.header(CONTENT_TYPE, &media_type);
    answer.header(CONTENT_DIGEST, digest.as_str());
    answer.body = bytes;
    answer
}

fn blob(state: &State, target: &Target<'_>, range: Option<&HeaderValue>) -> Answer {
    let unknown = || Answer::error(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", "blob unknown");
    let Some((digest, bytes)) = Digest::parse(target.last).ok().and_then(|d| state.blobs.get_key_value(&d)) else {
        return unknown();
    };
    let mut answer = Answer::status(StatusCode::OK);
    answer.header(CONTENT_TYPE, "application/octet-stream");
    answer.header(CONTENT_DIGEST, digest.as_str());
    answer.header(ACCEPT_RANGES, "bytes");
    answer.body = bytes.clone();
    let Some(range) = range else { return answer };
    let total = bytes.len();
    match range.to_str().ok().and_then(|r| parse_range(r, total)) {
        Some((from, to)) => {
            answer.status = StatusCode::PARTIAL_CONTENT;
            answer.header(CONTENT_RANGE, &format!("bytes {from}-{to}/{total}"));
            answer.body = bytes.slice(from..=to);
        }
        None => {
            answer = Answer::error(StatusCode::RANGE_NOT_SATISFIABLE, "SIZE_INVALID", "range not satisfiable");
            answer.header(CONTENT_RANGE, &format!("bytes */{total}"));
        }
    }
    answer
}

/// `bytes=<from>-[<to>]` within `total`, both ends included.
fn parse_range(text: &str, total: usize) -> Option<(usize, usize)> {
    let (from, to) = text.strip_prefix("bytes=")?.split_once('-')?;
    let from: usize = from.parse().ok()?;
    let to = if to.is_empty() { total.checked_sub(1)? } else { to.parse::<usize>().ok()?.min(total.checked_sub(1)?) };
    (from <= to).then_some((from, to))
}

/// Manifests whose subject is the target, as an index; `artifactType` filters (distribution spec, "Listing Referrers").
fn referrers(state: &State, target: &Target<'_>, uri: &http::Uri) -> Answer {
    let query = auth::query_pairs(uri.query().unwrap_or_default());
    let wanted = query.iter().find(|(name, _)| name == "artifactType").map(|(_, value)| value.as_str());
    let empty = Default::default();
    let manifests = state.repos.get(target.repo).map_or(&empty, |repo| &repo.manifests);
    let mut found: Vec<_> = manifests
        .iter()
        .filter_map(|(digest, (media_type, bytes))| {
            let manifest: serde_json::Value = serde_json::from_slice(bytes).ok()?;
            let kind =
                manifest["artifactType"].as_str().or(manifest["config"]["mediaType"].as_str()).unwrap_or_default();
            let meant = manifest["subject"]["digest"] == target.last && wanted.is_none_or(|w| w == kind);
            meant.then(|| {
                json!({"mediaType": media_type, "digest": digest.as_str(), "size": bytes.len(), "artifactType": kind,
                       "annotations": manifest["annotations"].as_object().cloned().unwrap_or_default()})
            })
        })
        .collect();
    found.sort_by_key(|d| d["digest"].to_string());
    // Pages, by the last digest of the one before.
    let last = query.iter().find(|(name, _)| name == "last").map(|(_, value)| value.as_str()).unwrap_or_default();
    found.retain(|d| d["digest"].as_str() > Some(last));
    let more = found.len() > REFERRERS_AT_ONCE;
    found.truncate(REFERRERS_AT_ONCE);
    let next = found.last().and_then(|d| d["digest"].as_str()).filter(|_| more);
    let next = next.map(|last| format!("</v2/{}/referrers/{}?last={last}>; rel=\"next\"", target.repo, target.last));
    let index = json!({"schemaVersion": 2, "mediaType": crate::OCI_INDEX, "manifests": found});
    let mut answer = Answer::json(StatusCode::OK, &index);
    answer.header(CONTENT_TYPE, crate::OCI_INDEX);
    if let Some(next) = next {
        answer.header(LINK, &next);
    }
    if wanted.is_some() {
        answer.header(HeaderName::from_static("oci-filters-applied"), "artifactType");
    }
    answer
}

fn tags(state: &State, repo: &str) -> Answer {
    match state.repos.get(repo) {
        Some(found) => {
            Answer::json(StatusCode::OK, &json!({"name": repo, "tags": found.tags.keys().collect::<Vec<_>>()}))
        }
        None => Answer::error(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "repository unknown"),
    }
}
