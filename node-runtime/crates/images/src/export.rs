//! Images as an archive that `berth image import` takes: an OCI image layout with a `manifest.json`, as `docker save` has it, beside it.
//!
//! Owns: the archive's bytes, the same for the same images and names, whenever and wherever they are written. Must not: change anything
//! of the content: blobs go in as they are.
//! Source: OCI image spec 1.1 `image-layout.md`; moby `image/spec/v1.2.md`; POSIX ustar.
use crate::import::name_annotations;
use crate::record::ImageRecord;
use crate::refill::Complete;
use crate::{Images, refused};
use berth_model::{Digest, Error, Reference, Result, ResultExt};
use berth_registry::Descriptor;
use bytes::Bytes;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::mpsc;

pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const BLOCK: usize = 512;
/// An archive's length is a multiple of this, as tar(1) writes them.
const RECORD: u64 = 20 * BLOCK as u64;
/// Bytes handed on at a time.
const CHUNK: usize = 256 << 10;
/// Chunks on their way to a slow reader.
const CHUNKS: usize = 8;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    media_type: &'static str,
    manifests: Vec<Descriptor>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

/// One image with the names that it is exported under.
struct Chosen {
    image: Arc<ImageRecord>,
    names: Vec<Reference>,
    complete: Complete,
}

impl Images {
    /// Writes images into one archive. A name exports under that name, an id without any. Layers that were not kept are fetched first. The
    /// bytes come from the channel; an error ends them. Errors: `NotFound`, `FailedPrecondition` for layers that cannot be had.
    pub async fn export(&self, texts: &[String]) -> Result<mpsc::Receiver<Result<Bytes>>> {
        let mut chosen: BTreeMap<String, (Arc<ImageRecord>, BTreeSet<String>)> = BTreeMap::new();
        for text in texts {
            let image = self.find(text)?.ok_or_else(|| Error::not_found("image", text))?;
            let name = Reference::parse(text).ok().filter(|n| image.repo_tags.contains(n));
            let entry = chosen.entry(image.id.to_string()).or_insert_with(|| (image, BTreeSet::new()));
            entry.1.extend(name.map(|n| n.to_string()));
        }
        let mut images = Vec::new();
        for (image, names) in chosen.into_values() {
            let names = names.iter().filter_map(|n| Reference::parse(n).ok()).collect();
            let complete = self.complete(&image, None).await?;
            images.push(Chosen { image, names, complete });
        }
        let (sender, receiver) = mpsc::channel(CHUNKS);
        let store = self.clone();
        tokio::task::spawn_blocking(move || {
            let mut out = Archive { sender, pending: Vec::with_capacity(CHUNK), written: 0 };
            if let Err(e) = store.write_archive(&images, &mut out) {
                // The reader may be gone, and then nobody wants to know.
                let _ = out.sender.blocking_send(Err(e));
            }
        });
        Ok(receiver)
    }

