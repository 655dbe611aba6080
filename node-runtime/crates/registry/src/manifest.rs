//! Manifests and indexes: parsing under limits, and the choice of a platform.
//!
//! Owns: what is accepted as an image. Must not: fetch. Every function here takes outside bytes and must never panic on them.
//! Source: OCI image spec 1.1 (`manifest.md`, `image-index.md`), Docker image manifest version 2 schema 2.
use berth_model::{Digest, Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Most entries of an index.
pub const MAX_INDEX_ENTRIES: usize = 1000;
/// Most layers of an image; overlayfs and the peers end lower.
pub const MAX_LAYERS: usize = 256;
/// Largest document parsed; a client may be set lower.
const MAX_BYTES: usize = 4 << 20;

/// What a media type says a document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaKind {
    /// An index (OCI) or manifest list (Docker).
    Index,
    /// An image manifest.
    Image,
}

impl MediaKind {
    /// The kind of a media type; `None` for others.
    pub fn of(media_type: &str) -> Option<Self> {
        match media_type {
            "application/vnd.oci.image.index.v1+json" | "application/vnd.docker.distribution.manifest.list.v2+json" => {
                Some(Self::Index)
            }
            "application/vnd.oci.image.manifest.v1+json" | "application/vnd.docker.distribution.manifest.v2+json" => {
                Some(Self::Image)
            }
            _ => None,
        }
    }

    /// Whether it is the schema that proves nothing.
    pub(crate) fn is_schema1(media_type: &str) -> bool {
        matches!(
            media_type,
            "application/vnd.docker.distribution.manifest.v1+json"
                | "application/vnd.docker.distribution.manifest.v1+prettyjws"
        )
    }
}

/// A media type without parameters, in lower case.
pub(crate) fn media_type(header: &str) -> String {
    header.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// A platform that an image is for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// GOOS.
    pub os: String,
    /// GOARCH.
    pub architecture: String,
    /// Variant, such as `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// This node's.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", Some("v8")),
            "arm" => ("arm", Some("v7")),
            "x86" => ("386", None),
            "powerpc64" => ("ppc64le", None),
            other => (other, None),
        };
        Self { os: "linux".into(), architecture: architecture.into(), variant: variant.map(Into::into) }
    }

    /// A platform of this node as people name it: `OS[/ARCH[/VARIANT]]` or `ARCH[/VARIANT]`, with the names that uname(1) has too. Errors:
    /// `InvalidArgument` for what is none, and for one whose programs do not run here.
    pub fn of_node(text: &str) -> Result<Self> {
        let host = Self::host();
        let parts: Vec<&str> = text.split('/').collect();
        let word = |part: &&str| {
            !part.is_empty() && part.len() <= 32 && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        let shaped = !parts.is_empty() && parts.len() <= 3 && parts.iter().all(word);
        let lower: Vec<String> = parts.iter().map(|part| part.to_ascii_lowercase()).collect();
        let (architecture, variant) = match lower.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            _ if !shaped => (None, None),
            ["linux"] => (Some(host.architecture.as_str()), None),
            ["linux", architecture] => (Some(architecture), None),
            ["linux", architecture, variant] => (Some(architecture), Some(variant)),
            [architecture, variant] => (Some(architecture), Some(variant)),
            [architecture] => (Some(architecture), None),
            _ => (None, None),
        };
        let Some(architecture) = architecture else {
            return Err(Error::invalid(
                "platform",
                format!("{text:?} must be OS/ARCH or OS/ARCH/VARIANT, as in {host}"),
            ));
        };
        let (architecture, implied) = match architecture {
            "x86_64" | "x86-64" => ("amd64", None),
            "aarch64" => ("arm64", None),
            "armhf" => ("arm", Some("v7")),
            "armel" => ("arm", Some("v6")),
            "i386" | "i686" => ("386", None),
            other => (other, None),
        };
        if architecture != host.architecture {
            let text = format!(
                "{text:?} is not this node's: programs for it do not run here ({host}); to carry an image for other nodes, use a tool that \
                 runs nothing (skopeo copy)"
            );
            return Err(Error::invalid("platform", text));
        }
        let variant = variant.or(implied).map(str::to_owned).or_else(|| host.variant.clone());
        let platform = Self { variant, ..host };
        match platform.level() {
            Some(_) => Ok(platform),
            None => Err(Error::invalid("platform", format!("{text:?}: a variant is v and a number, as in v2"))),
        }
    }

    /// The variant as a number, with what an absent one means.
    fn level(&self) -> Option<u32> {
        match (self.variant.as_deref().unwrap_or_default(), self.architecture.as_str()) {
            ("", "amd64") => Some(1),
            ("", "arm64") => Some(8),
            ("", "arm") => Some(7),
            ("", _) => Some(0),
            (text, _) => text.strip_prefix('v')?.parse().ok(),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

/// A pointer to content (OCI image spec, `descriptor.md`). Its `urls` are not kept: content comes from the registry alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    /// Media type.
    #[serde(rename = "mediaType")]
    pub media_type: String,
    /// Digest.
    pub digest: Digest,
    /// Size in bytes.
    pub size: u64,
    /// Platform, for entries of an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The annotation by which BuildKit marks what it says about an image (BuildKit, docs/attestations/attestation-storage.md).
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

impl Descriptor {
    /// Whether it is an attestation beside images, not an image.
    pub fn is_attestation(&self) -> bool {
        self.annotations.get(REFERENCE_TYPE).is_some_and(|kind| kind == "attestation-manifest")
    }

    /// Whether it is a layer that its publisher did not want distributed, so that registries often lack it.
    pub fn is_foreign(&self) -> bool {
        self.media_type.contains(".nondistributable.") || self.media_type.contains(".foreign.")
    }
}

/// A parsed image manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageManifest {
    /// The configuration; its digest is the image id.
    pub config: Descriptor,
    /// Layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// What an artifact is, where it is no image.
    pub artifact_type: Option<String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

/// One of the two documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestKind {
    /// An index over others.
    Index(Vec<Descriptor>),
    /// One image.
    Image(ImageManifest),
}

/// Everything either document may hold, so that one that tries to be both is seen (CVE-2021-41190).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    // Only their presence counts: schema 1 has them.
    fs_layers: Option<serde::de::IgnoredAny>,
}

