//! What a node that was given back keeps of the cluster's revisions: nothing. The daemon forgets them where it runs; where it does not, its
//! files go (docs/formats/applied-revisions.md). Must not: touch them while a daemon runs.
use crate::node::Trouble;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;

/// What became of starts with the applied revisions: it means nothing without those, and goes first.
const STARTS: [&str; 2] = ["started-configuration.json", "failed-start.json"];
/// The one that means nothing alone comes first.
const APPLIED: [&str; 2] = ["applied-revisions.former.json", "applied-revisions.json"];

/// Whether there is something to forget.
pub(super) fn is_needed(state: &Path) -> bool {
    APPLIED.iter().any(|name| fs::symlink_metadata(state.join(name)).is_ok())
}

/// Removes them, for good.
pub(super) fn remove(state: &Path) -> Result<(), Trouble> {
    for name in STARTS.iter().chain(&APPLIED) {
        let path = state.join(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                return Err(Trouble::Later(format!("{}: {e}", path.display())));
            }
            _ => {}
        }
    }
    let synced = File::open(state).and_then(|dir| dir.sync_all());
    synced.map_err(|e| Trouble::Later(format!("{}: {e}", state.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_go() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_needed(dir.path()));
        for name in STARTS.iter().chain(&APPLIED) {
            fs::write(dir.path().join(name), "{}").unwrap();
        }
        fs::write(dir.path().join("accepted-documents.json"), "{}").unwrap();
        assert!(is_needed(dir.path()));
        remove(dir.path()).unwrap();
        remove(dir.path()).unwrap();
        assert!(!is_needed(dir.path()) && dir.path().join("accepted-documents.json").exists());
    }
}
