//! Blobs: streams that survive a broken connection and end where the descriptor says.
//!
//! Owns: ranges, lengths, stalls, resumption. Must not: hash; wrap the stream in a [`VerifyingStream`] for that.
use crate::auth::Auth;
use crate::client::Client;
use crate::error::{Failure, mismatch, unavailable};
use crate::exchange::{Ask, content_length, next_data};
use crate::manifest::Descriptor;
use crate::verify::VerifyingStream;
use berth_model::{Error, ErrorKind, Reference, Result};
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt};
use http::header::CONTENT_RANGE;
use http::{Method, Response, StatusCode};
use hyper::body::Incoming;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// So much progress makes a broken connection a new one, with all its attempts.
const PROGRESS: u64 = 1 << 20;
/// Least that must arrive in the time of a stall: below it a drip is a stall.
const DRIP: u64 = 4 << 10;
/// How long a body may take to end after its last byte.
const END: Duration = Duration::from_secs(1);

/// The bytes of a blob from an offset to its end.
///
/// A connection that breaks or stalls is replaced, and the stream goes on at the same byte. It ends after exactly the bytes of
/// the descriptor; more, or in the end fewer, are an error, and nothing follows an error.
pub struct BlobStream(BoxStream<'static, Result<Bytes>>);

impl Stream for BlobStream {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

impl std::fmt::Debug for BlobStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BlobStream")
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
        if offset > descriptor.size {
            let text = format!("{offset} lies behind the {} bytes of blob {}", descriptor.size, descriptor.digest);
            return Err(Error::invalid("offset", text));
        }
        if offset == descriptor.size {
            return Ok(BlobStream(stream::empty().boxed()));
        }
        let mut fetch = Fetch {
            client: self.clone(),
            repo: repo.clone(),
            descriptor: descriptor.clone(),
            auth: auth.clone(),
            at: offset,
            mark: offset,
            failed: 0,
            body: None,
        };
        fetch.open().await?;
        Ok(BlobStream(stream::try_unfold(fetch, Fetch::step).boxed()))
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
        let stream = self.blob(repo, descriptor, auth, 0).await?;
        let mut stream = VerifyingStream::new(stream, descriptor.digest.clone(), descriptor.size);
        let mut bytes = BytesMut::new();
        while let Some(piece) = stream.next().await {
            bytes.extend_from_slice(&piece?);
        }
        Ok(bytes.freeze())
    }
}

/// A body on its way.
struct Body {
    incoming: Incoming,
    /// Bytes to throw away first: the registry does not do ranges.
    skip: u64,
    /// The window of stall detection: time waited in it and bytes that came.
    waited: Duration,
    came: u64,
}

struct Fetch {
    client: Client,
    repo: Reference,
    descriptor: Descriptor,
    auth: Auth,
    /// Next byte wanted.
    at: u64,
    /// Where attempts were last counted from.
    mark: u64,
    failed: u32,
    body: Option<Body>,
}

impl Fetch {
    /// The next piece and the state after it.
    async fn step(mut self) -> Result<Option<(Bytes, Self)>> {
        loop {
            let Some(mut body) = self.body.take() else {
                self.open().await?;
                continue;
            };
            if self.at == self.descriptor.size {
                self.expect_end(body).await?;
                return Ok(None);
            }
            match self.piece(&mut body).await {
                Ok(Some(bytes)) => {
                    self.at += bytes.len() as u64;
                    if self.at > self.descriptor.size {
                        return Err(self.too_long());
                    }
                    self.body = Some(body);
                    return Ok(Some((bytes, self)));
                }
                Ok(None) => {
                    let e = unavailable(self.repo.host(), "ended a blob too early");
                    self.pause(Failure::Again(e, None)).await?;
                }
                Err(failure) => self.pause(failure).await?,
            }
        }
    }

    /// Waits before the next attempt, or ends with the failure.
    async fn pause(&mut self, failure: Failure) -> Result<()> {
        if self.at - self.mark >= PROGRESS {
            self.failed = 0;
        }
        self.mark = self.at;
        self.failed += 1;
        self.client.config().retry.wait(self.failed, failure, self.repo.host()).await
    }

    /// Asks for the rest of the blob, with the attempts that are left.
    async fn open(&mut self) -> Result<()> {
        loop {
            match self.open_once().await {
                Ok(body) => {
                    self.body = Some(body);
                    return Ok(());
                }
                Err(failure) => self.pause(failure).await?,
            }
        }
    }

    async fn open_once(&self) -> Result<Body, Failure> {
        let ask = Ask {
            method: Method::GET,
            repo: &self.repo,
            auth: &self.auth,
            path: format!("blobs/{}", self.descriptor.digest),
            accept: "*/*",
            pass: &[],
            from: (self.at > 0).then_some(self.at),
        };
        let response = self.client.exchange().ask(&ask).await?;
        let skip = if response.status() == StatusCode::PARTIAL_CONTENT {
            self.check_range(&response)?;
            0
        } else {
            self.at
        };
        let expected = self.descriptor.size - self.at + skip;
        let announced = content_length(response.headers());
        if let Some(length) = announced.filter(|length| *length != expected) {
            let Descriptor { digest, size, .. } = &self.descriptor;
            let text =
                format!("blob {digest}: the registry announces {length} bytes where {expected} of {size} are due");
            return Err(mismatch(text).into());
        }
        Ok(Body { incoming: response.into_body(), skip, waited: Duration::ZERO, came: 0 })
    }

    /// A partial answer must be the part that was asked for.
    fn check_range(&self, response: &Response<Incoming>) -> Result<(), Failure> {
        let range = response.headers().get(CONTENT_RANGE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let first =
            range.strip_prefix("bytes ").and_then(|r| r.split_once('-')).and_then(|(f, _)| f.parse::<u64>().ok());
        if first == Some(self.at) {
            return Ok(());
        }
        let text = format!(
            "blob {}: the registry answers with range {range:?} where bytes from {} are due",
            self.descriptor.digest, self.at
        );
        Err(mismatch(text).into())
    }

    /// The next bytes of the body that are wanted.
    async fn piece(&self, body: &mut Body) -> Result<Option<Bytes>, Failure> {
        let host = self.repo.host();
        let stall = self.client.config().timeouts.stall;
        loop {
            let before = Instant::now();
            let Some(mut bytes) = next_data(host, &mut body.incoming, stall).await? else { return Ok(None) };
            // Only time spent waiting counts: a slow disk on our side is not the registry's stall.
            body.waited += before.elapsed();
            body.came += bytes.len() as u64;
            if body.waited >= stall {
                if body.came < DRIP {
                    return Err(Failure::Again(unavailable(host, "stalled in the middle of a blob"), None));
                }
                (body.waited, body.came) = (Duration::ZERO, 0);
            }
            let unwanted = body.skip.min(bytes.len() as u64);
            body.skip -= unwanted;
            let bytes = bytes.split_off(unwanted as usize);
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
    }

    /// All bytes are here; a body of unknown length must have no more. Reading the end also gives the connection back.
    async fn expect_end(&self, mut body: Body) -> Result<()> {
        match next_data(self.repo.host(), &mut body.incoming, END).await {
            Ok(Some(bytes)) if !bytes.is_empty() => Err(self.too_long()),
            _ => Ok(()),
        }
    }

    fn too_long(&self) -> Error {
        let Descriptor { digest, size, .. } = &self.descriptor;
        mismatch(format!("blob {digest} has more than the {size} bytes of its descriptor"))
    }
}
