//! An archive on its way in: its files lie in a directory of their own until it is known what they are.
//!
//! Owns: reading the archive once, from a stream, within limits, and the digest of every file. Names in the archive never become names on
//! disk. Must not: judge what the files mean.
use super::index::{link_path, member_path};
use crate::config::Limits;
use crate::layout::{Layout, Temporary};
use crate::refused;
use crate::unpack::{Archive, ChunkReader, Chunks, Kind, Member, stream_error};
use berth_model::{Digest, Error, ErrorKind, Result, ResultExt};
use berth_registry::{Descriptor, Hasher};
use bytes::Bytes;
use futures_util::{Stream, stream};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

/// Bytes read from a file of the spool at a time.
const CHUNK: usize = 1 << 20;
/// How often the space left on the disk is looked at, in bytes written.
const SPACE_CHECK_EVERY: u64 = 32 << 20;
/// Bytes of headers that an archive may have beside its files'.
const HEADERS: u64 = 64 << 20;
/// Most bytes behind an archive's end: tar(1) fills up to 10 KiB, and to what its `--record-size` says.
const MAX_BEHIND: u64 = 16 << 20;
/// What a stream that is counted says at its end.
const ENDLESS: &str = "more bytes than are read";
/// Where an OCI layout keeps its content.
const BLOBS: &str = "blobs/sha256/";

/// A file of the archive.
#[derive(Debug, Clone)]
pub(crate) struct SpoolFile {
    /// Where it lies.
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
    /// Their digest.
    pub digest: Digest,
}

/// The files of one archive. They are removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Spool {
    directory: Temporary,
    files: BTreeMap<String, SpoolFile>,
    links: BTreeMap<String, String>,
    by_digest: HashMap<Digest, String>,
}

impl Spool {
    /// Reads an archive, plain or compressed by gzip or zstd. Blocks. Errors: `FailedPrecondition` for what is no archive, or one with
    /// paths or links that lead out; `ResourceExhausted` for a limit or a full disk.
    pub fn read(layout: &Layout, limits: &Limits, chunks: Chunks) -> Result<Self> {
        let mut input = ChunkReader::new(chunks);
        let start = input.start().map_err(stream_error)?;
        let directory = layout.temporary_directory()?;
        let mut spool = Self { directory, files: BTreeMap::new(), links: BTreeMap::new(), by_digest: HashMap::new() };
        let mut budget = Budget { limits, layout, bytes: 0, next_check: 0 };
        match start.as_slice() {
            [0x1f, 0x8b, ..] => {
                spool.take(BufReader::with_capacity(CHUNK, flate2::bufread::MultiGzDecoder::new(input)), &mut budget)
            }
            [0x28, 0xb5, 0x2f, 0xfd] => {
                let decoder = zstd::stream::read::Decoder::with_buffer(input)?;
                spool.take(BufReader::with_capacity(CHUNK, decoder), &mut budget)
            }
            [0xfd, b'7', b'z', b'X'] => Err(refused("archive", unpack_first("xz"))),
            [b'B', b'Z', b'h', _] => Err(refused("archive", unpack_first("bzip2"))),
            _ => spool.take(input, &mut budget),
        }
        .map_err(|e| e.context("image archive"))?;
        Ok(spool)
    }

    fn take(&mut self, input: impl BufRead, budget: &mut Budget<'_>) -> Result<()> {
        // Headers, directories and what stands behind the end count too: a small archive unpacks to any number of them.
        let most = budget.limits.max_archive.saturating_add(HEADERS);
        let mut archive = Archive::new(Counted { input, left: most });
        let mut members = 0;
        while let Some(member) = archive.next_member().map_err(|e| over(e, budget.limits))? {
            let path = member_path(&member.path)?;
            members += 1;
            if members > budget.limits.max_archive_files {
                let max = budget.limits.max_archive_files;
                return Err(exhausted(format!("has more than {max} files and directories (max_archive_files)")));
            }
            if self.files.contains_key(&path) || self.links.contains_key(&path) {
                return Err(refused(format!("path {path:?}"), "stands twice in the archive"));
            }
            match member.kind {
                Kind::Directory => {}
                Kind::File => self.file(path, &mut archive, budget)?,
                Kind::Symlink => drop(self.links.insert(path.clone(), link_path(&path, &member.link)?)),
                Kind::HardLink => drop(self.links.insert(path, member_path(&member.link)?)),
                Kind::Fifo | Kind::CharDevice | Kind::BlockDevice => return Err(no_file(&member, &path)),
            }
        }
        let mut behind = archive.end(MAX_BEHIND);
        std::io::copy(&mut behind, &mut std::io::sink()).map_err(stream_error)?;
        if behind.limit() == 0 {
            return Err(refused("archive", format!("goes on for more than {MAX_BEHIND} bytes behind its end")));
        }
        Ok(())
    }

