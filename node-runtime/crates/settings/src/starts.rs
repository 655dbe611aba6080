//! Which configuration of a cluster the daemon came up with, and which one it did not: a node never stays down for a revision that its
//! daemon cannot start with. Format: docs/formats/applied-revisions.md.
//!
//! The configuration alone goes back. Policies are those that were applied last, whatever becomes of a start.
//! Must not: judge why a start failed; whoever starts says it.
use crate::accepted::write_whole;
use crate::managed::{Applied, beside};
use crate::revision::{MAX_BYTES, Revision, Revisions, decode, encode};
use berth_model::{Error, Result, ResultExt};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

const KIND: &str = "FailedStart";
const VERSION: u32 = 1;
/// Longest sentence that is kept of why a daemon did not start, in characters.
const MAX_PROBLEM: usize = 2000;

/// A configuration that the daemon did not start with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedStart {
    kind: String,
    version: u32,
    /// The name of its revision.
    pub revision: String,
    /// Why not, for people.
    pub problem: String,
}

/// Beside the file of what is applied.
pub(crate) struct Starts {
    started: PathBuf,
    failed: PathBuf,
}

impl Starts {
    /// Beside `applied-revisions.json`.
    pub(crate) fn beside(applied: &Path) -> Self {
        Self {
            started: applied.with_file_name("started-configuration.json"),
            failed: applied.with_file_name("failed-start.json"),
        }
    }

    /// The daemon came up with this one; `None`: with the directory's documents.
    pub(crate) fn came_up(&self, configuration: Option<&Revision>) -> Result<()> {
        let wanted = Revisions { configuration: configuration.cloned(), policies: None };
        if self.proven().as_ref() == Some(&wanted) {
            return Ok(());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        write_whole(&self.started, &encode(&wanted, now)?).context(|| self.started.display())
    }

    /// What a daemon came up with last. One that cannot be read is no help.
    fn proven(&self) -> Option<Revisions> {
        decode(&read(&self.started)?).ok()
    }

    /// The last one that the daemon did not start with, until another configuration is applied.
    pub(crate) fn failed(&self) -> Option<FailedStart> {
        let failed: FailedStart = serde_json::from_slice(&read(&self.failed)?).ok()?;
        (failed.kind == KIND && failed.version <= VERSION).then_some(failed)
    }

    /// Another configuration is applied, or the same one is to be tried again.
    pub(crate) fn forgive(&self) {
        if let Err(e) = fs::remove_file(&self.failed)
            && e.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(file = %self.failed.display(), error = %e, "cannot be removed; the next start tells of an old trouble");
        }
    }

    /// Forgets both.
    pub(crate) fn forget(&self) {
        self.forgive();
        // Without an applied revision it means nothing.
        let _ = fs::remove_file(&self.started);
    }
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Says that the daemon did not start, and why. Where it never came up with the cluster's configuration, the one with which it did is in
/// force from the next start on; the name of that which failed. `accepted` is the same file as for [`crate::watch`]. Errors: those of the disk.
pub fn start_failed(accepted: &Path, problem: &str) -> Result<Option<String>> {
    let path = beside(accepted);
    let starts = Starts::beside(&path);
    let (mut applied, _) = Applied::open(path)?;
    let (Some(failed), Some(proven)) = (applied.revisions.configuration.clone(), starts.proven()) else {
        return Ok(None);
    };
    if proven.configuration.as_ref() == Some(&failed) {
        return Ok(None);
    }
    let problem = problem.chars().take(MAX_PROBLEM).collect();
    let told = FailedStart { kind: KIND.to_owned(), version: VERSION, revision: failed.name.clone(), problem };
    let bytes = serde_json::to_vec(&told).map_err(|e| Error::internal(e.to_string()))?;
    write_whole(&starts.failed, &bytes).context(|| starts.failed.display())?;
    let back = Revisions { configuration: proven.configuration, policies: applied.revisions.policies.clone() };
    // What failed is no former state to go back to either.
    applied.revisions = back.clone();
    applied.keep(back)?;
    Ok(Some(failed.name))
}
