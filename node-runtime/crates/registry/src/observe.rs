//! What happens, told to whoever counts: requests by registry, mirror and phase, bytes by source, pauses, credentials.
//!
//! Owns: the observations. Must not: count; an observer does. No observation carries a secret, a query string, or content.
use std::fmt;
use std::time::Duration;

/// Where something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// The registry that the user's reference names.
    pub registry: &'a str,
    /// The mirror that was asked in its place, by its URL as it is configured.
    pub mirror: Option<&'a str>,
}

/// What a request was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// What a tag stands for.
    Resolve,
    /// A manifest or index.
    Manifest,
    /// A blob, or a range of one.
    Blob,
    /// A token of a token server.
    Token,
    /// Anything that is pushed.
    Push,
}

impl Phase {
    /// As a label of metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Manifest => "manifest",
            Self::Blob => "blob",
            Self::Token => "token",
            Self::Push => "push",
        }
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Answered as wanted.
    Ok,
    /// It is not there.
    NotFound,
    /// Refused.
    Denied,
    /// 429.
    RateLimited,
    /// Nothing usable came: no connection, a stall, a broken answer, 5xx.
    Failed,
}

impl Outcome {
    /// As a label of metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NotFound => "not_found",
            Self::Denied => "denied",
            Self::RateLimited => "rate_limited",
            Self::Failed => "failed",
        }
    }
}

/// Where credentials came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialSource {
    /// The request itself (imagePullSecrets).
    Request,
    /// A cluster, by its agent.
    Given,
    /// A credential provider of the kubelet's kind.
    Provider,
    /// A `docker-credential-*` helper.
    Helper,
    /// A file of Docker's format.
    File,
}

impl CredentialSource {
    /// As a label of metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Given => "given",
            Self::Provider => "provider",
            Self::Helper => "helper",
            Self::File => "file",
        }
    }
}

/// One thing that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observation<'a> {
    /// A request ended; for a blob, its headers are here.
    Request {
        /// Where.
        place: Place<'a>,
        /// What for.
        phase: Phase,
        /// How.
        outcome: Outcome,
        /// From its start.
        elapsed: Duration,
    },
    /// Bytes of a blob or manifest arrived.
    Bytes {
        /// From where.
        place: Place<'a>,
        /// How many.
        count: u64,
    },
    /// A mirror failed and is left alone for a while.
    MirrorPaused {
        /// Which.
        place: Place<'a>,
        /// How long.
        pause: Duration,
        /// Why.
        reason: &'a str,
    },
    /// A request or a broken transfer is tried again.
    Retry {
        /// Where.
        place: Place<'a>,
    },
    /// The node's credentials were looked for.
    Credentials {
        /// For which registry.
        registry: &'a str,
        /// Where they were found, or who failed.
        source: CredentialSource,
        /// Whether there were some; `false` is a failure of a helper or provider.
        ok: bool,
    },
}

/// Who is told. It is called in the middle of transfers: it must return at once.
pub trait Observer: Send + Sync + fmt::Debug {
    /// Takes note.
    fn observe(&self, observation: &Observation<'_>);
}