    fn file<R: BufRead>(&mut self, path: String, archive: &mut Archive<R>, budget: &mut Budget<'_>) -> Result<()> {
        let place = self.directory.path().join(self.files.len().to_string());
        let mut file = File::options().write(true).create_new(true).open(&place).context(|| place.display())?;
        let (mut hasher, mut size) = (Hasher::new(), 0);
        loop {
            let step = archive.data().map_err(stream_error)?;
            if step.is_empty() {
                break;
            }
            file.write_all(step).map_err(Error::from).context(|| format!("file {path:?}"))?;
            hasher.update(step);
            let length = step.len();
            archive.consume(length);
            size += length as u64;
            budget.spend(length as u64)?;
        }
        let digest = hasher.finish();
        if let Some(hex) = path.strip_prefix(BLOBS)
            && hex != digest.hex()
        {
            return Err(refused(format!("blob {hex}"), format!("has digest {digest}")));
        }
        self.by_digest.insert(digest.clone(), path.clone());
        self.files.insert(path, SpoolFile { path: place, size, digest });
        Ok(())
    }

    /// The file at a path of the archive; one link is followed.
    pub fn find(&self, path: &str) -> Option<&SpoolFile> {
        self.files.get(path).or_else(|| self.files.get(self.links.get(path)?))
    }

    /// The same for one that must be there.
    pub fn required(&self, path: &str) -> Result<&SpoolFile> {
        self.find(path).ok_or_else(|| refused("image archive", format!("has no file {path:?}")))
    }

    /// The content with a digest.
    pub fn content(&self, digest: &Digest) -> Option<&SpoolFile> {
        self.files.get(self.by_digest.get(digest)?)
    }

    /// Content that must be there, with the size that its descriptor says.
    pub fn described(&self, descriptor: &Descriptor) -> Result<&SpoolFile> {
        let Descriptor { digest, size, media_type, .. } = descriptor;
        let file = self.content(digest).ok_or_else(|| {
            refused(
                "image archive",
                format!("names {digest} ({media_type}) and does not have it: export the image whole"),
            )
        })?;
        if file.size != *size {
            return Err(refused(format!("{digest}"), format!("has {} bytes, its descriptor says {size}", file.size)));
        }
        Ok(file)
    }

    /// A small file's bytes.
    pub fn small(&self, file: &SpoolFile, limit: u64) -> Result<Bytes> {
        if file.size > limit {
            return Err(exhausted(format!("{} has {} bytes, at most {limit} are read", file.digest, file.size)));
        }
        Ok(std::fs::read(&file.path).context(|| file.path.display())?.into())
    }

    /// A layer's bytes, as a registry would send them.
    pub fn stream(
        self: &Arc<Self>,
        descriptor: &Descriptor,
    ) -> Result<impl Stream<Item = Result<Bytes>> + Send + 'static> {
        let path = &self.described(descriptor)?.path;
        let file = Arc::new(File::open(path).context(|| path.display())?);
        // The spool lives as long as somebody reads from it.
        let state = (file, self.clone());
        Ok(stream::try_unfold(state, |(file, spool)| async move {
            let reader = file.clone();
            let read = tokio::task::spawn_blocking(move || {
                let mut bytes = Vec::with_capacity(CHUNK);
                (&*reader).take(CHUNK as u64).read_to_end(&mut bytes).map(|_| bytes)
            });
            let bytes =
                read.await.map_err(|e| Error::internal(format!("a task of the image store ended early: {e}")))??;
            Ok((!bytes.is_empty()).then(|| (bytes.into(), (file, spool))))
        }))
    }
}

/// What docker reads and this does not: nothing makes such archives of images any more.
fn unpack_first(program: &str) -> String {
    format!("is compressed by {program}, which is not read here: {program} -dc FILE | berth load")
}

fn no_file(member: &Member, path: &str) -> Error {
    refused(format!("path {path:?}"), format!("is a {:?}, which archives of images do not have", member.kind))
}

fn exhausted(problem: String) -> Error {
    Error::new(ErrorKind::ResourceExhausted, problem)
}

fn too_large(limits: &Limits) -> Error {
    exhausted(format!("is larger than {} bytes uncompressed (max_archive)", limits.max_archive))
}

/// The end of a counted stream, as what it is.
fn over(e: Error, limits: &Limits) -> Error {
    if e.message().contains(ENDLESS) { too_large(limits) } else { e }
}

/// A stream that fails behind so many bytes.
struct Counted<R> {
    input: R,
    left: u64,
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let here = self.fill_buf()?;
        let step = here.len().min(buffer.len());
        buffer[..step].copy_from_slice(&here[..step]);
        self.consume(step);
        Ok(step)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        if self.left == 0 {
            return Err(std::io::Error::other(ENDLESS));
        }
        self.input.fill_buf()
    }

    fn consume(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes as u64);
        self.input.consume(bytes);
    }
}

/// What an archive may take.
struct Budget<'a> {
    limits: &'a Limits,
    layout: &'a Layout,
    bytes: u64,
    next_check: u64,
}

impl Budget<'_> {
    fn spend(&mut self, bytes: u64) -> Result<()> {
        self.bytes += bytes;
        if self.bytes > self.limits.max_archive {
            return Err(too_large(self.limits));
        }
        if self.limits.min_free == 0 || self.bytes < self.next_check {
            return Ok(());
        }
        self.next_check = self.bytes + SPACE_CHECK_EVERY;
        self.layout.need_free(self.limits.min_free)
    }
}
