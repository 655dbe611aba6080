//! Bytes from the transport, as heads, payloads and pieces. Must not: know frames, or hold what was handed out.
use super::frame::HEAD;
use bytes::{Bytes, BytesMut};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

const SMALLEST: usize = 8 * 1024;
const LARGEST: usize = 64 * 1024;

/// Reads ahead, more when there is more.
#[derive(Debug)]
pub struct Input<R> {
    io: R,
    buffer: BytesMut,
    ahead: usize,
}

impl<R: AsyncRead + Unpin> Input<R> {
    /// Nothing is read yet.
    pub fn new(io: R) -> Self {
        Self { io, buffer: BytesMut::new(), ahead: SMALLEST }
    }

    /// Reads what is there. False: the end.
    async fn more(&mut self) -> io::Result<bool> {
        if self.buffer.capacity() - self.buffer.len() < self.ahead / 4 {
            self.buffer.reserve(self.ahead);
        }
        let read = self.io.read_buf(&mut self.buffer).await?;
        if self.buffer.len() == self.buffer.capacity() {
            self.ahead = LARGEST.min(self.ahead * 2);
        }
        Ok(read > 0)
    }

    /// Throws away what is there. False: the end.
    pub async fn skip(&mut self) -> io::Result<bool> {
        self.buffer.clear();
        self.more().await
    }

    async fn at_least(&mut self, length: usize) -> io::Result<()> {
        while self.buffer.len() < length {
            if !self.more().await? {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended within a frame"));
            }
        }
        Ok(())
    }

    /// The next head. None: the transport ended before it.
    pub async fn head(&mut self) -> io::Result<Option<[u8; HEAD]>> {
        if self.buffer.is_empty() && !self.more().await? {
            return Ok(None);
        }
        self.at_least(HEAD).await?;
        let mut head = [0; HEAD];
        head.copy_from_slice(&self.buffer.split_to(HEAD));
        Ok(Some(head))
    }

    /// That many bytes, all of them.
    pub async fn payload(&mut self, length: usize) -> io::Result<Bytes> {
        self.at_least(length).await?;
        Ok(self.buffer.split_to(length).freeze())
    }

    /// What is there, at least one byte and at most that many. It shares the memory that it was read into.
    pub async fn piece(&mut self, most: usize) -> io::Result<Bytes> {
        self.at_least(1).await?;
        let length = most.min(self.buffer.len());
        Ok(self.buffer.split_to(length).freeze())
    }
}
