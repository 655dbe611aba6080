//! What an agent keeps on its node's disk: the journal, the RuntimeNode that was seen last, and revisions that were fetched. Formats:
//! docs/formats/agent-journal.md.
//!
//! Each file is there whole or not at all. Must not: decide anything.
use crate::journal::Journal;
use berth_crds::{RuntimeNode, RuntimeRevisionSpec};
use berth_model::{Error, Result, ResultExt};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const KIND: &str = "AgentJournal";
const VERSION: u32 = 1;
/// Longest file: the largest revision, and what is around it.
const MAX_BYTES: u64 = 2 << 20;
/// Most revisions that are kept.
const MAX_REVISIONS: usize = 16;

#[derive(Serialize, Deserialize)]
struct Kept {
    kind: String,
    version: u32,
    #[serde(flatten)]
    journal: Journal,
}

/// A directory, and the lock on it.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    _lock: File,
}

impl Store {
    /// Opens a directory, which is made if it is missing. Errors: another agent has it, or it cannot be written.
    pub fn open(directory: &Path) -> Result<Self> {
        let revisions = directory.join("revisions");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&revisions).context(|| revisions.display())?;
        let path = directory.join("lock");
        let lock = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let lock = lock.context(|| path.display())?;
        lock.try_lock().map_err(|e| Error::invalid(path.display(), format!("another agent is at work here: {e}")))?;
        Ok(Self { directory: directory.to_owned(), _lock: lock })
    }

    /// The journal. One that cannot be read is put aside and begun anew: where the node stands is looked at, so all that is lost is what
    /// was tried.
    pub fn journal(&self) -> Journal {
        let path = self.directory.join("journal.json");
        let read = read::<Kept>(&path).and_then(|kept| match kept {
            Some(kept) if kept.kind != KIND || kept.version > VERSION => {
                let what = format!("is {} of version {}", kept.kind, kept.version);
                Err(Error::invalid(path.display(), what))
            }
            other => Ok(other.map(|kept| kept.journal).unwrap_or_default()),
        });
        read.unwrap_or_else(|e| {
            tracing::error!(error = %e, "the journal cannot be read; it is put aside and begun anew");
            let _ = fs::rename(&path, self.directory.join("journal.unreadable.json"));
            Journal::default()
        })
    }

    /// Keeps the journal.
    pub fn keep(&self, journal: &Journal) -> Result<()> {
        let kept = Kept { kind: KIND.to_owned(), version: VERSION, journal: journal.clone() };
        write(&self.directory.join("journal.json"), &kept)
    }

    /// The RuntimeNode that was seen last, if one can be read.
    pub fn last_seen(&self) -> Option<RuntimeNode> {
        read(&self.directory.join("node.json")).unwrap_or_default()
    }

    /// Keeps it, without its status.
    pub fn see(&self, node: &RuntimeNode) -> Result<()> {
        let mut node = node.clone();
        node.status = None;
        node.metadata.managed_fields = None;
        write(&self.directory.join("node.json"), &node)
    }

    /// A revision that was fetched before and is what its name says.
    pub fn revision(&self, name: &str) -> Option<RuntimeRevisionSpec> {
        let kept: Option<RuntimeRevisionSpec> = read(&self.revision_path(name)?).unwrap_or_default();
        kept.filter(|spec| spec.check(name).is_ok())
    }

    /// Keeps a revision; of the others the oldest go, but for those that the node may need while the API server is away.
    pub fn keep_revision(&self, name: &str, spec: &RuntimeRevisionSpec, needed: &[String]) -> Result<()> {
        let Some(path) = self.revision_path(name) else { return Ok(()) };
        write(&path, spec)?;
        let age = |path: &PathBuf| fs::metadata(path).and_then(|m| m.modified()).ok();
        let entries = fs::read_dir(self.directory.join("revisions")).context(|| self.directory.display())?;
        let mut all: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        all.sort_by_key(age);
        let needed: Vec<PathBuf> = needed.iter().filter_map(|name| self.revision_path(name)).collect();
        let may_go = all.iter().filter(|other| **other != path && !needed.contains(other));
        for path in may_go.take(all.len().saturating_sub(MAX_REVISIONS)) {
            let _ = fs::remove_file(path);
        }
        Ok(())
    }

    /// Names come from outside: one that is no plain word has no file.
    fn revision_path(&self, name: &str) -> Option<PathBuf> {
        let plain =
            name.len() <= 253 && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        (plain && !name.is_empty()).then(|| self.directory.join("revisions").join(format!("{name}.json")))
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let file = match File::open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.context(|| path.display())?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).context(|| path.display())?;
    serde_json::from_slice(&bytes).map(Some).map_err(|e| Error::invalid(path.display(), e))
}

/// A reader finds the former text or this one, also after a power cut.
fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let bytes = serde_json::to_vec(value).map_err(|e| Error::internal(e.to_string()))?;
    let draft = path.with_extension("new");
    let written = || -> std::io::Result<()> {
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&draft, path)?;
        path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    };
    written().context(|| path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_is_found_by_the_next_and_one_that_is_torn_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut journal = Journal::default().of_node("1");
        journal.commit("a", 7);
        store.keep(&journal).unwrap();
        assert!(Store::open(dir.path()).is_err(), "one agent at a time");
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.journal(), journal);
        fs::write(dir.path().join("journal.json"), "{\"kind\": \"Age").unwrap();
        assert_eq!(store.journal(), Journal::default());
        assert!(dir.path().join("journal.unreadable.json").exists());
    }

    #[test]
    fn a_journal_of_an_older_agent_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let old = r#"{"kind": "AgentJournal", "version": 1, "nodeUID": "1", "current": {"revision": "a", "since": 7},
            "attempt": {"revision": "b", "order": "", "tries": 1, "adopted": true, "restarts": 0, "acted": 9, "crashes": 0},
            "refusedPolicies": {"revision": "p", "order": "", "reason": "Refused", "message": "why", "at": 8}}"#;
        fs::write(dir.path().join("journal.json"), old).unwrap();
        let journal = store.journal();
        assert_eq!(journal.attempt_at("b", "").map(|a| (a.tries, a.operation.clone())), Some((1, None)));
        assert!(journal.refused_policies.is_some() && journal.refused_by.is_none() && journal.operation.is_none());
    }

    #[test]
    fn revisions_are_checked_when_they_are_read_and_old_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let spec = RuntimeRevisionSpec::of_policies([]);
        store.keep_revision(&spec.name(), &spec, &[]).unwrap();
        assert_eq!(store.revision(&spec.name()), Some(spec.clone()));
        store.keep_revision("config-0", &spec, &[]).unwrap();
        assert_eq!(store.revision("config-0"), None, "its content is another");
        assert_eq!(store.revision("../journal"), None);
        for i in 1..=MAX_REVISIONS {
            store.keep_revision(&format!("config-{i}"), &spec, &[spec.name()]).unwrap();
        }
        assert_eq!(fs::read_dir(dir.path().join("revisions")).unwrap().count(), MAX_REVISIONS);
        assert_eq!(store.revision(&spec.name()), Some(spec), "the oldest, which is needed");
        assert!(dir.path().join(format!("revisions/config-{MAX_REVISIONS}.json")).exists());
    }
}