fn bad(problem: impl fmt::Display) -> Error {
    Error::new(ErrorKind::FailedPrecondition, format!("image manifest: {problem}"))
}

/// Parses a manifest or index. `declared` is the `Content-Type` or the descriptor's media type; it may be empty or general
/// (`application/json`), then the document must declare its own. Errors: `FailedPrecondition` naming what is wrong.
pub fn parse_manifest(bytes: &[u8], declared: &str) -> Result<ManifestKind> {
    if bytes.len() > MAX_BYTES {
        return Err(bad(format!("has {} bytes, at most {MAX_BYTES} are read", bytes.len())));
    }
    let document: Document = serde_json::from_slice(bytes).map_err(|e| bad(format!("cannot be read: {e}")))?;
    let kind = kind_of(&document, &media_type(declared))?;
    let Document { manifests, config, layers, artifact_type, annotations, .. } = document;
    match (kind, manifests, config, layers) {
        (MediaKind::Index, Some(entries), None, None) => {
            limit("manifests", entries.len(), MAX_INDEX_ENTRIES)?;
            Ok(ManifestKind::Index(entries))
        }
        (MediaKind::Image, None, Some(config), Some(layers)) => {
            limit("layers", layers.len(), MAX_LAYERS)?;
            let annotations = annotations.unwrap_or_default();
            Ok(ManifestKind::Image(ImageManifest { config, layers, artifact_type, annotations }))
        }
        (MediaKind::Index, ..) => Err(bad("an index must have manifests, and neither config nor layers")),
        (MediaKind::Image, ..) => Err(bad("an image must have config and layers, and no manifests")),
    }
}

fn kind_of(document: &Document, declared: &str) -> Result<MediaKind> {
    let own = document.media_type.as_deref().unwrap_or_default();
    if [own, declared].into_iter().any(MediaKind::is_schema1)
        || document.schema_version == 1
        || document.fs_layers.is_some()
    {
        return Err(bad("Docker schema 1 is not supported; push the image again with a current tool"));
    }
    if document.schema_version != 2 {
        return Err(bad(format!("schemaVersion is {}, must be 2", document.schema_version)));
    }
    let general = ["", "application/json", "application/octet-stream", "text/plain"].contains(&declared);
    match (MediaKind::of(own), MediaKind::of(declared)) {
        (Some(_), Some(_)) if own != declared => {
            Err(bad(format!("the registry declares {declared:?}, the document {own:?}")))
        }
        (Some(kind), Some(_)) => Ok(kind),
        (Some(kind), None) if general => Ok(kind),
        (None, Some(kind)) if own.is_empty() => Ok(kind),
        (None, None) if own.is_empty() && general => Err(bad("nothing declares its media type")),
        (None, _) if !own.is_empty() => Err(bad(format!("media type {own:?} is not an image or index"))),
        _ => Err(bad(format!("media type {declared:?} is not an image or index"))),
    }
}

