//! What is known of an image, and how it is written down. Format: `docs/formats/images.md`.
//!
//! Owns: the record. Must not: decide whether the image may be used; it carries the evidence for who does.
use crate::tree::DiskUsage;
use berth_model::{Digest, Error, ImageConfig, ImageId, Reference, Result, UnixNanos};
use serde::{Deserialize, Serialize};

const KIND: &str = "Image";
const VERSION: u32 = 1;
/// Most sources that are kept; the oldest give way.
const MAX_SOURCES: usize = 64;

/// An image that is complete on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// Digest of the configuration: the one string that every CRI answer names the image by.
    pub id: ImageId,
    /// Its configuration, as far as it shapes containers.
    pub config: ImageConfig,
    /// Tags that name it, sorted.
    #[serde(skip)]
    pub repo_tags: Vec<Reference>,
    /// Digests that name it, with their repositories, sorted.
    #[serde(skip)]
    pub repo_digests: Vec<Reference>,
    /// Digest of the manifest for this platform that it was first pulled by.
    pub manifest_digest: Digest,
    /// Bytes of the compressed layers and the configuration.
    pub size: u64,
    /// Layers, lowest first.
    pub layers: Vec<LayerRecord>,
    /// When it was built, as its configuration says; may be empty.
    pub created: String,
    /// When it first became complete here.
    pub pulled_at: UnixNanos,
    /// Never removed to make room: the settings name it (`spec.images.pinned`). What is written down says nothing.
    pub pinned: bool,
    /// Where it came from.
    pub evidence: Evidence,
    /// The index that it came in, where the node has all that this names (attestations, for one).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<Bundle>,
}

/// An index of which nothing is missing here: it can be handed on as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// Its digest.
    pub index: Digest,
    /// All blobs below it beside those of the image itself: manifests, configurations, attestations.
    pub blobs: Vec<Digest>,
}

/// One layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// Names the stack of layers up to this one (OCI image spec, `config.md`, "Layer ChainID").
    pub chain_id: Digest,
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
    /// Digest of the blob.
    pub digest: Digest,
    /// Bytes of the blob.
    pub size: u64,
    /// What it takes unpacked.
    pub usage: DiskUsage,
}

/// What trust decides on: stored with the image, judged again whenever it is used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Where it was pulled from.
    pub sources: Vec<Source>,
    /// Ids of the keys whose signatures on it were verified.
    #[serde(default)]
    pub verified_keys: Vec<String>,
}

/// One place that an image came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The reference as it was pulled.
    pub reference: Reference,
    /// The registry that served it.
    pub registry: String,
    /// What the reference stood for then.
    pub digest: Digest,
}

impl Evidence {
    /// Takes over what another pull of the same image brought.
    pub fn merge(&mut self, other: &Evidence) {
        for source in &other.sources {
            self.sources.retain(|s| s != source);
            self.sources.push(source.clone());
        }
        let surplus = self.sources.len().saturating_sub(MAX_SOURCES);
        self.sources.drain(..surplus);
        for key in &other.verified_keys {
            if !self.verified_keys.contains(key) {
                self.verified_keys.push(key.clone());
            }
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    kind: String,
    version: u32,
    record: T,
}

impl ImageRecord {
    /// As bytes for the database. Names are kept apart, in the references table.
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let envelope = Envelope { kind: KIND.to_owned(), version: VERSION, record: self };
        serde_json::to_vec(&envelope).map_err(|e| Error::internal(format!("image record {}: {e}", self.id)))
    }

    /// Reads what [`ImageRecord::encode`] wrote. Errors: `Internal` for another kind, a newer version, or a torn record.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let envelope: Envelope<Self> =
            serde_json::from_slice(bytes).map_err(|e| Error::internal(format!("image record does not parse: {e}")))?;
        if envelope.kind != KIND || envelope.version > VERSION {
            let Envelope { kind, version, .. } = envelope;
            return Err(Error::internal(format!(
                "record is {kind} of version {version}, this build reads {KIND} up to {VERSION}"
            )));
        }
        Ok(envelope.record)
    }

    /// Digests of all blobs that belong to it: configuration, manifest, layers, and those of its index.
    pub fn blobs(&self) -> impl Iterator<Item = &Digest> {
        let bundle = self.bundle.iter().flat_map(|b| b.blobs.iter().chain([&b.index]));
        [&self.id, &self.manifest_digest].into_iter().chain(self.layers.iter().map(|l| &l.digest)).chain(bundle)
    }

    /// Chain ids of its layers, lowest first.
    pub fn chain_ids(&self) -> impl DoubleEndedIterator<Item = &Digest> {
        self.layers.iter().map(|l| &l.chain_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(n: u8) -> Source {
        let reference = Reference::parse(&format!("r.io/app:v{n}")).unwrap();
        Source { registry: "r.io".into(), reference, digest: Digest::from_bytes([n; 32]) }
    }

    #[test]
    fn evidence_is_merged_without_doubles_and_bounded() {
        let mut evidence = Evidence { sources: vec![source(1), source(2)], verified_keys: vec!["a".into()] };
        evidence.merge(&Evidence { sources: vec![source(1)], verified_keys: vec!["a".into(), "b".into()] });
        assert_eq!(evidence.sources, [source(2), source(1)]);
        assert_eq!(evidence.verified_keys, ["a", "b"]);
        for n in 3..100 {
            evidence.merge(&Evidence { sources: vec![source(n)], verified_keys: vec![] });
        }
        assert_eq!(evidence.sources.len(), MAX_SOURCES);
        assert_eq!(evidence.sources.last(), Some(&source(99)));
    }

    #[test]
    fn a_record_round_trips_without_its_names() {
        let digest = Digest::from_bytes([7; 32]);
        let record = ImageRecord {
            id: digest.clone(),
            config: ImageConfig { env: vec!["A=b".into()], ..ImageConfig::default() },
            repo_tags: vec![],
            repo_digests: vec![],
            manifest_digest: digest,
            size: 5,
            layers: vec![],
            created: String::new(),
            pulled_at: 3,
            pinned: false,
            evidence: Evidence { sources: vec![source(1)], verified_keys: vec![] },
            bundle: None,
        };
        let bytes = record.encode().unwrap();
        assert_eq!(ImageRecord::decode(&bytes).unwrap(), record);
        let newer = String::from_utf8(bytes).unwrap().replace("\"version\":1", "\"version\":2");
        assert!(ImageRecord::decode(newer.as_bytes()).unwrap_err().message().contains("version 2"));
    }
}
