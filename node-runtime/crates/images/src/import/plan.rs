//! From an archive's files to the images in it.
//!
//! Owns: the choice of the platform, and whether an index is whole. Must not: unpack or keep anything.
use super::index::{self, DockerEntry, MAX_DOCUMENT, MAX_IMAGES, docker_manifest};
use super::spool::{Spool, SpoolFile};
use super::{Found, no_image};
use crate::config::Limits;
use crate::pull::check_types;
use crate::record::Bundle;
use crate::refused;
use berth_model::{Digest, Reference, Result, ResultExt};
use berth_registry::{
    Descriptor, ImageManifest, ManifestKind, MediaKind, Platform, parse_manifest, select_platform, sha256,
};
use serde::Serialize;
use std::collections::BTreeMap;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// Most blobs beside an image's own that an index may bring.
const MAX_BESIDE: usize = 1000;

/// The manifest that is written for an image which has none. Its bytes are its digest, so the fields' order is part of it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u32,
    media_type: &'static str,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

/// The images of an archive for this node. Errors: `FailedPrecondition` naming what is wrong; `NotFound` where there is none.
pub(crate) fn plan(spool: &Spool, limits: &Limits, platform: &Platform) -> Result<Vec<Found>> {
    if let (Some(_), Some(index)) = (spool.find("oci-layout"), spool.find("index.json")) {
        return layout(spool, &spool.small(index, MAX_DOCUMENT)?, platform);
    }
    match spool.find("manifest.json") {
        Some(manifest) => {
            let entries = docker_manifest(&spool.small(manifest, MAX_DOCUMENT)?)?;
            entries.into_iter().map(|entry| docker(spool, entry, limits)).collect()
        }
        None => Err(refused(
            "image archive",
            "has neither oci-layout with index.json nor manifest.json: it is no archive of images (`docker save`, `berth image export`)",
        )),
    }
}

/// An OCI image layout.
fn layout(spool: &Spool, index: &[u8], wanted: &Platform) -> Result<Vec<Found>> {
    let ManifestKind::Index(entries) = parse_manifest(index, INDEX).context(|| "index.json")? else {
        return Err(refused("index.json", "is no index"));
    };
    if entries.len() > MAX_IMAGES {
        return Err(refused("index.json", format!("has {} images, at most {MAX_IMAGES} are read", entries.len())));
    }
    // One image may stand there under several names.
    let mut images: Vec<(Descriptor, Vec<Reference>)> = Vec::new();
    let mut elsewhere = Vec::new();
    let about = |e: &Descriptor| index::is_attestation(&e.annotations);
    let (entries, names) = named(entries.into_iter().filter(|e| !about(e)).collect())?;
    for (entry, name) in entries.iter().cloned().zip(names.clone()) {
        if let Some(platform) = entry.platform.as_ref().filter(|p| !fits(p, wanted)) {
            elsewhere.push(platform.to_string());
            continue;
        }
        if let Some(platform) = entry.platform.as_ref().filter(|_| name.is_some()) {
            // One name for several variants of the architecture: the one that a pull would take.
            let same = entries.iter().zip(&names).filter(|(e, n)| e.platform.is_some() && **n == name);
            let same: Vec<Descriptor> = same.map(|(e, _)| e.clone()).collect();
            if select_platform(&same, wanted).map_or(true, |best| best.digest != entry.digest) {
                elsewhere.push(platform.to_string());
                continue;
            }
        }
        match images.iter_mut().find(|(e, _)| e.digest == entry.digest) {
            Some((_, names)) => names.extend(name),
            None => images.push((entry, name.into_iter().collect())),
        }
    }
    if images.is_empty() {
        let found = if elsewhere.is_empty() { "nothing".to_owned() } else { elsewhere.join(", ") };
        return Err(no_image(format!("has no image for {wanted}; it has {found}")));
    }
    images.into_iter().map(|(entry, names)| described(spool, &entry, names, wanted)).collect()
}

/// Entries with the names that they give their images.
fn named(entries: Vec<Descriptor>) -> Result<(Vec<Descriptor>, Vec<Option<Reference>>)> {
    let names = entries.iter().map(|entry| index::oci_name(&entry.annotations)).collect::<Result<_>>()?;
    Ok((entries, names))
}

fn fits(platform: &Platform, wanted: &Platform) -> bool {
    (&platform.os, &platform.architecture) == (&wanted.os, &wanted.architecture)
}

