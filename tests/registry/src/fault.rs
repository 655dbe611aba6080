//! Misbehaviour: which requests it meets ([`When`]) and what it does ([`Fault`]).
//!
//! Owns: matching, and the shape of a spoiled answer. Must not: choose answers; a fault only bends what the registry would say.
use crate::state::Counters;
use berth_model::Digest;
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http::Method;
use hyper::body::Frame;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Which requests a fault meets.
#[derive(Debug, Clone, Default)]
pub struct When {
    method: Option<Method>,
    contains: String,
}

impl When {
    /// Every request.
    pub fn any() -> Self {
        Self::default()
    }

    /// Requests whose path contains this text.
    pub fn path(contains: &str) -> Self {
        Self { method: None, contains: contains.to_owned() }
    }

    /// Requests for this blob, in any repository.
    pub fn blob(digest: &Digest) -> Self {
        Self::path(&format!("/blobs/{digest}"))
    }

    /// Requests for this manifest, by tag or by digest as text.
    pub fn manifest(tag_or_digest: &str) -> Self {
        Self::path(&format!("/manifests/{tag_or_digest}"))
    }

    /// Only requests of this method.
    #[must_use]
    pub fn method(mut self, method: Method) -> Self {
        self.method = Some(method);
        self
    }

    pub(crate) fn matches(&self, method: &Method, path: &str) -> bool {
        self.method.as_ref().is_none_or(|m| m == method) && path.contains(&self.contains)
    }
}

/// One misbehaviour. Several may meet one request; the first that replaces the answer wins, the others bend it together.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Waits before it answers at all.
    DelayHeaders(Duration),
    /// Sends the body in pieces of `chunk` bytes and waits before each.
    Delay {
        /// Wait before each piece.
        per_chunk: Duration,
        /// Bytes in a piece.
        chunk: usize,
    },
    /// Sends this many bytes of the body and then nothing, with the connection open.
    Stall {
        /// Bytes sent.
        after: u64,
    },
    /// Sends this many bytes of the body and cuts the connection.
    Truncate {
        /// Bytes sent.
        after: u64,
    },
    /// Changes the body's first byte: the digest lies.
    Corrupt,
    /// Appends this many bytes, without an announced length.
    Extra(u64),
    /// Replaces the body, of any size, such as a manifest that is too large.
    Body(Bytes),
    /// Answers with this status, and `Retry-After` in seconds if given.
    Status {
        /// Status code.
        code: u16,
        /// Seconds for `Retry-After`.
        retry_after: Option<u64>,
    },
    /// Redirects (307) to this location.
    Redirect(String),
    /// Redirects to the request's own path, for ever.
    RedirectLoop,
    /// Claims this content type.
    ContentType(String),
    /// Claims this content length.
    ContentLength(u64),
    /// Sends no content length (chunked).
    Chunked,
    /// Claims this in `Docker-Content-Digest`; an empty text leaves the header out.
    ContentDigest(String),
    /// Claims this in `Content-Range` of partial answers.
    ContentRange(String),
    /// Answers a range request with the whole body and 200.
    NoRange,
    /// Closes the connection without an answer.
    Drop,
}

/// A fault that is set.
#[derive(Debug)]
pub(crate) struct Rule {
    pub when: When,
    pub fault: Fault,
    /// How many requests it still meets; `None` is all.
    pub remaining: Option<u32>,
}

/// How the body of one answer is sent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shape {
    pub per_chunk: Option<Duration>,
    pub chunk: Option<usize>,
    pub stall_after: Option<u64>,
    pub truncate_after: Option<u64>,
    /// The body ends before its announced length.
    pub short: bool,
}

/// Most bytes handed to the connection at once where no fault says otherwise.
const CHUNK: usize = 64 * 1024;

/// A pause in which what was sent leaves; the connection forgets it when the body fails at once.
const FLUSH: Duration = Duration::from_millis(20);

struct Sending {
    body: Bytes,
    sent: u64,
    shape: Shape,
    counters: Arc<Counters>,
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.counters.body_ended();
    }
}

/// The body as a stream of frames, with every wait, stall and cut of `shape`.
pub(crate) fn body_stream(
    body: Bytes,
    shape: Shape,
    counters: Arc<Counters>,
) -> impl Stream<Item = io::Result<Frame<Bytes>>> + Send {
    counters.body_started();
    stream::unfold(Some(Sending { body, sent: 0, shape, counters }), |state| async move {
        let mut state = state?;
        let mut limit = state.shape.chunk.unwrap_or(CHUNK).max(1) as u64;
        if let Some(after) = state.shape.stall_after {
            if state.sent >= after {
                std::future::pending::<()>().await;
            }
            limit = limit.min(after - state.sent);
        }
        if let Some(after) = state.shape.truncate_after {
            if state.sent >= after {
                tokio::time::sleep(FLUSH).await;
                let cut = io::Error::new(io::ErrorKind::ConnectionAborted, "cut on purpose");
                return Some((Err(cut), None));
            }
            limit = limit.min(after - state.sent);
        }
        if state.body.is_empty() {
            if state.shape.short {
                tokio::time::sleep(FLUSH).await;
            }
            return None;
        }
        if let Some(wait) = state.shape.per_chunk {
            tokio::time::sleep(wait).await;
        }
        let piece = state.body.split_to(state.body.len().min(limit as usize));
        state.sent += piece.len() as u64;
        state.counters.add_bytes(piece.len() as u64);
        Some((Ok(Frame::data(piece)), Some(state)))
    })
}
