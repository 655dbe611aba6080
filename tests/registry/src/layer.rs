//! Layers: entries, packed and compressed, with the digests that name them.
//!
//! Owns: the bytes of a layer blob. Must not: know a registry.
use crate::entry::Entry;
use crate::{sha256, tarball};
use aws_lc_rs::digest;
use berth_model::Digest;
use bytes::Bytes;
use std::io::{self, Write};

/// How a layer blob is compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    Plain,
    /// gzip: what almost all images use.
    #[default]
    Gzip,
    /// zstd.
    Zstd,
}

impl Compression {
    /// The OCI media type of a layer so compressed.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Plain => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// A layer under construction.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    entries: Vec<Entry>,
    compression: Compression,
    raw: Option<Bytes>,
    media_type: Option<String>,
    diff_id: Option<Digest>,
    declared_size: Option<u64>,
}

/// A finished layer.
#[derive(Debug, Clone)]
pub struct BuiltLayer {
    /// The blob as the registry serves it.
    pub blob: Bytes,
    /// Its digest.
    pub digest: Digest,
    /// Digest of the uncompressed tar stream.
    pub diff_id: Digest,
    /// Media type for the descriptor.
    pub media_type: String,
    /// Size for the descriptor; the blob's, unless the test lies.
    pub size: u64,
}

impl Layer {
    /// An empty layer, gzip.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty layer with this compression.
    pub fn with_compression(compression: Compression) -> Self {
        Self { compression, ..Self::default() }
    }

    /// A blob that is not a tar archive of ours: rubbish, or an archive made elsewhere. The diff id is that of the bytes
    /// unless [`Layer::diff_id`] sets one.
    pub fn raw(blob: impl Into<Bytes>, media_type: &str) -> Self {
        Self { raw: Some(blob.into()), media_type: Some(media_type.to_owned()), ..Self::default() }
    }

    /// Adds an entry.
    #[must_use]
    pub fn entry(mut self, entry: Entry) -> Self {
        self.entries.push(entry);
        self
    }

    /// Adds many entries.
    #[must_use]
    pub fn entries(mut self, entries: impl IntoIterator<Item = Entry>) -> Self {
        self.entries.extend(entries);
        self
    }

    /// Adds a regular file with permission bits.
    #[must_use]
    pub fn file(self, path: &str, mode: u32, bytes: impl Into<Vec<u8>>) -> Self {
        self.entry(Entry::file(path, bytes).mode(mode))
    }

    /// Adds a directory, mode 0755.
    #[must_use]
    pub fn dir(self, path: &str) -> Self {
        self.entry(Entry::dir(path))
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(Entry::symlink(path, target))
    }

    /// Claims another media type than the compression's.
    #[must_use]
    pub fn media_type(mut self, media_type: &str) -> Self {
        self.media_type = Some(media_type.to_owned());
        self
    }

    /// Claims another diff id than the true one.
    #[must_use]
    pub fn diff_id(mut self, diff_id: Digest) -> Self {
        self.diff_id = Some(diff_id);
        self
    }

    /// Claims another size in the descriptor than the blob's.
    #[must_use]
    pub fn declared_size(mut self, size: u64) -> Self {
        self.declared_size = Some(size);
        self
    }

    /// Packs and compresses. Errors: the compressor's, which in memory means none.
    pub fn build(&self) -> io::Result<BuiltLayer> {
        let (blob, diff_id) = match &self.raw {
            Some(raw) => (raw.clone(), sha256(raw)),
            None => self.pack()?,
        };
        let media_type = self.media_type.clone().unwrap_or_else(|| self.compression.media_type().to_owned());
        Ok(BuiltLayer {
            digest: sha256(&blob),
            size: self.declared_size.unwrap_or(blob.len() as u64),
            diff_id: self.diff_id.clone().unwrap_or(diff_id),
            media_type,
            blob,
        })
    }

    fn pack(&self) -> io::Result<(Bytes, Digest)> {
        let (blob, diff_id) = match self.compression {
            Compression::Plain => {
                let mut tee = Tee::new(Vec::new());
                tarball::write_all(&mut tee, &self.entries)?;
                tee.finish()
            }
            Compression::Gzip => {
                let mut tee = Tee::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
                tarball::write_all(&mut tee, &self.entries)?;
                let (gz, diff_id) = tee.finish();
                (gz.finish()?, diff_id)
            }
            Compression::Zstd => {
                let mut tee = Tee::new(zstd::stream::Encoder::new(Vec::new(), 1)?);
                tarball::write_all(&mut tee, &self.entries)?;
                let (z, diff_id) = tee.finish();
                (z.finish()?, diff_id)
            }
        };
        Ok((blob.into(), diff_id))
    }
}

/// Hashes what passes through, so that the diff id needs no second pass and a bomb no memory.
struct Tee<W> {
    inner: W,
    hash: digest::Context,
}

impl<W: Write> Tee<W> {
    fn new(inner: W) -> Self {
        Self { inner, hash: digest::Context::new(&digest::SHA256) }
    }

    fn finish(self) -> (W, Digest) {
        (self.inner, crate::digest_of(&self.hash.finish()))
    }
}

impl<W: Write> Write for Tee<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
