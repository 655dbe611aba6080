//! OCI image layouts: images as directories, the way tools hand them on without a registry.
//!
//! Owns: writing a finished image as a layout, and filling a registry from one. Must not: build images.
//! Source: OCI image spec 1.1, `image-layout.md`.
use crate::image::{BuiltImage, DOCKER_LIST, OCI_INDEX};
use crate::{Registry, sha256};
use berth_model::Digest;
use bytes::Bytes;
use serde_json::{Value, json};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The annotation that names a manifest of a layout: its tag.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The tag of a manifest that has no name.
const DEFAULT_TAG: &str = "latest";
/// How deep an index may lie in another one.
const MAX_DEPTH: u8 = 4;

impl BuiltImage {
    /// Writes the image as a layout into `dir`, which is made; `tag` becomes its name there. Errors: the file system's.
    pub fn write_layout(&self, dir: &Path, tag: &str) -> io::Result<()> {
        fs::create_dir_all(dir.join("blobs/sha256"))?;
        for layer in &self.layers {
            write_blob(dir, &layer.digest, &layer.blob)?;
        }
        write_blob(dir, &self.config_digest, &self.config)?;
        write_blob(dir, &self.digest, &self.manifest)?;
        let descriptor = json!({
            "mediaType": self.media_type,
            "digest": self.digest.as_str(),
            "size": self.manifest.len(),
            "annotations": {REF_NAME: tag},
            "platform": {"os": self.os, "architecture": self.architecture},
        });
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor]});
        fs::write(dir.join("index.json"), serde_json::to_vec(&index)?)?;
        fs::write(dir.join("oci-layout"), json!({"imageLayoutVersion": "1.0.0"}).to_string())
    }
}

fn write_blob(dir: &Path, digest: &Digest, bytes: &[u8]) -> io::Result<()> {
    fs::write(blob_path(dir, digest), bytes)
}

fn blob_path(dir: &Path, digest: &Digest) -> PathBuf {
    dir.join("blobs").join(digest.as_str().replace(':', "/"))
}

impl Registry {
    /// Stores every image that the layout in `dir` names, in `repo`, under `tag`, or else under the names that the layout
    /// gives them. Returns tags and digests. Errors: no layout, a blob that is missing or has another digest.
    pub fn push_layout(&self, repo: &str, tag: Option<&str>, dir: &Path) -> io::Result<Vec<(String, Digest)>> {
        let at = |path: &Path, e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        let path = dir.join("index.json");
        let bytes = fs::read(&path).map_err(|e| at(&path, e))?;
        let index: Value = serde_json::from_slice(&bytes).map_err(|e| at(&path, e.into()))?;
        let mut pushed = Vec::new();
        for descriptor in list(&index, "manifests") {
            let name = tag.or_else(|| descriptor["annotations"][REF_NAME].as_str()).unwrap_or(DEFAULT_TAG);
            pushed.push((name.to_owned(), self.push_manifest(repo, Some(name), dir, descriptor, 0)?));
        }
        if pushed.is_empty() {
            return Err(at(&path, invalid("names no manifest")));
        }
        Ok(pushed)
    }

    /// Stores a manifest and all that it refers to, lowest first.
    fn push_manifest(
        &self,
        repo: &str,
        tag: Option<&str>,
        dir: &Path,
        descriptor: &Value,
        depth: u8,
    ) -> io::Result<Digest> {
        let (_, bytes) = blob(dir, descriptor)?;
        let document: Value = serde_json::from_slice(&bytes)?;
        let media_type = descriptor["mediaType"].as_str().or_else(|| document["mediaType"].as_str());
        let media_type = media_type.ok_or_else(|| invalid("a manifest without a media type"))?;
        if media_type == OCI_INDEX || media_type == DOCKER_LIST {
            if depth == MAX_DEPTH {
                return Err(invalid("indexes lie too deep in one another"));
            }
            for inner in list(&document, "manifests") {
                self.push_manifest(repo, None, dir, inner, depth + 1)?;
            }
        } else {
            for part in std::iter::once(&document["config"]).chain(list(&document, "layers")) {
                let (digest, bytes) = blob(dir, part)?;
                self.put_blob_as(digest, bytes);
            }
        }
        Ok(self.put_manifest(repo, tag, media_type, bytes))
    }
}

/// The blob that a descriptor names, compared with its digest.
fn blob(dir: &Path, descriptor: &Value) -> io::Result<(Digest, Bytes)> {
    let text = descriptor["digest"].as_str().unwrap_or_default();
    let digest = Digest::parse(text).map_err(|e| invalid(&e.to_string()))?;
    let path = blob_path(dir, &digest);
    let bytes = fs::read(&path).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
    if sha256(&bytes) != digest {
        return Err(invalid(&format!("{}: content has another digest", path.display())));
    }
    Ok((digest, bytes.into()))
}

fn list<'a>(document: &'a Value, key: &str) -> &'a [Value] {
    document[key].as_array().map_or(&[], Vec::as_slice)
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.to_owned())
}