fn limit(field: &str, count: usize, most: usize) -> Result<()> {
    if count > most { Err(bad(format!("{field} has {count} entries, at most {most} are allowed"))) } else { Ok(()) }
}

/// The entry for a platform: same system and architecture, the highest variant that is not above the wanted one; the first of
/// equals. Attestations beside images are never chosen. An index whose only other entry states no platform gives that one. Errors:
/// `NotFound` with the platforms that exist.
pub fn select_platform<'a>(entries: &'a [Descriptor], wanted: &Platform) -> Result<&'a Descriptor> {
    let most = wanted.level().unwrap_or(0);
    let mut best: Option<(u32, &Descriptor)> = None;
    let images: Vec<&Descriptor> = entries.iter().filter(|e| !e.is_attestation()).collect();
    for entry in &images {
        let Some(platform) = &entry.platform else { continue };
        if platform.os != wanted.os || platform.architecture != wanted.architecture {
            continue;
        }
        if let Some(level) = platform.level().filter(|level| *level <= most)
            && best.is_none_or(|(highest, _)| level > highest)
        {
            best = Some((level, entry));
        }
    }
    match (best, images.as_slice()) {
        (Some((_, entry)), _) => Ok(entry),
        (None, [only]) if only.platform.is_none() => Ok(only),
        _ => Err(Error::new(ErrorKind::NotFound, format!("no image for {wanted}; the index has {}", listed(entries)))),
    }
}

