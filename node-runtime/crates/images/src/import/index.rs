//! What an archive of images says about itself: paths of its members, `manifest.json` of `docker save`, names of an OCI layout.
//!
//! Owns: which of it is accepted. Must not: read files. Every function here takes outside bytes and must never panic on them
//! (fuzz target `image_archive`).
//! Source: OCI image spec 1.1 `image-layout.md`; moby `image/spec/v1.2.md`; containerd's `io.containerd.image.name`.
use berth_model::{Error, ErrorKind, Reference, Result};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Largest `manifest.json` or `index.json` read, in bytes.
pub const MAX_DOCUMENT: u64 = 4 << 20;
/// Most images that one archive brings.
pub const MAX_IMAGES: usize = 1000;
/// Most layers of one of them.
const MAX_LAYERS: usize = 256;
/// Most names of one of them.
const MAX_NAMES: usize = 1000;
/// Longest path of a member in bytes.
const MAX_PATH: usize = 512;

/// Full name of an image, on entries of `index.json`.
const FULL_NAME: &str = "io.containerd.image.name";
/// A tag or a name, as the writer likes it.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// On manifests that say something about another one.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// One image of `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerEntry {
    /// Path of the configuration.
    pub config: String,
    /// Names.
    pub names: Vec<Reference>,
    /// Paths of the layers, lowest first.
    pub layers: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

fn refuse<T>(problem: impl std::fmt::Display) -> Result<T> {
    Err(Error::new(ErrorKind::FailedPrecondition, format!("image archive: {problem}")))
}

/// Parses `manifest.json`. Errors: `FailedPrecondition` naming what is wrong.
pub fn docker_manifest(bytes: &[u8]) -> Result<Vec<DockerEntry>> {
    if bytes.len() as u64 > MAX_DOCUMENT {
        return refuse(format!("manifest.json has {} bytes, at most {MAX_DOCUMENT} are read", bytes.len()));
    }
    let entries: Vec<Entry> = match serde_json::from_slice(bytes) {
        Ok(entries) => entries,
        Err(e) => return refuse(format!("manifest.json does not parse: {e}")),
    };
    if entries.is_empty() || entries.len() > MAX_IMAGES {
        return refuse(format!("manifest.json has {} images, 1 to {MAX_IMAGES} are read", entries.len()));
    }
    entries.into_iter().map(docker_entry).collect()
}

fn docker_entry(entry: Entry) -> Result<DockerEntry> {
    let (tags, layers) = (entry.repo_tags.unwrap_or_default(), entry.layers.unwrap_or_default());
    if tags.len() > MAX_NAMES {
        return refuse(format!("an image has {} names, at most {MAX_NAMES} are read", tags.len()));
    }
    if layers.len() > MAX_LAYERS {
        return refuse(format!("an image has {} layers, at most {MAX_LAYERS} are read", layers.len()));
    }
    let names = tags.iter().map(|tag| name(tag)).collect::<Result<_>>()?;
    let layers = layers.iter().map(|path| member_path(path.as_bytes())).collect::<Result<_>>()?;
    Ok(DockerEntry { config: member_path(entry.config.as_bytes())?, names, layers })
}

/// The name that an entry of `index.json` gives its image. A bare tag names nothing: the archive does not say of which repository.
pub fn oci_name(annotations: &BTreeMap<String, String>) -> Result<Option<Reference>> {
    if let Some(full) = annotations.get(FULL_NAME) {
        return name(full).map(Some);
    }
    match annotations.get(REF_NAME) {
        Some(text) if text.contains(['/', ':']) => name(text).map(Some),
        _ => Ok(None),
    }
}

/// Whether an entry of an index speaks about another one (an attestation).
pub fn is_attestation(annotations: &BTreeMap<String, String>) -> bool {
    annotations.contains_key(REFERENCE_TYPE)
}

/// The annotations that an exported image bears.
pub fn name_annotations(name: &Reference) -> BTreeMap<String, String> {
    let tag = name.tag().map(|t| t.as_str().to_owned());
    let own = [(FULL_NAME.to_owned(), name.to_string())];
    own.into_iter().chain(tag.map(|t| (REF_NAME.to_owned(), t))).collect()
}

fn name(text: &str) -> Result<Reference> {
    match Reference::parse(text) {
        Ok(reference) if reference.digest().is_none() => Ok(reference),
        Ok(_) => refuse(format!("image name {text:?} has a digest: only the content itself can prove one")),
        Err(e) => refuse(format!("image name: {}", e.message())),
    }
}

