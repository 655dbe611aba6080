//! What refers to an image (signatures, attestations, bills of materials): lists of it, and what a manifest says of its subject. Pure.
//!
//! Owns: the limits of such documents, and the name of the tag that stands in for the API. Must not: fetch, or believe a list: what it
//! names proves by its own manifest, which its digest proves, that it refers to the image.
//! Source: OCI distribution spec 1.1, "Listing Referrers" and "Referrers Tag Schema"; OCI image spec 1.1, `image-index.md` and `manifest.md`
//! (`subject`, `artifactType`). Fuzz target: `referrers`.
use berth_model::{Digest, Error, ErrorKind, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;

/// Media type of a list.
pub const LIST: &str = "application/vnd.oci.image.index.v1+json";
/// Most referrers of one image that are listed.
pub const MAX_REFERRERS: usize = 1000;
/// Largest document parsed; a client may be set lower.
const MAX_BYTES: usize = 4 << 20;
/// Longest parts of the stand-in's tag, as the specification cuts them.
const MAX_ALGORITHM: usize = 32;
const MAX_ENCODED: usize = 64;

/// Something that refers to an image.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Referrer {
    /// Media type of its manifest.
    pub media_type: String,
    /// Digest of its manifest.
    pub digest: Digest,
    /// Bytes of its manifest.
    pub size: u64,
    /// What it is; empty where nobody says.
    #[serde(default)]
    pub artifact_type: String,
    /// Annotations.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct List {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    manifests: Vec<Referrer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    config: Option<Config>,
    #[serde(default)]
    subject: Option<Subject>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    media_type: String,
}

#[derive(Deserialize)]
struct Subject {
    digest: Digest,
}

/// What a manifest says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// What it refers to.
    pub subject: Option<Digest>,
    /// What it is; empty where it does not say.
    pub artifact_type: String,
}

fn bad(what: &str, problem: impl fmt::Display) -> Error {
    Error::new(ErrorKind::FailedPrecondition, format!("{what}: {problem}"))
}

/// Parses a list of referrers. Errors: `FailedPrecondition` naming what is wrong.
pub fn parse_list(bytes: &[u8]) -> Result<Vec<Referrer>> {
    const WHAT: &str = "list of referrers";
    if bytes.len() > MAX_BYTES {
        return Err(bad(WHAT, format!("has {} bytes, at most {MAX_BYTES} are read", bytes.len())));
    }
    let list: List = serde_json::from_slice(bytes).map_err(|e| bad(WHAT, format!("cannot be read: {e}")))?;
    if list.schema_version != 2 {
        return Err(bad(WHAT, format!("schemaVersion is {}, must be 2", list.schema_version)));
    }
    if let Some(other) = list.media_type.filter(|own| own != LIST) {
        return Err(bad(WHAT, format!("is of type {other:?}, must be {LIST}")));
    }
    check_count(list.manifests.len())?;
    Ok(list.manifests)
}

/// Refuses more referrers than are listed. Errors: `FailedPrecondition`.
pub fn check_count(count: usize) -> Result<()> {
    if count > MAX_REFERRERS {
        return Err(bad("list of referrers", format!("has {count} entries, at most {MAX_REFERRERS} are read")));
    }
    Ok(())
}

/// Reads what a manifest (of an image, an artifact, or an index) refers to. Errors: `FailedPrecondition` for what is none.
pub fn parse_about(bytes: &[u8]) -> Result<About> {
    const WHAT: &str = "manifest of a referrer";
    if bytes.len() > MAX_BYTES {
        return Err(bad(WHAT, format!("has {} bytes, at most {MAX_BYTES} are read", bytes.len())));
    }
    let manifest: Manifest = serde_json::from_slice(bytes).map_err(|e| bad(WHAT, format!("cannot be read: {e}")))?;
    if manifest.schema_version != 2 {
        return Err(bad(WHAT, format!("schemaVersion is {}, must be 2", manifest.schema_version)));
    }
    let own = manifest.artifact_type.filter(|own| !own.is_empty());
    let artifact_type = own.or(manifest.config.map(|config| config.media_type)).unwrap_or_default();
    Ok(About { subject: manifest.subject.map(|subject| subject.digest), artifact_type })
}

