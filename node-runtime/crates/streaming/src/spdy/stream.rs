//! One stream, as its users have it: not yet answered, then a reader and a writer that live apart.
//!
//! The end of a stream: `shutdown` of the writer is FIN, and the reader's end is the peer's. Handles that are dropped before that
//! cancel the stream as soon as both are gone. Must not: touch the transport.
use super::Status;
use super::connection::Shared;
use super::headers::Headers;
use berth_model::{Result, ResultExt};
use bytes::{Buf, Bytes};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

/// A stream that the peer opened and that was not answered. Dropped, it is refused.
#[derive(Debug)]
pub struct Stream {
    shared: Arc<Shared>,
    id: u32,
    headers: Headers,
    answered: bool,
}

impl Stream {
    pub(super) fn new(shared: Arc<Shared>, id: u32, headers: Headers) -> Self {
        Self { shared, id, headers, answered: false }
    }

    /// Names (lower-case) and values that it was opened with.
    pub fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    /// The first value of a header. The name is given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Unique on its connection; odd when the client opened it.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Answers it; only now moby/spdystream takes data. Errors: the peer reset it meanwhile, or the connection ended.
    pub async fn accept(mut self) -> Result<(StreamReader, StreamWriter)> {
        self.shared.lock().accept(self.id).context(|| format!("SPDY stream {}", self.id))?;
        self.answered = true;
        Ok(handles(&self.shared, self.id))
    }

    /// Does not want it.
    pub fn refuse(mut self, status: Status) {
        self.answered = true;
        self.shared.lock().refuse(self.id, status);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.answered {
            self.shared.lock().refuse(self.id, Status::RefusedStream);
        }
    }
}

pub(super) fn handles(shared: &Arc<Shared>, id: u32) -> (StreamReader, StreamWriter) {
    let reader = StreamReader { shared: Arc::clone(shared), id, piece: Bytes::new() };
    (reader, StreamWriter { shared: Arc::clone(shared), id })
}

/// What the peer sends. Its end is the peer's FIN; `ConnectionReset` is a reset of the stream, `UnexpectedEof` and
/// `ConnectionAborted` the end of the connection. As `AsyncBufRead` it lends what was received, without a copy.
#[derive(Debug)]
pub struct StreamReader {
    shared: Arc<Shared>,
    id: u32,
    piece: Bytes,
}

impl StreamReader {
    /// Of the stream.
    pub fn id(&self) -> u32 {
        self.id
    }
}

impl AsyncBufRead for StreamReader {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        if this.piece.is_empty()
            && let Some(piece) = ready!(this.shared.lock().poll_piece(cx, this.id))?
        {
            this.piece = piece;
        }
        Poll::Ready(Ok(&this.piece))
    }

    fn consume(self: Pin<&mut Self>, amount: usize) {
        self.get_mut().piece.advance(amount);
    }
}

impl AsyncRead for StreamReader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let piece = ready!(self.as_mut().poll_fill_buf(cx))?;
        let length = piece.len().min(buf.remaining());
        buf.put_slice(&piece[..length]);
        self.consume(length);
        Poll::Ready(Ok(()))
    }
}

impl Drop for StreamReader {
    fn drop(&mut self) {
        self.shared.lock().drop_reader(self.id);
    }
}

/// What goes to the peer. `shutdown` is FIN; without it, dropping both handles resets the stream and what was not sent yet is lost.
/// `flush`, and `shutdown`, wait until the transport has taken everything of this stream.
#[derive(Debug)]
pub struct StreamWriter {
    shared: Arc<Shared>,
    id: u32,
}

impl StreamWriter {
    /// Of the stream.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Cancels both directions at once; what waits is thrown away.
    pub fn reset(&mut self) {
        self.shared.lock().reset(self.id, Status::Cancel);
    }
}

impl AsyncWrite for StreamWriter {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.shared.lock().poll_write(cx, self.id, data)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.lock().poll_flush(cx, self.id)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.shared.lock();
        state.finish(self.id)?;
        state.poll_flush(cx, self.id)
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        self.shared.lock().drop_writer(self.id);
    }
}
