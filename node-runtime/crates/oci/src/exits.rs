//! Exit records on tmpfs, for pods whose monitor is gone.
//!
//! Owns: reading them. Must not: write or remove any; that is the monitor's, or comes with the pod's directory.
use berth_model::{Error, Result, ResultExt};
use berth_monitor_api::record::{DIRECTORY, ExitRecord, MAX_RECORD};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

/// Most entries of a directory that are looked at.
const MAX_ENTRIES: usize = 10_000;

/// What a pod's directory of exit records has.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Exits {
    /// Records by task id.
    pub records: BTreeMap<String, ExitRecord>,
    /// Files that are no records, with the reason.
    pub unreadable: Vec<(String, String)>,
}

/// Reads all records below a pod's runtime directory. No directory means no records. Blocks; for a blocking thread. A file that
/// is no record is reported beside the others and spoils none of them.
pub fn read_exits(dir: &Path) -> Result<Exits> {
    let path = dir.join(DIRECTORY);
    let at = || format!("exit records {}", path.display());
    let entries = match std::fs::read_dir(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Exits::default()),
        other => other.context(at)?,
    };
    let mut exits = Exits::default();
    for (count, entry) in entries.enumerate() {
        if count == MAX_ENTRIES {
            return Err(Error::internal(format!("{}: more than {MAX_ENTRIES} files", at())));
        }
        let name = entry.context(at)?.file_name().to_string_lossy().into_owned();
        if !berth_monitor_api::frame::is_task_id(&name) {
            // A record that was being written when the monitor ended has another name.
            continue;
        }
        match read_record(&path.join(&name)) {
            Ok(record) => drop(exits.records.insert(name, record)),
            Err(reason) => exits.unreadable.push((name, reason)),
        }
    }
    Ok(exits)
}

fn read_record(path: &Path) -> std::result::Result<ExitRecord, String> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|e| e.to_string())?;
    file.take(MAX_RECORD as u64 + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    ExitRecord::decode(&bytes).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_monitor_api::frame::{Exit, TaskKind};

    #[test]
    fn good_records_are_read_beside_bad_ones() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_exits(dir.path()).unwrap(), Exits::default());
        let exits = dir.path().join(DIRECTORY);
        std::fs::create_dir(&exits).unwrap();
        let exit = Exit { code: 3, signaled: false, start_failed: false, oom_kills: 0, finished_at: 5 };
        let record = ExitRecord { kind: TaskKind::Exec, pid: 9, exit };
        std::fs::write(exits.join("good"), record.encode()).unwrap();
        std::fs::write(exits.join("torn"), &record.encode()[..40]).unwrap();
        std::fs::write(exits.join("huge"), vec![b'x'; MAX_RECORD * 2]).unwrap();
        std::fs::write(exits.join(".new"), "").unwrap();
        let found = read_exits(dir.path()).unwrap();
        assert_eq!(found.records, [("good".to_owned(), record)].into());
        let mut bad: Vec<_> = found.unreadable.iter().map(|(name, _)| name.as_str()).collect();
        bad.sort_unstable();
        assert_eq!(bad, ["huge", "torn"]);
    }
}
