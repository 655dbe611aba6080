//! Chunks from a channel as a reader for blocking code.
//!
//! Owns: the hand-over. Must not: count or check; its users do.
use super::stream::Chunks;
use bytes::{Buf, Bytes, BytesMut};
use std::io::{self, BufRead, Read};

/// Fewest bytes that tell how an archive is compressed.
const MAGIC: usize = 4;

/// The bytes of chunks, one after the other.
pub struct ChunkReader {
    chunks: Chunks,
    current: Bytes,
}

impl ChunkReader {
    /// Over these chunks.
    pub fn new(chunks: Chunks) -> Self {
        Self { chunks, current: Bytes::new() }
    }

    /// The first four bytes, or fewer where there are no more. Nothing is used up.
    pub fn start(&mut self) -> io::Result<Vec<u8>> {
        let mut first = BytesMut::new();
        while first.len() < MAGIC {
            let step = self.fill_buf()?.to_vec();
            if step.is_empty() {
                break;
            }
            self.current.clear();
            first.extend_from_slice(&step);
        }
        self.current = first.freeze();
        Ok(self.current[..self.current.len().min(MAGIC)].to_vec())
    }
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let step = self.fill_buf()?.read(buffer)?;
        self.consume(step);
        Ok(step)
    }
}

impl BufRead for ChunkReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.current = chunk.map_err(io::Error::other)?,
                None => break,
            }
        }
        Ok(&self.current)
    }

    fn consume(&mut self, bytes: usize) {
        self.current.advance(bytes);
    }
}
