//! What the supervisor has seen, for others to read: `RUN/supervise.json`. Format: `docs/formats/supervisor.md`.
use crate::atomic_file;
use crate::commands::time::{now, rfc3339};
use crate::layout::Layout;
use crate::node_files;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Its fields.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    supervisor: u32,
    daemon: Option<u32>,
    starts: u64,
    ends: u64,
    since: String,
    last_end: Option<String>,
}

/// The supervisor that the file tells of; `None`: there is no file, as after one that ended by itself.
pub(super) fn supervisor(layout: &Layout) -> Option<u32> {
    #[derive(Deserialize)]
    struct Who {
        supervisor: u32,
    }
    let text = node_files::text(layout.run.join("supervise.json"))?;
    serde_json::from_str::<Who>(&text).ok().map(|who| who.supervisor)
}

/// The file, which is written whole at each change.
pub(super) struct Status {
    path: PathBuf,
    fields: Fields,
}

impl Status {
    pub(super) fn new(layout: &Layout) -> Self {
        let fields = Fields {
            supervisor: std::process::id(),
            daemon: None,
            starts: 0,
            ends: 0,
            since: rfc3339(now()),
            last_end: None,
        };
        Self { path: layout.run.join("supervise.json"), fields }
    }

    /// A daemon runs.
    pub(super) fn started(&mut self, pid: u32) {
        self.fields.daemon = Some(pid);
        self.fields.starts += 1;
        self.fields.since = rfc3339(now());
        self.write();
    }

    /// It has ended.
    pub(super) fn ended(&mut self, how: &str) {
        self.fields.daemon = None;
        self.fields.ends += 1;
        self.fields.since = rfc3339(now());
        self.fields.last_end = Some(how.to_owned());
        self.write();
    }

    /// The supervisor ends.
    pub(super) fn remove(&self) {
        let _ = std::fs::remove_file(&self.path);
    }

    fn write(&self) {
        // On tmpfs; who reads it does without where it cannot be written.
        if let Ok(text) = serde_json::to_string_pretty(&self.fields) {
            let _ = atomic_file::replace(&self.path, (text + "\n").as_bytes(), 0o644);
        }
    }
}
