//! Blobs: streams that survive a broken connection, go over several connections where that pays, and end where the descriptor says.
//!
//! Owns: the order of ranges and the memory that they may take. Must not: hash; wrap the stream in a [`VerifyingStream`] for that.
use crate::auth::Auth;
use crate::client::Client;
use crate::fetch::{Fetch, Origin};
use crate::manifest::Descriptor;
use crate::verify::VerifyingStream;
use berth_model::{Error, ErrorKind, Reference, Result};
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt};
use std::collections::{BTreeSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

/// The bytes of a blob from an offset to its end.
///
/// A connection that breaks or stalls is replaced, and the stream goes on at the same byte, at another mirror where there is one.
/// It ends after exactly the bytes of the descriptor; more, or in the end fewer, are an error, and nothing follows an error.
pub struct BlobStream {
    inner: BoxStream<'static, Result<Bytes>>,
    origin: Origin,
}

impl BlobStream {
    /// The mirrors that bytes came from so far, by URL; the registry itself is none.
    pub fn mirrors(&self) -> Vec<String> {
        self.origin.mirrors()
    }
}

impl Stream for BlobStream {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.inner.poll_next_unpin(cx)
    }
}

impl std::fmt::Debug for BlobStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BlobStream")
    }
}

/// The mirrors whose bytes of one blob were not what its digest says, by URL. They are not asked for that blob again.
#[derive(Debug, Clone, Default)]
pub struct Liars(BTreeSet<String>);

impl Liars {
    pub(crate) fn has(&self, mirror: Option<&String>) -> bool {
        mirror.is_some_and(|mirror| self.0.contains(mirror))
    }
}

impl Client {
    /// Opens a blob at `offset`. The first answer of the registry has arrived when this returns.
    ///
    /// Errors: `NotFound`, `PermissionDenied`, `FailedPrecondition` where the announced length is not the descriptor's,
    /// `Unknown` starting `RegistryUnavailable`; the same come from the stream.
    pub async fn blob(
        &self,
        repo: &Reference,
        descriptor: &Descriptor,
        auth: &Auth,
        offset: u64,
    ) -> Result<BlobStream> {
        self.honest_blob(repo, descriptor, auth, offset, &Liars::default()).await
    }

    /// The same from others than these mirrors. Errors: as [`Client::blob`].
    pub async fn honest_blob(
        &self,
        repo: &Reference,
        descriptor: &Descriptor,
        auth: &Auth,
        offset: u64,
        liars: &Liars,
    ) -> Result<BlobStream> {
        let size = descriptor.size;
        if offset > size {
            let text = format!("{offset} lies behind the {size} bytes of blob {}", descriptor.digest);
            return Err(Error::invalid("offset", text));
        }
        let mut head = Fetch::new(self, repo, descriptor, auth, liars)?;
        let origin = head.origin();
        if offset == size {
            return Ok(BlobStream { inner: stream::empty().boxed(), origin });
        }
        let transfer = self.config().transfer;
        let several = transfer.connections > 1 && size - offset >= transfer.min_bytes.max(transfer.range_bytes);
        let end = if several { offset + transfer.range_bytes.max(1).min(size - offset) } else { size };
        head.aim(offset, end);
        head.lanes(several);
        head.open().await?;
        // A registry that does not do ranges sends all of it.
        let next = head.end();
        let ranges =
            Ranges { head, next, ahead: VecDeque::new(), arrived: VecDeque::new(), permit: None, alone: !several };
        Ok(BlobStream { inner: stream::try_unfold(ranges, Ranges::step).boxed(), origin })
    }

    /// A whole blob in memory, checked against its digest; for configurations and other small ones. Errors: as
    /// [`Client::blob`]; `ResourceExhausted` where it is larger than `limit` bytes.
    pub async fn small_blob(
        &self,
        repo: &Reference,
        descriptor: &Descriptor,
        auth: &Auth,
        limit: u64,
    ) -> Result<Bytes> {
        if descriptor.size > limit {
            let text =
                format!("blob {} has {} bytes, at most {limit} are allowed here", descriptor.digest, descriptor.size);
            return Err(Error::new(ErrorKind::ResourceExhausted, text));
        }
        let mut liars = Liars::default();
        loop {
            let stream = self.honest_blob(repo, descriptor, auth, 0, &liars).await?;
            let (result, mirrors) = whole(stream, descriptor).await;
            match result {
                Err(e) if e.kind() == ErrorKind::FailedPrecondition && self.blame_all(repo, &mirrors, &mut liars) => {}
                other => return other,
            }
        }
    }

