//! The way of a layer's bytes: chunks from the network, their digest, decompression, the digest of what comes out,
//! extraction. Two threads, so that inflating and writing overlap.
//!
//! Owns: verification and the limits on sizes. The extracting side sees the end of its stream only after both digests of
//! the bytes before it are right. Must not: know where chunks come from.
use super::extract::{Extracted, extract};
use super::path::LayerPath;
use crate::config::LayerLimits;
use crate::refused;
use crate::tree::DiskUsage;
use berth_model::{Digest, Error, ErrorKind, Result};
use berth_registry::Hasher;
use bytes::{Buf, Bytes};
use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use tokio::sync::mpsc as chunks;

/// Size of the buffers between the two threads.
const BUFFER: usize = 256 << 10;
/// Buffers in flight between them.
const BUFFERS: usize = 4;

/// How a layer is compressed. Read from its first bytes: media types in the field are often wrong about it, and the peers
/// look at the bytes too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// By magic numbers: RFC 1952 2.3.1; RFC 8878 3.1.1 and 3.1.2 (skippable frames, as in zstd:chunked and eStargz).
    fn sniff(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// The chunks of a blob; an error ends them.
pub type Chunks = chunks::Receiver<Result<Bytes>>;

/// One layer to unpack.
#[derive(Debug)]
pub struct Job {
    /// Digest of the compressed bytes.
    pub digest: Digest,
    /// Their number.
    pub size: u64,
    /// Digest of the uncompressed bytes.
    pub diff_id: Digest,
    /// An existing, empty directory.
    pub target: PathBuf,
    /// Also write the compressed bytes here.
    pub blob: Option<File>,
    /// Limits.
    pub limits: LayerLimits,
    /// Uncompressed bytes of the whole image so far, all of its layers counting into it.
    pub image_bytes: Arc<AtomicU64>,
}

/// A layer on disk, not yet synced.
#[derive(Debug)]
pub struct Unpacked {
    /// What it takes.
    pub usage: DiskUsage,
    /// Directories that must get their attributes from the layers below.
    pub implied: Vec<LayerPath>,
}

/// Why a layer is not on disk.
#[derive(Debug)]
pub struct Failed {
    /// What is told.
    pub error: Error,
    /// The bytes that came are not those of the digest: whoever sent them is at fault, and another one may have the right ones.
    pub altered: bool,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { error, altered: false }
    }
}

/// What the two threads of one layer tell each other beside its bytes.
#[derive(Debug, Default)]
struct Shared {
    /// The extracting side does not like what it got: whether the digest is right is worth knowing.
    doubted: AtomicBool,
    /// The digest is wrong.
    altered: OnceLock<Error>,
    /// Bytes that this layer has counted into its image's.
    counted: AtomicU64,
}

/// Unpacks a layer. Blocks. Errors: `FailedPrecondition` for a wrong digest or archive, `ResourceExhausted` for a limit or a full disk, and
/// whatever error the chunks end with. The caller removes the directory when this fails.
pub fn unpack(job: Job, chunks: Chunks) -> Result<Unpacked, Failed> {
    let (shared, image_bytes) = (Shared::default(), job.image_bytes.clone());
    unpack_once(job, chunks, &shared).map_err(|error| {
        image_bytes.fetch_sub(shared.counted.load(Ordering::Relaxed), Ordering::Relaxed);
        match shared.altered.into_inner() {
            // The digest decides what is told: a blob that was swapped is that, not a bad archive.
            Some(error) => Failed { error, altered: true },
            None => Failed { error, altered: false },
        }
    })
}

