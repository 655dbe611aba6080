//! Digests of what passes by.
//!
//! Owns: hashing and the comparison at the end of a stream. Must not: know where bytes come from or go.
use crate::error::mismatch;
use aws_lc_rs::digest;
use berth_model::{Digest, Result};
use bytes::Bytes;
use futures_util::Stream;
use std::pin::Pin;
use std::task::{Context, Poll};

/// sha256, piece by piece.
#[derive(Clone)]
pub struct Hasher(digest::Context);

impl Hasher {
    /// Starts.
    pub fn new() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }

    /// Takes in more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes taken in.
    pub fn finish(self) -> Digest {
        let mut raw = [0; 32];
        raw.copy_from_slice(self.0.finish().as_ref());
        Digest::from_bytes(raw)
    }

    /// Compares with what was promised. Errors: `FailedPrecondition` with both digests; `what` names the content.
    pub fn verify(self, what: &str, expected: &Digest) -> Result<()> {
        let actual = self.finish();
        if actual == *expected {
            Ok(())
        } else {
            Err(mismatch(format!(
                "{what} {expected} has content of digest {actual}; the registry or a proxy altered it"
            )))
        }
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hasher")
    }
}

/// The digest of these bytes.
pub fn sha256(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new();
    hasher.update(bytes);
    hasher.finish()
}

/// Passes a stream on and ends it with an error unless size and digest are as promised. More bytes than promised end it as soon
/// as the first of them arrives.
#[derive(Debug)]
pub struct VerifyingStream<S> {
    inner: S,
    /// `None` once the verdict is spoken.
    hasher: Option<Hasher>,
    digest: Digest,
    size: u64,
    seen: u64,
}

impl<S> VerifyingStream<S> {
    /// Wraps a stream of exactly `size` bytes with this digest.
    pub fn new(inner: S, digest: Digest, size: u64) -> Self {
        Self { inner, hasher: Some(Hasher::new()), digest, size, seen: 0 }
    }

    /// Continues where `seen` bytes were hashed before, such as a blob that is resumed.
    pub fn resume(inner: S, digest: Digest, size: u64, hasher: Hasher, seen: u64) -> Self {
        Self { inner, hasher: Some(hasher), digest, size, seen }
    }

    fn verdict(&self, hasher: Hasher) -> Result<()> {
        if self.seen == self.size {
            hasher.verify("blob", &self.digest)
        } else {
            Err(mismatch(format!("blob {} has {} bytes, its descriptor says {}", self.digest, self.seen, self.size)))
        }
    }
}

impl<S: Stream<Item = Result<Bytes>> + Unpin> Stream for VerifyingStream<S> {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.hasher.is_none() {
            return Poll::Ready(None);
        }
        match std::task::ready!(Pin::new(&mut this.inner).poll_next(cx)) {
            Some(Ok(bytes)) => {
                this.seen += bytes.len() as u64;
                if this.seen > this.size {
                    this.hasher = None;
                    let text = format!("blob {} has more than the {} bytes of its descriptor", this.digest, this.size);
                    return Poll::Ready(Some(Err(mismatch(text))));
                }
                if let Some(hasher) = &mut this.hasher {
                    hasher.update(&bytes);
                }
                Poll::Ready(Some(Ok(bytes)))
            }
            Some(Err(e)) => {
                this.hasher = None;
                Poll::Ready(Some(Err(e)))
            }
            None => match this.hasher.take().map(|hasher| this.verdict(hasher)) {
                Some(Err(e)) => Poll::Ready(Some(Err(e))),
                _ => Poll::Ready(None),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{StreamExt, stream};

    async fn run(pieces: &[&'static str], digest: Digest, size: u64) -> Vec<Result<Bytes>> {
        let pieces: Vec<_> = pieces.iter().map(|p| Ok(Bytes::from_static(p.as_bytes()))).collect();
        VerifyingStream::new(stream::iter(pieces), digest, size).collect().await
    }

    #[tokio::test]
    async fn only_the_promised_bytes_pass() {
        assert!(run(&["ab", "c"], sha256(b"abc"), 3).await.iter().all(Result::is_ok));
        for (pieces, size) in [(&["ab", "d"][..], 3), (&["ab"], 3), (&["ab", "cd"], 3)] {
            let last = run(pieces, sha256(b"abc"), size).await.pop().unwrap();
            assert!(last.is_err(), "{pieces:?}");
        }
    }
}