    /// Remembers against mirrors that what they served of a blob is not what its digest says: they are left alone for a while, and not
    /// asked for this blob again. Returns whether somebody is left to ask. Each time it is true there is one more liar, so asking again
    /// and again ends.
    ///
    /// It is decided by who served *this* blob, not by who would be asked first now: blobs come side by side, and another one's failure
    /// may have moved the mirror to the end of the line by then.
    pub fn blame_all(&self, repo: &Reference, mirrors: &[String], liars: &mut Liars) -> bool {
        mirrors.iter().for_each(|mirror| self.blame(repo, mirror));
        let known = liars.0.len();
        liars.0.extend(mirrors.iter().cloned());
        let left = self.sites(repo.host(), crate::site::Need::Content);
        liars.0.len() > known && left.is_ok_and(|sites| sites.iter().any(|site| !liars.has(site.mirror.as_ref())))
    }
}

async fn whole(stream: BlobStream, descriptor: &Descriptor) -> (Result<Bytes>, Vec<String>) {
    let origin = stream.origin.clone();
    let mut stream = VerifyingStream::new(stream, descriptor.digest.clone(), descriptor.size);
    let mut bytes = BytesMut::new();
    while let Some(piece) = stream.next().await {
        match piece {
            Ok(piece) => bytes.extend_from_slice(&piece),
            Err(e) => return (Err(e), origin.mirrors()),
        }
    }
    (Ok(bytes.freeze()), origin.mirrors())
}

/// A range that is fetched before its turn.
struct Ahead {
    start: u64,
    task: Task,
    permit: OwnedSemaphorePermit,
}

/// A task that ends with its owner.
struct Task(JoinHandle<Result<Vec<Bytes>>>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The ranges of one blob: one streams, some arrive ahead of their turn.
struct Ranges {
    head: Fetch,
    /// First byte that nobody fetches yet.
    next: u64,
    ahead: VecDeque<Ahead>,
    /// Bytes of a range whose turn it is, and the memory that they take.
    arrived: VecDeque<Bytes>,
    permit: Option<OwnedSemaphorePermit>,
    /// Nothing is fetched ahead: it is not wanted, or it did not work.
    alone: bool,
}

impl Ranges {
    /// The next piece and the state after it.
    async fn step(mut self) -> Result<Option<(Bytes, Self)>> {
        loop {
            if let Some(bytes) = self.arrived.pop_front() {
                return Ok(Some((bytes, self)));
            }
            self.permit = None;
            self.fetch_ahead();
            if let Some(bytes) = self.head.piece().await? {
                return Ok(Some((bytes, self)));
            }
            if !self.turn().await {
                return Ok(None);
            }
        }
    }

    /// Starts as many ranges as connections and memory allow.
    fn fetch_ahead(&mut self) {
        if self.streams_all() {
            // Whatever was fetched ahead comes by the head too.
            self.ahead.clear();
            return;
        }
        let transfer = self.head.client().config().transfer;
        while !self.alone && self.next < self.head.size() && self.ahead.len() + 1 < transfer.connections as usize {
            // Without memory to spare it goes on with what streams.
            let Ok(permit) = Arc::clone(self.head.client().buffers()).try_acquire_owned() else { return };
            let (start, end) = (self.next, self.head.size().min(self.next + transfer.range_bytes.max(1)));
            let task = Task(tokio::spawn(self.head.another(start, end).whole()));
            self.ahead.push_back(Ahead { start, task, permit });
            self.next = end;
        }
    }

    /// Whether the head's range goes to the end of the blob: it is the last one, or the site that it is at now sends all.
    fn streams_all(&self) -> bool {
        self.head.end() == self.head.size()
    }

    /// The head has come to its end: takes the next range, `false` at the end of all.
    async fn turn(&mut self) -> bool {
        if self.streams_all() {
            self.ahead.clear();
            return false;
        }
        let Some(mut ahead) = self.ahead.pop_front() else {
            if self.next >= self.head.size() {
                return false;
            }
            let range = self.head.client().config().transfer.range_bytes.max(1);
            let end = if self.alone { self.head.size() } else { self.head.size().min(self.next + range) };
            self.head.aim(self.next, end);
            self.next = end;
            return true;
        };
        match (&mut ahead.task.0).await {
            Ok(Ok(pieces)) => {
                self.arrived = pieces.into();
                self.permit = Some(ahead.permit);
            }
            // A registry that does not like several connections may like one.
            _ => {
                self.alone = true;
                self.ahead.clear();
                self.next = self.head.size();
                self.head.aim(ahead.start, self.next);
            }
        }
        true
    }
}