fn unpack_once(job: Job, chunks: Chunks, shared: &Shared) -> Result<Unpacked> {
    let Job { digest, size, diff_id, target, blob, limits, image_bytes } = job;
    let (filled, filled_rx) = mpsc::sync_channel(BUFFERS);
    let (empty, empty_rx) = mpsc::sync_channel(BUFFERS);
    for _ in 0..BUFFERS {
        // The channel holds as many as there are buffers, so this never fails or blocks.
        let _ = empty.try_send(Vec::with_capacity(BUFFER));
    }
    let source = Compressed { chunks, current: Bytes::new(), hasher: Hasher::new(), seen: 0, size, blob, failed: None };
    let pipe_limits = limits.clone();
    std::thread::scope(|scope| {
        let inflater = std::thread::Builder::new().name("inflate".into()).spawn_scoped(scope, move || {
            let pipe =
                Pipe { filled: &filled, empty: &empty_rx, limits: &pipe_limits, image_bytes: &image_bytes, shared };
            let result = inflate(source, &digest, &pipe);
            if let Err(e) = result {
                // When the other side is gone its own error is told.
                let _ = filled.send(Err(e));
            }
        });
        inflater.map_err(|e| Error::from(e).context("cannot start the inflating thread"))?;
        let mut stream =
            Inflated { filled: filled_rx, empty, current: Vec::new(), at: 0, hasher: Hasher::new(), ended: false };
        let extracted = extract(&mut stream, &target, &limits).inspect_err(|e| {
            shared.doubted.store(e.kind() == ErrorKind::FailedPrecondition, Ordering::Release);
        });
        let Extracted { usage, implied } = extracted?;
        let found = stream.hasher.finish();
        if found != diff_id {
            return Err(refused(
                "layer",
                format!("uncompressed digest is {found}, the image's configuration says {diff_id}"),
            ));
        }
        Ok(Unpacked { usage, implied })
    })
}

/// What the inflating thread writes to.
struct Pipe<'a> {
    filled: &'a mpsc::SyncSender<Result<Vec<u8>>>,
    empty: &'a mpsc::Receiver<Vec<u8>>,
    limits: &'a LayerLimits,
    image_bytes: &'a AtomicU64,
    shared: &'a Shared,
}

/// How copying ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copied {
    /// Everything is out.
    All,
    /// The other side has given up; it has an error of its own.
    Unwanted,
}

/// Runs on the inflating thread: everything in, then the digest, then the end.
fn inflate(mut source: Compressed, digest: &Digest, pipe: &Pipe<'_>) -> Result<()> {
    let (result, mut source) = match Compression::sniff(&source.start()?) {
        Compression::None => (copy(&mut source, pipe, source_size), source),
        Compression::Gzip => {
            let mut decoder = flate2::bufread::MultiGzDecoder::new(source);
            (copy(&mut decoder, pipe, |d| d.get_ref().seen), decoder.into_inner())
        }
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(source)?;
            (copy(&mut decoder, pipe, |d| d.get_ref().seen), decoder.finish())
        }
    };
    match result {
        Ok(Copied::All) => source.verify(digest, pipe.shared),
        Ok(Copied::Unwanted) if pipe.shared.doubted.load(Ordering::Acquire) => source.verify(digest, pipe.shared),
        Ok(Copied::Unwanted) => Ok(()),
        Err(e) if e.kind() == ErrorKind::FailedPrecondition && source.failed.is_none() => {
            source.verify(digest, pipe.shared).and(Err(e))
        }
        Err(e) => Err(source.failed.unwrap_or(e)),
    }
}

fn source_size(source: &Compressed) -> u64 {
    source.seen
}

fn copy<D: Read>(decoder: &mut D, pipe: &Pipe<'_>, compressed: impl Fn(&D) -> u64) -> Result<Copied> {
    let mut out: u64 = 0;
    loop {
        let Ok(mut buffer) = pipe.empty.recv() else { return Ok(Copied::Unwanted) };
        buffer.clear();
        let n = decoder.by_ref().take(BUFFER as u64).read_to_end(&mut buffer).map_err(decode_error)?;
        if n == 0 {
            return Ok(Copied::All);
        }
        out += n as u64;
        pipe.check(out, n as u64, compressed(decoder))?;
        if pipe.filled.send(Ok(buffer)).is_err() {
            return Ok(Copied::Unwanted);
        }
    }
}

impl Pipe<'_> {
    fn check(&self, out: u64, step: u64, compressed: u64) -> Result<()> {
        let exhausted = |what: String| Err(Error::new(ErrorKind::ResourceExhausted, what));
        let limits = self.limits;
        if out > limits.max_bytes {
            let max = limits.max_bytes;
            return exhausted(format!("layer is larger than {max} bytes uncompressed (max_uncompressed_layer)"));
        }
        self.shared.counted.fetch_add(step, Ordering::Relaxed);
        let image = self.image_bytes.fetch_add(step, Ordering::Relaxed) + step;
        if image > limits.max_image_bytes {
            let max = limits.max_image_bytes;
            return exhausted(format!("image is larger than {max} bytes uncompressed (max_uncompressed_image)"));
        }
        if out > limits.ratio_from && out / compressed.max(1) > limits.max_ratio {
            return exhausted(format!("layer grows to more than {} times its size (max_ratio)", limits.max_ratio));
        }
        Ok(())
    }
}

