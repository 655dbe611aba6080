//! Revisions of a cluster as they come in and as they lie on the disk: pure. Fuzz target: `applied_revisions`.
//!
//! Owns: their limits, and that a content is what its name says. Must not: know what the documents in them mean, do I/O.
use berth_crds::RuntimeRevisionSpec;
use berth_model::{Error, Result};
use serde::{Deserialize, Serialize};

const KIND: &str = "AppliedRevisions";
const VERSION: u32 = 1;
/// Longest file: two revisions of the largest size, and what is around them.
pub(crate) const MAX_BYTES: u64 = 4 << 20;

/// A revision: content and the name that follows from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Its name.
    pub name: String,
    /// Its content.
    pub content: RuntimeRevisionSpec,
}

impl Revision {
    /// Of a content that came as JSON under that name. Errors: `InvalidArgument` if the content is another one than the name says, too
    /// large, or no revision.
    pub fn parse(name: &str, json: &str) -> Result<Self> {
        if json.len() > berth_crds::MAX_REVISION {
            let problem = format!("is {} bytes long, the limit is {}", json.len(), berth_crds::MAX_REVISION);
            return Err(Error::invalid(format!("RuntimeRevision {name}"), problem));
        }
        let content: RuntimeRevisionSpec =
            serde_json::from_str(json).map_err(|e| Error::invalid(format!("RuntimeRevision {name}"), e))?;
        content.check(name)?;
        Ok(Self { name: name.to_owned(), content })
    }
}

/// What is applied, of each kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revisions {
    /// The configuration; none: the directory's RuntimeConfigs count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<Revision>,
    /// The set of image policies; none: the directory's count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policies: Option<Revision>,
}

impl Revisions {
    /// One, of the kind that it is.
    pub fn of(revision: Revision) -> Self {
        if revision.content.policies.is_some() {
            Self { configuration: None, policies: Some(revision) }
        } else {
            Self { configuration: Some(revision), policies: None }
        }
    }

    /// These in the place of others of their kind.
    #[must_use]
    pub fn over(self, former: &Self) -> Self {
        Self {
            configuration: self.configuration.or_else(|| former.configuration.clone()),
            policies: self.policies.or_else(|| former.policies.clone()),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Kept {
    kind: String,
    version: u32,
    /// Seconds since 1970.
    applied_at: u64,
    #[serde(flatten)]
    revisions: Revisions,
}

/// The file's text.
pub(crate) fn encode(revisions: &Revisions, applied_at: u64) -> Result<Vec<u8>> {
    let kept = Kept { kind: KIND.to_owned(), version: VERSION, applied_at, revisions: revisions.clone() };
    serde_json::to_vec(&kept).map_err(|e| Error::internal(e.to_string()))
}

/// Of the file's text. Errors: `InvalidArgument` for what is too large, no such file, of a newer version, or holds a content that is not
/// what its name says.
pub(crate) fn decode(bytes: &[u8]) -> Result<Revisions> {
    let invalid = |problem: String| Error::invalid(KIND, problem);
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) >= MAX_BYTES {
        return Err(invalid(format!("is {} bytes long, the limit is {MAX_BYTES}", bytes.len())));
    }
    let kept: Kept = serde_json::from_slice(bytes).map_err(|e| invalid(e.to_string()))?;
    if kept.kind != KIND || kept.version > VERSION {
        return Err(invalid(format!(
            "is {} of version {}, this daemon reads up to {VERSION}",
            kept.kind, kept.version
        )));
    }
    let Revisions { configuration, policies } = &kept.revisions;
    for revision in [configuration, policies].into_iter().flatten() {
        revision.content.check(&revision.name)?;
    }
    let misplaced = configuration.iter().any(|r| r.content.runtime.is_none())
        || policies.iter().any(|r| r.content.policies.is_none());
    if misplaced {
        Err(invalid("has a revision in the place of the other kind".to_owned()))
    } else {
        Ok(kept.revisions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration() -> Revision {
        let spec = serde_json::from_value(serde_json::json!({"runtime": {"pidsLimit": 70}})).unwrap();
        let content = RuntimeRevisionSpec::of_runtime("0.1.0", &spec);
        Revision { name: content.name(), content }
    }

    #[test]
    fn a_content_under_another_name_is_refused() {
        let one = configuration();
        let text = serde_json::to_string(&one.content).unwrap();
        assert_eq!(Revision::parse(&one.name, &text).unwrap(), one);
        let message = Revision::parse("config-0", &text).unwrap_err().to_string();
        assert!(message.contains("was changed"), "{message}");
    }

    #[test]
    fn a_file_is_read_as_it_was_written_or_refused() {
        let revisions = Revisions::of(configuration());
        let bytes = encode(&revisions, 7).unwrap();
        assert_eq!(decode(&bytes).unwrap(), revisions);
        let text = String::from_utf8(bytes).unwrap();
        for (from, to, words) in [
            ("70", "71", "was changed"),
            ("\"version\":1", "\"version\":2", "up to 1"),
            ("\"configuration\"", "\"policies\"", "other kind"),
            ("{", "", "expected"),
        ] {
            let message = decode(text.replacen(from, to, 1).as_bytes()).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        }
    }
}
