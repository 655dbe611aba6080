//! The revisions that a cluster has had applied to this node: each takes the place of the directory's documents of its kind, and the node
//! boots from them. Format: docs/formats/applied-revisions.md.
//!
//! Must not: judge what they say; their documents go the same way as those of the directory.
use crate::accepted::write_whole;
use crate::revision::{MAX_BYTES, Revision, Revisions, decode, encode};
use crate::starts::Starts;
use crate::{Document, Source};
use berth_crds::{API_VERSION, ImagePolicy, ObjectMeta, RuntimeConfig, check_stored};
use berth_model::{Error, ErrorKind, Result, ResultExt};
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// A file of the daemon's own that somebody else has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDrift {
    /// Which.
    pub path: PathBuf,
    /// `Changed` or `Missing`.
    pub kind: &'static str,
}

impl Revision {
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
            check_stored(&document).context(|| document.title())?;
            Ok(Source { file: file.clone(), document })
        });
        checked.collect()
    }
}

impl Revisions {
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

/// The file of what is in force, and beside it one of what was in force before.
pub(crate) struct Applied {
    path: PathBuf,
    /// What is known of starts with them.
    pub(crate) starts: Starts,
    pub(crate) revisions: Revisions,
    /// What is there to go back to at a start where the others cannot be used.
    pub(crate) former: Option<Revisions>,
    /// The file as it was when it was known to be what is in force.
    seen: Option<Stamp>,
}

/// Tells whether a file may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp(u64, u64, i64, i64);

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        Self(meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec())
    }
}

impl Applied {
    /// What was applied last; where its file cannot be used, what was in force before, and why (which is for people to know). Errors: a
    /// file that cannot be used with nothing beside it that can. The documents of the directory are no way around it: the node would
    /// enforce other policies than its cluster was told.
    pub(crate) fn open(path: PathBuf) -> Result<(Self, Option<String>)> {
        let former = read(&former_path(&path));
        let (revisions, seen, told) = match read(&path) {
            Ok(Some((revisions, stamp))) => (revisions, Some(stamp), None),
            Ok(None) => (Revisions::default(), None, None),
            Err(e) => match &former {
                Ok(Some((former, _))) => {
                    let told = format!("{}; the revisions that were in force before are in force", e.message());
                    (former.clone(), None, Some(told))
                }
                Ok(None) => return Err(e),
                Err(also) => return Err(Error::new(e.kind(), format!("{}; {}", e.message(), also.message()))),
            },
        };
        let former = former.unwrap_or_default().map(|(former, _)| former);
        Ok((Self { starts: Starts::beside(&path), path, former, revisions, seen }, told))
    }

    /// Whether somebody else has changed the file. It is read only where it may have been.
    pub(crate) fn drift(&mut self) -> Option<FileDrift> {
        let found = |kind| Some(FileDrift { path: self.path.clone(), kind });
        let stamp = fs::metadata(&self.path).ok().map(|meta| Stamp::of(&meta));
        if stamp == self.seen && (stamp.is_some() || self.revisions == Revisions::default()) {
            return None;
        }
        match read(&self.path) {
            Ok(Some((revisions, stamp))) if revisions == self.revisions => {
                self.seen = Some(stamp);
                None
            }
            Ok(None) => found("Missing"),
            _ => found("Changed"),
        }
    }

    /// Keeps these, whole or not at all; what is in force until now is kept beside.
    pub(crate) fn keep(&mut self, revisions: Revisions) -> Result<()> {
        let former = if self.revisions == Revisions::default() { &revisions } else { &self.revisions };
        if self.former.as_ref() != Some(former) {
            write(&former_path(&self.path), former)?;
            self.former = Some(former.clone());
        }
        self.seen = Some(write(&self.path, &revisions)?);
        self.revisions = revisions;
        Ok(())
    }

    /// Has only these stay of what is applied: without any, the directory's documents count again.
    pub(crate) fn leave(&mut self, revisions: Revisions) -> Result<()> {
        if revisions == Revisions::default() {
            return self.forget();
        }
        let goes = self.revisions.configuration != revisions.configuration;
        // What goes is no former state to go back to either.
        let before = std::mem::replace(&mut self.revisions, revisions.clone());
        self.keep(revisions).inspect_err(|_| self.revisions = before)?;
        if goes {
            // The next daemon that comes up says with which one it did.
            self.starts.forget();
        }
        Ok(())
    }