fn decode_error(e: io::Error) -> Error {
    match e.downcast::<Error>() {
        Ok(inner) => inner,
        Err(e) => refused("layer", format!("does not decompress: {e}")),
    }
}

/// The compressed bytes as a reader that hashes, counts and keeps them.
struct Compressed {
    chunks: Chunks,
    current: Bytes,
    hasher: Hasher,
    seen: u64,
    size: u64,
    blob: Option<File>,
    /// The error that ended the chunks; a decoder may wrap it beyond recognition.
    failed: Option<Error>,
}

impl Compressed {
    /// Takes the next chunk. `false` at the end.
    fn advance(&mut self) -> Result<bool> {
        if let Some(e) = &self.failed {
            return Err(e.clone());
        }
        match self.next_chunk() {
            Err(e) => {
                self.failed = Some(e.clone());
                Err(e)
            }
            ok => ok,
        }
    }

    fn next_chunk(&mut self) -> Result<bool> {
        while self.current.is_empty() {
            let Some(chunk) = self.chunks.blocking_recv() else {
                if self.seen < self.size {
                    return Err(Error::new(
                        ErrorKind::Unavailable,
                        format!("blob ends after {} of {} bytes", self.seen, self.size),
                    ));
                }
                return Ok(false);
            };
            self.current = chunk?;
            self.seen += self.current.len() as u64;
            if self.seen > self.size {
                return Err(refused(
                    "layer",
                    format!("blob is longer than the {} bytes that the manifest says", self.size),
                ));
            }
            self.hasher.update(&self.current);
            if let Some(file) = &mut self.blob {
                file.write_all(&self.current)?;
            }
        }
        Ok(true)
    }

    /// The first bytes, four or more unless the blob is shorter. Nothing is used up.
    fn start(&mut self) -> Result<Bytes> {
        let mut start = Vec::new();
        while start.len() < 4 && self.advance()? {
            start.extend_from_slice(&self.current);
            if start.len() >= 4 {
                break;
            }
            self.current = Bytes::new();
        }
        self.current = if start.len() == self.current.len() { self.current.clone() } else { start.into() };
        Ok(self.current.clone())
    }

    /// Reads what is left and compares the digest.
    fn verify(&mut self, digest: &Digest, shared: &Shared) -> Result<()> {
        self.current = Bytes::new();
        while self.advance()? {
            self.current = Bytes::new();
        }
        std::mem::take(&mut self.hasher).verify("layer", digest).inspect_err(|e| {
            // The first word counts, and this is called once.
            let _ = shared.altered.set(e.clone());
        })?;
        if let Some(file) = self.blob.take() {
            file.sync_data()?;
        }
        Ok(())
    }
}

impl Read for Compressed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, buffer)
    }
}

impl BufRead for Compressed {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.advance().map_err(io::Error::other)?;
        Ok(&self.current)
    }

    fn consume(&mut self, bytes: usize) {
        self.current.advance(bytes);
    }
}

/// `read` of a reader that has its bytes in a buffer anyway.
fn read_buffered(reader: &mut impl BufRead, buffer: &mut [u8]) -> io::Result<usize> {
    let step = reader.fill_buf()?.read(buffer)?;
    reader.consume(step);
    Ok(step)
}

/// The uncompressed bytes as a reader that hashes and counts them.
struct Inflated {
    filled: mpsc::Receiver<Result<Vec<u8>>>,
    empty: mpsc::SyncSender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
    hasher: Hasher,
    ended: bool,
}

impl Read for Inflated {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, buffer)
    }
}

impl BufRead for Inflated {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.current.len() && !self.ended {
            if self.current.capacity() > 0 {
                // Full only if the other side is gone, and then nobody needs the buffer.
                let _ = self.empty.try_send(std::mem::take(&mut self.current));
            }
            self.at = 0;
            match self.filled.recv() {
                Ok(Ok(buffer)) => {
                    self.hasher.update(&buffer);
                    self.current = buffer;
                }
                Ok(Err(e)) => return Err(io::Error::other(e)),
                // The sender is dropped only after the digest was right.
                Err(mpsc::RecvError) => {
                    self.ended = true;
                    self.current = Vec::new();
                }
            }
        }
        Ok(&self.current[self.at..])
    }

    fn consume(&mut self, bytes: usize) {
        self.at += bytes;
    }
}