/// The platforms of an index for people, attestations left out.
fn listed(entries: &[Descriptor]) -> String {
    let known = entries.iter().filter_map(|e| e.platform.as_ref()).filter(|p| p.os != "unknown");
    let mut names: Vec<String> = known.take(10).map(|p| p.to_string().chars().take(64).collect()).collect();
    names.dedup();
    if names.is_empty() { "none that states a platform".into() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

    fn descriptor() -> Value {
        json!({"mediaType": "x/y", "digest": format!("sha256:{}", "0".repeat(64)), "size": 3})
    }

    fn image(layers: usize) -> Value {
        json!({"schemaVersion": 2, "mediaType": IMAGE, "config": descriptor(), "layers": vec![descriptor(); layers]})
    }

    fn parse(document: &Value, declared: &str) -> Result<ManifestKind> {
        parse_manifest(document.to_string().as_bytes(), declared)
    }

    fn refused(document: &Value, declared: &str, why: &str) {
        let e = parse(document, declared).unwrap_err();
        assert!(e.message().contains(why), "{e} does not say {why}");
    }

    #[test]
    fn people_name_this_nodes_platform_in_several_ways() {
        let host = Platform::host();
        let of = |text: &str| Platform::of_node(text);
        for text in [
            "linux",
            &host.architecture,
            &format!("linux/{}", host.architecture),
            &format!("Linux/{}", host.architecture),
        ] {
            assert_eq!(of(text).unwrap(), host, "{text}");
        }
        assert_eq!(of(std::env::consts::ARCH).unwrap(), host);
        for text in [format!("linux/{}/v3", host.architecture), format!("{}/v3", host.architecture)] {
            assert_eq!(of(&text).unwrap(), Platform { variant: Some("v3".into()), ..host.clone() });
        }
        for (text, why) in [
            ("linux/s390x", "not this node's"),
            ("windows/amd64", "not this node's"),
            ("", "must be OS/ARCH"),
            ("linux/", "must be OS/ARCH"),
            ("a/b/c/d", "must be OS/ARCH"),
            ("windows/amd64/v1", "must be OS/ARCH"),
            ("linux/\x1b[2J", "must be OS/ARCH"),
        ] {
            let error = of(text).unwrap_err();
            assert!(error.message().contains(why), "{text}: {error}");
        }
        let error = of(&format!("linux/{}/x3", host.architecture)).unwrap_err();
        assert!(error.message().contains("v and a number"), "{error}");
    }

    #[test]
    fn good_documents_are_read() {
        let Ok(ManifestKind::Image(found)) = parse(&image(2), IMAGE) else { panic!("not an image") };
        assert_eq!((found.layers.len(), found.config.size), (2, 3));
        assert!(parse(&image(0), "").is_ok());
        let index = json!({"schemaVersion": 2, "manifests": [descriptor()]});
        assert!(matches!(parse(&index, INDEX).unwrap(), ManifestKind::Index(e) if e.len() == 1));
    }

    #[test]
    fn confusion_and_excess_are_refused() {
        let with = |base: Value, key: &str, value: Value| {
            let mut document = base;
            document[key] = value;
            document
        };
        refused(&image(1), INDEX, "the registry declares");
        refused(&image(1), "text/html", "not an image");
        refused(&with(image(1), "mediaType", json!(null)), "application/json", "nothing declares");
        refused(&with(image(1), "manifests", json!([descriptor()])), IMAGE, "no manifests");
        refused(&with(image(1), "schemaVersion", json!(1)), IMAGE, "schema 1");
        refused(&with(image(1), "fsLayers", json!([])), IMAGE, "schema 1");
        refused(&image(MAX_LAYERS + 1), IMAGE, "at most 256");
        let many = json!({"schemaVersion": 2, "manifests": vec![descriptor(); MAX_INDEX_ENTRIES + 1]});
        refused(&many, INDEX, "at most 1000");
        refused(&with(image(1), "config", json!({"mediaType": "a", "digest": "md5:0", "size": 1})), IMAGE, "md5");
        let negative = json!({"mediaType": "a", "digest": descriptor()["digest"], "size": -1});
        refused(&with(image(1), "config", negative), IMAGE, "cannot be read");
        assert!(parse_manifest(&vec![b' '; MAX_BYTES + 1], IMAGE).is_err());
        assert!(parse_manifest("[".repeat(100_000).as_bytes(), IMAGE).is_err());
    }

    fn entry(os: &str, architecture: &str, variant: Option<&str>, size: u64) -> Descriptor {
        let platform = Platform { os: os.into(), architecture: architecture.into(), variant: variant.map(Into::into) };
        Descriptor {
            media_type: IMAGE.into(),
            digest: Digest::from_bytes([0; 32]),
            size,
            platform: Some(platform),
            annotations: BTreeMap::new(),
        }
    }

    #[test]
    fn the_best_platform_is_chosen() {
        let entries = [
            entry("unknown", "unknown", None, 0),
            entry("windows", "amd64", None, 1),
            entry("linux", "amd64", Some("v3"), 2),
            entry("linux", "amd64", None, 3),
            entry("linux", "arm", Some("v6"), 4),
            entry("linux", "arm", Some("v7"), 5),
            entry("linux", "arm64", None, 6),
        ];
        let pick = |architecture: &str, variant: Option<&str>| {
            let wanted =
                Platform { os: "linux".into(), architecture: architecture.into(), variant: variant.map(Into::into) };
            select_platform(&entries, &wanted).map(|d| d.size)
        };
        assert_eq!(pick("amd64", None).unwrap(), 3);
        assert_eq!(pick("amd64", Some("v4")).unwrap(), 2);
        assert_eq!(pick("arm", Some("v6")).unwrap(), 4);
        assert_eq!(pick("arm", Some("v8")).unwrap(), 5);
        assert_eq!(pick("arm64", Some("v8")).unwrap(), 6);
        let e = pick("s390x", None).unwrap_err();
        assert!(e.message().contains("no image for linux/s390x; the index has windows/amd64, linux/amd64/v3"), "{e}");
        let only = [Descriptor { platform: None, ..entry("", "", None, 9) }];
        assert_eq!(select_platform(&only, &Platform::host()).unwrap().size, 9);
        // As BuildKit writes it: what it says about the image lies beside it.
        let mut attestation = entry("unknown", "unknown", None, 10);
        attestation.annotations.insert(REFERENCE_TYPE.into(), "attestation-manifest".into());
        let pair = [attestation.clone(), only[0].clone()];
        assert_eq!(select_platform(&pair, &Platform::host()).unwrap().size, 9);
        attestation.platform = Some(Platform::host());
        assert!(select_platform(&[attestation], &Platform::host()).is_err(), "not even where it claims to be one");
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300), declared in "[ -~]{0,40}") {
            let _ = parse_manifest(&bytes, &declared);
        }
    }
}