/// A member's path without `./` in front. Errors: `FailedPrecondition` for one that is absolute, leads upwards, or is no plain text.
pub fn member_path(path: &[u8]) -> Result<String> {
    let shown = || String::from_utf8_lossy(&path[..path.len().min(MAX_PATH)]).into_owned();
    let Ok(text) = std::str::from_utf8(path) else { return refuse(format!("path {:?} is not UTF-8", shown())) };
    if text.len() > MAX_PATH {
        return refuse(format!("path {:?}... is longer than {MAX_PATH} bytes", shown()));
    }
    if text.starts_with('/') || text.contains('\0') {
        return refuse(format!("path {text:?} is absolute or has a zero byte"));
    }
    let mut parts = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => return refuse(format!("path {text:?} leads out of the archive")),
            plain => parts.push(plain),
        }
    }
    Ok(parts.join("/"))
}

/// Where a symbolic link of the archive leads, within the archive: `docker save` writes a layer that two images share as
/// `<id>/layer.tar -> ../<other id>/layer.tar`. Errors: `FailedPrecondition` for one that leads out.
pub fn link_path(link: &str, target: &[u8]) -> Result<String> {
    let Ok(text) = std::str::from_utf8(target) else { return refuse(format!("link {link:?} leads to no plain text")) };
    if text.starts_with('/') || text.is_empty() || text.len() > MAX_PATH || text.contains('\0') {
        return refuse(format!("link {link:?} leads out of the archive, to {text:?}"));
    }
    let mut parts: Vec<&str> = link.split('/').collect();
    parts.pop();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.pop().is_none() => {
                return refuse(format!("link {link:?} leads out of the archive, to {text:?}"));
            }
            ".." => {}
            plain => parts.push(plain),
        }
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_of_docker_save_are_read() {
        let text = r#"[{"Config":"abc.json","RepoTags":["busybox:1","r.io/x/y:z"],"Layers":["./a/layer.tar","b/layer.tar"],
            "LayerSources":{}},{"Config":"d","RepoTags":null}]"#;
        let entries = docker_manifest(text.as_bytes()).unwrap();
        assert_eq!(entries[0].layers, ["a/layer.tar", "b/layer.tar"]);
        let names: Vec<String> = entries[0].names.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["docker.io/library/busybox:1", "r.io/x/y:z"]);
        assert!(entries[1].names.is_empty() && entries[1].layers.is_empty());
    }

    #[test]
    fn what_lies_is_refused() {
        let many = format!(r#"[{{"Config":"c","Layers":[{}]}}]"#, vec!["\"a\""; 257].join(","));
        let digest = format!(r#"[{{"Config":"c","RepoTags":["a@sha256:{}"]}}]"#, "0".repeat(64));
        for (text, problem) in [
            ("[]", "0 images"),
            ("{}", "does not parse"),
            (r#"[{"Config":"../c"}]"#, "leads out"),
            (r#"[{"Config":"c","Layers":["/etc/passwd"]}]"#, "absolute"),
            (r#"[{"Config":"c","RepoTags":["UPPER:x"]}]"#, "image name"),
            (&digest, "has a digest"),
            (&many, "257 layers"),
        ] {
            let error = docker_manifest(text.as_bytes()).unwrap_err();
            assert!(error.message().contains(problem), "{text}: {error}");
        }
    }

    #[test]
    fn paths_and_links_stay_within() {
        assert_eq!(member_path(b"./blobs//sha256/ab").unwrap(), "blobs/sha256/ab");
        for bad in ["/a", "a/../../b", "..", "a\0b", &"x/".repeat(400)] {
            assert!(member_path(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert_eq!(link_path("one/layer.tar", b"../two/layer.tar").unwrap(), "two/layer.tar");
        for bad in ["../../etc/passwd", "/etc/passwd", "", "../../../x"] {
            assert!(link_path("one/layer.tar", bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_of_layouts_are_full_or_none() {
        let with =
            |pairs: &[(&str, &str)]| oci_name(&pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect());
        assert_eq!(with(&[(REF_NAME, "latest")]).unwrap(), None);
        let name = |r: Result<Option<Reference>>| r.unwrap().unwrap().to_string();
        assert_eq!(name(with(&[(REF_NAME, "r.io/a:1")])), "r.io/a:1");
        assert_eq!(name(with(&[(REF_NAME, "1"), (FULL_NAME, "docker.io/library/a:1")])), "docker.io/library/a:1");
        assert!(with(&[(FULL_NAME, "a b")]).is_err());
        let reference = Reference::parse("r.io/a:1").unwrap();
        assert_eq!(oci_name(&name_annotations(&reference)).unwrap(), Some(reference));
    }
}