/// The tag under which registries without the API hold the list.
pub fn stand_in_tag(subject: &Digest) -> String {
    let (algorithm, encoded) = subject.as_str().split_once(':').unwrap_or(("", subject.as_str()));
    let cut = |text: &str, most: usize| text.chars().take(most).collect::<String>();
    let tag = format!("{}-{}", cut(algorithm, MAX_ALGORITHM), cut(encoded, MAX_ENCODED));
    // Characters that a tag may not have become dashes.
    tag.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn digest(n: u8) -> Digest {
        Digest::parse(&format!("sha256:{}", format!("{n:02x}").repeat(32))).unwrap()
    }

    fn entry(n: u8) -> Value {
        json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(n), "size": 7,
               "artifactType": "application/spdx+json", "annotations": {"a": "b"}})
    }

    fn list(entries: Vec<Value>) -> Value {
        json!({"schemaVersion": 2, "mediaType": LIST, "manifests": entries})
    }

    #[test]
    fn lists_are_read_within_their_limits() {
        let read = |value: &Value| parse_list(value.to_string().as_bytes());
        let found = read(&list(vec![entry(1), json!({"mediaType": "x/y", "digest": digest(2), "size": 0})])).unwrap();
        assert_eq!((found.len(), found[0].artifact_type.as_str()), (2, "application/spdx+json"));
        assert_eq!((found[0].annotations["a"].as_str(), found[1].artifact_type.as_str()), ("b", ""));
        assert_eq!(read(&list(vec![])).unwrap(), []);
        for (bad, why) in [
            (json!({"schemaVersion": 1, "manifests": []}), "schemaVersion"),
            (json!({"schemaVersion": 2, "mediaType": "text/html", "manifests": []}), "text/html"),
            (json!({"schemaVersion": 2}), "manifests"),
            (json!([]), "cannot be read"),
            (list(vec![json!({"mediaType": "x/y", "digest": "sha256:zz", "size": 1})]), "cannot be read"),
            (list(vec![entry(1); MAX_REFERRERS + 1]), "at most 1000"),
        ] {
            let error = read(&bad).unwrap_err();
            assert!(error.message().contains(why), "{error} does not say {why}");
        }
        assert!(parse_list(&vec![b' '; MAX_BYTES + 1]).unwrap_err().message().contains("at most"));
    }

    #[test]
    fn a_manifest_tells_its_subject_and_what_it_is() {
        let read = |value: Value| parse_about(value.to_string().as_bytes());
        let config = json!({"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest(3), "size": 2});
        let subject = json!({"mediaType": "x/y", "digest": digest(1), "size": 7});
        let own =
            json!({"schemaVersion": 2, "artifactType": "a/b", "config": config, "layers": [], "subject": subject});
        assert_eq!(read(own).unwrap(), About { subject: Some(digest(1)), artifact_type: "a/b".into() });
        let image = json!({"schemaVersion": 2, "config": config, "layers": []});
        let about = About { subject: None, artifact_type: "application/vnd.oci.empty.v1+json".into() };
        assert_eq!(read(image).unwrap(), about);
        let index = json!({"schemaVersion": 2, "manifests": [], "subject": subject});
        assert_eq!(read(index).unwrap().subject, Some(digest(1)));
        assert!(read(json!({"subject": subject})).is_err());
    }

    #[test]
    fn the_stand_in_has_the_digest_as_its_tag() {
        assert_eq!(stand_in_tag(&digest(0xab)), format!("sha256-{}", "ab".repeat(32)));
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (parse_list(&bytes), parse_about(&bytes));
        }
    }
}
