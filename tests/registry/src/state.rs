//! What the registry holds and what it has seen.
//!
//! Owns: repositories, blobs, uploads, tokens, rules, the log of requests. Must not: know HTTP.
use crate::fault::Rule;
use crate::registry::AuthMode;
use berth_model::Digest;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One request, as it arrived.
#[derive(Debug, Clone)]
pub struct Request {
    /// Method, such as `GET`.
    pub method: String,
    /// Path without the query.
    pub path: String,
    /// Query without the question mark.
    pub query: String,
    /// All headers; names in lower case.
    pub headers: Vec<(String, String)>,
    /// Status of the answer.
    pub status: u16,
}

impl Request {
    /// The first header of this name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// Figures that a body updates while it is sent.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    bytes: AtomicU64,
    active: AtomicU64,
    peak: AtomicU64,
    connections: AtomicU64,
    h2: AtomicU64,
}

impl Counters {
    pub fn add_bytes(&self, count: u64) {
        self.bytes.fetch_add(count, Ordering::Relaxed);
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    pub fn connected_h2(&self) {
        self.h2.fetch_add(1, Ordering::Relaxed);
    }

    pub fn h2(&self) -> u64 {
        self.h2.load(Ordering::Relaxed)
    }

    pub fn body_started(&self) {
        let now = self.active.fetch_add(1, Ordering::Relaxed) + 1;
        self.peak.fetch_max(now, Ordering::Relaxed);
    }

    pub fn body_ended(&self) {
        self.active.fetch_sub(1, Ordering::Relaxed);
    }

    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }
}

/// A repository: manifests by digest, tags onto them.
#[derive(Debug, Default)]
pub(crate) struct Repo {
    pub tags: BTreeMap<String, Digest>,
    pub manifests: HashMap<Digest, (String, Bytes)>,
}

/// A token that was handed out.
#[derive(Debug)]
pub(crate) struct Token {
    /// Granted `repository:<name>:<action>`, one per action.
    pub grants: Vec<String>,
    pub expires: Instant,
}

/// Everything behind the lock.
#[derive(Debug)]
pub(crate) struct State {
    pub auth: AuthMode,
    /// `http://host:port` of this server, for realms and locations.
    pub base_url: String,
    pub repos: HashMap<String, Repo>,
    pub blobs: HashMap<Digest, Bytes>,
    pub uploads: HashMap<String, Vec<u8>>,
    pub tokens: HashMap<String, Token>,
    pub rules: Vec<Rule>,
    pub log: Vec<Request>,
    pub serial: u64,
}

impl State {
    pub fn new(auth: AuthMode, base_url: String) -> Self {
        Self {
            auth,
            base_url,
            repos: HashMap::new(),
            blobs: HashMap::new(),
            uploads: HashMap::new(),
            tokens: HashMap::new(),
            rules: Vec::new(),
            log: Vec::new(),
            serial: 0,
        }
    }

    /// A number that was not given before.
    pub fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// Makes a token and returns it.
    pub fn issue(&mut self, grants: Vec<String>, seconds: u64) -> String {
        let value = format!("token-{}", self.next_serial());
        let expires = Instant::now() + Duration::from_secs(seconds);
        self.tokens.insert(value.clone(), Token { grants, expires });
        value
    }

    /// The manifest under a tag or digest.
    pub fn manifest(&self, repo: &str, reference: &str) -> Option<(Digest, String, Bytes)> {
        let repo = self.repos.get(repo)?;
        let digest = match Digest::parse(reference) {
            Ok(digest) => digest,
            Err(_) => repo.tags.get(reference)?.clone(),
        };
        let (media_type, bytes) = repo.manifests.get(&digest)?;
        Some((digest, media_type.clone(), bytes.clone()))
    }
}
