//! The revisions that a cluster has had applied to this node: each takes the place of the directory's documents of its kind, and the node
//! boots from them. Format: docs/formats/applied-revisions.md.
//!
//! Must not: judge what they say; their documents go the same way as those of the directory.
use crate::accepted::write_whole;
use crate::{Document, Source};
use berth_crds::{API_VERSION, ImagePolicy, ObjectMeta, RuntimeConfig, RuntimeRevisionSpec, check};
use berth_model::{Error, Result, ResultExt};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

const KIND: &str = "AppliedRevisions";
const VERSION: u32 = 1;
/// Longest file: two revisions of the largest size, and what is around them.
const MAX_BYTES: u64 = 4 << 20;

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

    /// Its documents. Errors: `InvalidArgument` naming the field that this version does not know, or that breaks a rule.
    fn documents(&self) -> Result<Vec<Source>> {
        let meta = |name: &str| ObjectMeta { name: name.to_owned(), ..ObjectMeta::default() };
        let mut documents = Vec::new();
        if self.content.runtime.is_some() {
            documents.push(Document::RuntimeConfig(Box::new(RuntimeConfig {
                api_version: API_VERSION.to_owned(),
                kind: "RuntimeConfig".to_owned(),
                metadata: meta(&self.name),
                spec: self.content.config()?,
            })));
        }
        for (name, spec) in self.content.policies()? {
            documents.push(Document::ImagePolicy(Box::new(ImagePolicy {
                api_version: API_VERSION.to_owned(),
                kind: "ImagePolicy".to_owned(),
                metadata: meta(&name),
                spec,
            })));
        }
        let file = Path::new("RuntimeRevision").join(&self.name);
        let checked = documents.into_iter().map(|document| {
            check(&document).context(|| document.title())?;
            Ok(Source { file: file.clone(), document })
        });
        checked.collect()
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

    /// All documents that count on a node whose directory has these.
    pub(crate) fn sources(&self, directory: &[Source]) -> Result<Vec<Source>> {
        let counts = |source: &&Source| match &source.document {
            Document::RuntimeConfig(_) => self.configuration.is_none(),
            Document::ImagePolicy(_) => self.policies.is_none(),
        };
        let mut sources: Vec<Source> = directory.iter().filter(counts).cloned().collect();
        for revision in [&self.configuration, &self.policies].into_iter().flatten() {
            sources.extend(revision.documents().context(|| format!("RuntimeRevision {}", revision.name))?);
        }
        Ok(sources)
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

/// The file.
pub(crate) struct Applied {
    path: PathBuf,
    pub(crate) revisions: Revisions,
}

impl Applied {
    /// What was applied last. Errors: a file that cannot be read, is of a newer version, or whose content is not what its names say. There
    /// is no way around it: without it a node would enforce other policies than its cluster was told.
    pub(crate) fn open(path: PathBuf) -> Result<Self> {
        let file = match File::open(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self { path, revisions: Revisions::default() });
            }
            other => other.context(|| path.display())?,
        };
        let mut bytes = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut bytes).context(|| path.display())?;
        let kept: Kept = serde_json::from_slice(&bytes).map_err(|e| Error::invalid(path.display(), e))?;
        if kept.kind != KIND || kept.version > VERSION {
            let problem =
                format!("is {} of version {}, this daemon reads {KIND} up to {VERSION}", kept.kind, kept.version);
            return Err(Error::invalid(path.display(), problem));
        }
        for revision in [&kept.revisions.configuration, &kept.revisions.policies].into_iter().flatten() {
            revision.content.check(&revision.name).context(|| path.display())?;
        }
        Ok(Self { path, revisions: kept.revisions })
    }

    /// Keeps these, whole or not at all.
    pub(crate) fn keep(&mut self, revisions: Revisions) -> Result<()> {
        let applied_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let kept = Kept { kind: KIND.to_owned(), version: VERSION, applied_at, revisions };
        let bytes = serde_json::to_vec(&kept).map_err(|e| Error::internal(e.to_string()))?;
        write_whole(&self.path, &bytes).context(|| self.path.display())?;
        self.revisions = kept.revisions;
        Ok(())
    }

    /// Forgets them: the directory's documents count again.
    pub(crate) fn forget(&mut self) -> Result<()> {
        match fs::remove_file(&self.path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::from(e).context(self.path.display()));
            }
            _ => {}
        }
        if let Some(parent) = self.path.parent() {
            File::open(parent).and_then(|dir| dir.sync_all()).context(|| parent.display())?;
        }
        self.revisions = Revisions::default();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::from_sources;
    use serde_json::json;
    use std::collections::BTreeMap;

    fn configuration(spec: serde_json::Value) -> Revision {
        let spec = serde_json::from_value(spec).unwrap();
        let content = RuntimeRevisionSpec::of_runtime("0.1.0", &spec, BTreeMap::new());
        Revision { name: content.name(), content }
    }

    fn policies() -> Revision {
        let spec = serde_json::from_value(json!({"mode": "Enforce"})).unwrap();
        let content = RuntimeRevisionSpec::of_policies([("p", &spec)]);
        Revision { name: content.name(), content }
    }

    #[test]
    fn a_revision_takes_the_place_of_its_own_kind_alone() {
        let text = "apiVersion: berth.dev/v1alpha1\nkind: RuntimeConfig\nmetadata: {name: a}\nspec: {runtime: {pidsLimit: 50}}\n\
            ---\napiVersion: berth.dev/v1alpha1\nkind: ImagePolicy\nmetadata: {name: local}\nspec: {mode: Warn}\n";
        let parsed = berth_crds::parse_documents(text).unwrap();
        let directory: Vec<Source> =
            parsed.into_iter().map(|document| Source { file: "a.yaml".into(), document }).collect();
        let one = Revisions::of(configuration(json!({"runtime": {"pidsLimit": 70}})));
        let settings = from_sources(one.sources(&directory).unwrap()).unwrap();
        assert_eq!(settings.pids_limit, Some(70));
        assert_eq!(settings.policies[0].metadata.name, "local");
        let both = Revisions::of(policies()).over(&one);
        let settings = from_sources(both.sources(&directory).unwrap()).unwrap();
        assert_eq!((settings.pids_limit, settings.policies.len()), (Some(70), 1));
        assert_eq!(settings.policies[0].metadata.name, "p");
    }

    #[test]
    fn a_content_under_another_name_is_refused() {
        let one = configuration(json!({"runtime": {"pidsLimit": 70}}));
        let text = serde_json::to_string(&one.content).unwrap();
        assert_eq!(Revision::parse(&one.name, &text).unwrap(), one);
        let message = Revision::parse("config-0", &text).unwrap_err().to_string();
        assert!(message.contains("was changed"), "{message}");
    }

    #[test]
    fn what_was_applied_is_found_by_the_next_and_a_changed_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("revisions.json");
        let mut applied = Applied::open(path.clone()).unwrap();
        let revisions = Revisions::of(configuration(json!({"runtime": {"pidsLimit": 70}})));
        applied.keep(revisions.clone()).unwrap();
        assert_eq!(Applied::open(path.clone()).unwrap().revisions, revisions);
        let changed = fs::read_to_string(&path).unwrap().replace("70", "71");
        fs::write(&path, changed).unwrap();
        let message = Applied::open(path.clone()).err().unwrap().to_string();
        assert!(message.contains("was changed"), "{message}");
        applied.forget().unwrap();
        applied.forget().unwrap();
        assert_eq!(Applied::open(path).unwrap().revisions, Revisions::default());
    }
}