/// An image by its entry: a manifest, or an index to choose from.
fn described(spool: &Spool, entry: &Descriptor, names: Vec<Reference>, wanted: &Platform) -> Result<Found> {
    let bytes = spool.small(spool.described(entry)?, MAX_DOCUMENT)?;
    let (manifest, bundle) = match parse_manifest(&bytes, &entry.media_type)? {
        ManifestKind::Image(manifest) => {
            return found(names, (entry.digest.clone(), bytes, manifest), None);
        }
        ManifestKind::Index(entries) => {
            let own = select_platform(&entries, wanted)?;
            (own.clone(), whole(spool, &entry.digest, &entries, own))
        }
    };
    let bytes = spool.small(spool.described(&manifest)?, MAX_DOCUMENT)?;
    match parse_manifest(&bytes, &manifest.media_type)? {
        ManifestKind::Image(parsed) => found(names, (manifest.digest, bytes, parsed), bundle),
        ManifestKind::Index(_) => Err(refused("image index", "names another index for this platform")),
    }
}

fn found(
    names: Vec<Reference>,
    (manifest_digest, manifest_bytes, manifest): (Digest, bytes::Bytes, ImageManifest),
    bundle: Option<Bundle>,
) -> Result<Found> {
    check_types(&manifest)?;
    Ok(Found { names, manifest_digest, manifest_bytes, manifest, bundle })
}

/// The index with all that it names beside the node's own image: `None` when something is missing here, or is an image for another
/// platform, which the node does not keep.
fn whole(spool: &Spool, index: &Digest, entries: &[Descriptor], own: &Descriptor) -> Option<Bundle> {
    let mut blobs = Vec::new();
    for entry in entries.iter().filter(|e| e.digest != own.digest) {
        let about = index::is_attestation(&entry.annotations);
        if !about || MediaKind::of(&entry.media_type) != Some(MediaKind::Image) {
            return None;
        }
        let bytes = spool.small(spool.described(entry).ok()?, MAX_DOCUMENT).ok()?;
        let Ok(ManifestKind::Image(manifest)) = parse_manifest(&bytes, &entry.media_type) else { return None };
        blobs.push(entry.digest.clone());
        for part in manifest.layers.iter().chain([&manifest.config]) {
            spool.described(part).ok()?;
            blobs.push(part.digest.clone());
        }
        if blobs.len() > MAX_BESIDE {
            return None;
        }
    }
    blobs.sort();
    blobs.dedup();
    Some(Bundle { index: index.clone(), blobs })
}

/// An image of `docker save`: it has no manifest that a registry knows, so one is written.
fn docker(spool: &Spool, entry: DockerEntry, limits: &Limits) -> Result<Found> {
    let config = spool.required(&entry.config)?;
    if config.size > limits.max_config {
        return Err(refused(format!("{:?}", entry.config), format!("is larger than {} bytes", limits.max_config)));
    }
    let stem = entry.config.strip_suffix(".json").unwrap_or(&entry.config).rsplit('/').next().unwrap_or_default();
    if stem.len() == config.digest.hex().len() && stem != config.digest.hex() {
        return Err(refused(format!("configuration {:?}", entry.config), format!("has digest {}", config.digest)));
    }
    let layers = entry.layers.iter().map(|path| layer(spool.required(path)?)).collect::<Result<Vec<_>>>()?;
    let own = Descriptor {
        media_type: CONFIG.to_owned(),
        digest: config.digest.clone(),
        size: config.size,
        platform: None,
        annotations: BTreeMap::new(),
    };
    let document = Document { schema_version: 2, media_type: MANIFEST, config: own, layers };
    let bytes = serde_json::to_vec(&document).map_err(|e| berth_model::Error::internal(e.to_string()))?;
    let bytes = bytes::Bytes::from(bytes);
    let ManifestKind::Image(manifest) = parse_manifest(&bytes, MANIFEST)? else {
        return Err(refused("image archive", "makes no manifest"));
    };
    found(entry.names, (sha256(&bytes), bytes, manifest), None)
}

/// A layer's descriptor. How it is compressed its first bytes tell.
fn layer(file: &SpoolFile) -> Result<Descriptor> {
    let mut start = [0; 4];
    let mut reader = std::fs::File::open(&file.path).context(|| file.path.display())?;
    let read = std::io::Read::read(&mut reader, &mut start)?;
    let media_type = match &start[..read] {
        [0x1f, 0x8b, ..] => format!("{LAYER}+gzip"),
        [0x28, 0xb5, 0x2f, 0xfd] => format!("{LAYER}+zstd"),
        _ => LAYER.to_owned(),
    };
    let (digest, size) = (file.digest.clone(), file.size);
    Ok(Descriptor { media_type, digest, size, platform: None, annotations: BTreeMap::new() })
}