    /// Forgets them: the directory's documents count again.
    fn forget(&mut self) -> Result<()> {
        remove(&self.path)?;
        (self.revisions, self.former, self.seen) = (Revisions::default(), None, None);
        Ok(())
    }
}

/// Removes all that is applied, and what is known of starts with it.
pub(crate) fn remove(path: &Path) -> Result<()> {
    // The other one first: alone it means nothing.
    for path in [former_path(path), path.to_owned()] {
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::from(e).context(path.display()));
            }
            _ => {}
        }
    }
    if let Some(parent) = path.parent() {
        File::open(parent).and_then(|dir| dir.sync_all()).context(|| parent.display())?;
    }
    Starts::beside(path).forget();
    Ok(())
}

/// The file of what is applied, beside that of the documents that were accepted last.
pub(crate) fn beside(accepted: &Path) -> PathBuf {
    accepted.with_file_name("applied-revisions.json")
}

/// `applied-revisions.former.json`.
fn former_path(path: &Path) -> PathBuf {
    path.with_extension("former.json")
}

fn read(path: &Path) -> Result<Option<(Revisions, Stamp)>> {
    let file = match File::open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.context(|| path.display())?,
    };
    let stamp = Stamp::of(&file.metadata().context(|| path.display())?);
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).context(|| path.display())?;
    decode(&bytes).context(|| path.display()).map(|revisions| Some((revisions, stamp)))
}

fn write(path: &Path, revisions: &Revisions) -> Result<Stamp> {
    let applied_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    write_whole(path, &encode(revisions, applied_at)?).context(|| path.display())?;
    fs::metadata(path).map(|meta| Stamp::of(&meta)).map_err(|e| Error::new(ErrorKind::Internal, e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::from_sources;
    use berth_crds::RuntimeRevisionSpec;
    use serde_json::json;

    fn configuration(spec: serde_json::Value) -> Revision {
        let spec = serde_json::from_value(spec).unwrap();
        let content = RuntimeRevisionSpec::of_runtime("0.1.0", &spec);
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
    fn what_was_applied_is_found_by_the_next_and_a_changed_file_gives_way_to_the_former() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("revisions.json");
        let (mut applied, _) = Applied::open(path.clone()).unwrap();
        assert_eq!(applied.drift(), None);
        let first = Revisions::of(configuration(json!({"runtime": {"pidsLimit": 70}})));
        let second = Revisions::of(configuration(json!({"runtime": {"pidsLimit": 80}})));
        applied.keep(first.clone()).unwrap();
        assert_eq!(Applied::open(path.clone()).unwrap().0.revisions, first);
        fs::write(&path, "torn").unwrap();
        assert_eq!(applied.drift().unwrap().kind, "Changed");
        let (found, told) = Applied::open(path.clone()).unwrap();
        assert!(
            found.revisions == first && told.unwrap().contains("in force before"),
            "the first has itself to go back to"
        );
        applied.keep(second.clone()).unwrap();
        assert_eq!(applied.drift(), None);
        let changed = fs::read_to_string(&path).unwrap().replace("80", "81");
        fs::write(&path, changed).unwrap();
        assert_eq!(applied.drift().unwrap().kind, "Changed");
        let (mut found, told) = Applied::open(path.clone()).unwrap();
        assert!(found.revisions == first && told.unwrap().contains("was changed"));
        assert_eq!(found.drift().unwrap().kind, "Changed", "whoever starts with the former tells it too");
        fs::remove_file(&path).unwrap();
        assert_eq!(applied.drift().unwrap().kind, "Missing");
        applied.keep(second).unwrap();
        for file in [former_path(&path), path.clone()] {
            fs::write(file, "torn").unwrap();
        }
        let message = Applied::open(path.clone()).err().unwrap().to_string();
        assert!(message.contains("former"), "{message}");
        applied.leave(Revisions::default()).unwrap();
        applied.leave(Revisions::default()).unwrap();
        assert_eq!(Applied::open(path).unwrap().0.revisions, Revisions::default());
    }
}