    fn write_archive(&self, images: &[Chosen], out: &mut Archive) -> Result<()> {
        let encode = |value: serde_json::Result<Vec<u8>>| value.map_err(|e| Error::internal(e.to_string()));
        let manifests = images.iter().flat_map(entries).collect();
        let index = Index { schema_version: 2, media_type: INDEX, manifests };
        let docker: Vec<DockerEntry> = images.iter().map(docker_entry).collect();
        let blobs: BTreeSet<&Digest> = images.iter().flat_map(|c| c.image.blobs()).collect();
        for digest in blobs {
            let path = self.inner.layout.blob(digest);
            out.file(&member(digest), &path)?;
        }
        out.bytes("index.json", &encode(serde_json::to_vec(&index))?)?;
        out.bytes("manifest.json", &encode(serde_json::to_vec(&docker))?)?;
        out.bytes("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        out.finish()
    }
}

/// An image's entries of the index: one for each name.
fn entries(chosen: &Chosen) -> Vec<Descriptor> {
    let Chosen { image, names, complete } = chosen;
    let (digest, media_type, size) = match (&image.bundle, &complete.index) {
        (Some(bundle), Some((bytes, media_type))) => (&bundle.index, media_type.clone(), bytes.len() as u64),
        _ => (&image.manifest_digest, manifest_type(&complete.manifest_bytes), complete.manifest_bytes.len() as u64),
    };
    let entry = |annotations| Descriptor {
        media_type: media_type.clone(),
        digest: digest.clone(),
        size,
        platform: None,
        annotations,
    };
    match names.as_slice() {
        [] => vec![entry(BTreeMap::new())],
        names => names.iter().map(|name| entry(name_annotations(name))).collect(),
    }
}

/// The media type that a manifest declares; OCI's own where it does not.
pub(crate) fn manifest_type(bytes: &[u8]) -> String {
    declared_type(bytes).unwrap_or_else(|| MANIFEST.to_owned())
}

/// The media type that a manifest or an index declares.
pub(crate) fn declared_type(bytes: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Declared {
        media_type: Option<String>,
    }
    serde_json::from_slice::<Declared>(bytes).ok().and_then(|d| d.media_type)
}

fn docker_entry(chosen: &Chosen) -> DockerEntry {
    DockerEntry {
        config: member(&chosen.image.id),
        repo_tags: chosen.names.iter().map(ToString::to_string).collect(),
        layers: chosen.complete.manifest.layers.iter().map(|l| member(&l.digest)).collect(),
    }
}

fn member(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// A tar archive that is written into a channel.
struct Archive {
    sender: mpsc::Sender<Result<Bytes>>,
    pending: Vec<u8>,
    written: u64,
}

impl Archive {
    fn file(&mut self, name: &str, path: &PathBuf) -> Result<()> {
        let mut file = File::open(path).context(|| path.display())?;
        let size = file.metadata().context(|| path.display())?.len();
        self.put(&header(name, size)?)?;
        let mut buffer = vec![0; CHUNK];
        let mut left = size;
        while left > 0 {
            let n = file.read(&mut buffer).context(|| path.display())?;
            if n == 0 || n as u64 > left {
                return Err(refused(path.display(), "changed while it was read"));
            }
            left -= n as u64;
            self.put(&buffer[..n])?;
        }
        self.pad(BLOCK as u64)
    }

    fn bytes(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.put(&header(name, bytes.len() as u64)?)?;
        self.put(bytes)?;
        self.pad(BLOCK as u64)
    }

    fn pad(&mut self, unit: u64) -> Result<()> {
        let missing = usize::try_from(self.written.wrapping_neg() % unit).unwrap_or(0);
        self.put(&vec![0; missing])
    }

    fn finish(&mut self) -> Result<()> {
        self.put(&[0; 2 * BLOCK])?;
        self.pad(RECORD)?;
        self.flush()
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.pending.extend_from_slice(bytes);
        self.written += bytes.len() as u64;
        if self.pending.len() >= CHUNK { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let chunk = std::mem::replace(&mut self.pending, Vec::with_capacity(CHUNK));
        self.sender.blocking_send(Ok(chunk.into())).map_err(|_| crate::pull::given_up())
    }
}

/// A ustar header of a regular file: mode 0644, owner 0, time 0.
fn header(name: &str, size: u64) -> Result<[u8; BLOCK]> {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    if name.len() > 100 {
        return Err(Error::internal(format!("member name {name} is too long")));
    }
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    if size < 1 << 33 {
        put(124, format!("{size:011o}\0").as_bytes());
    } else {
        // Base 256, as GNU and Go read and write it.
        put(124, &[0x80, 0, 0, 0]);
        put(128, &size.to_be_bytes());
    }
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    let text = format!("{sum:06o}\0 ");
    block[148..156].copy_from_slice(text.as_bytes());
    Ok(block)
}
