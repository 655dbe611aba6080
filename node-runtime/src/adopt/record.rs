//! The journal's file and the lock. Format: `docs/formats/adopt-journal.md`; what a record means is `berth_adopt::journal`'s.
//!
//! Owns: one writer at a time, a record on the disk before the call returns, the end of a write that was cut short. Must not: decide.
use super::{now_millis, process_start};
use crate::layout::Layout;
use crate::node_files;
use anyhow::{Context, Result, anyhow, bail};
use berth_adopt::journal::{self, Event, HEADER, Journal, MAX_JOURNAL, Record, State};
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A journal longer than this is written anew when an operation begins.
const COMPACT: u64 = 4 << 20;

/// Where the journal and what belongs to it lie.
pub(crate) fn directory(layout: &Layout) -> PathBuf {
    layout.lib.join("adopt")
}

/// Whoever may change the node. It goes with the process, however that ends.
pub(super) struct Lock(#[allow(dead_code, reason = "it is held by being open")] File);

/// Who holds the lock: process, and when it was started (proc_pid_stat(5), field 22).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) pid: u32,
    pub(super) started: u64,
}

impl Lock {
    /// Takes it. `None` if another process has it.
    pub(super) fn take(layout: &Layout) -> Result<Option<Self>> {
        let dir = directory(layout);
        std::fs::create_dir_all(&layout.lib).with_context(|| format!("directory {}", layout.lib.display()))?;
        match std::fs::DirBuilder::new().mode(0o700).create(&dir) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => {
                return Err(e).with_context(|| format!("directory {}", dir.display()));
            }
            _ => {}
        }
        let path = dir.join("lock");
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.as_mut().map_err(|e| anyhow!("lock {}: {e}", path.display()))?;
        if flock(&*file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(None);
        }
        let own = std::process::id();
        file.set_len(0)?;
        writeln!(file, "{own} {}", process_start(own).unwrap_or_default())?;
        Ok(Some(Self(file.try_clone()?)))
    }

    /// Who has it, if anybody does.
    pub(super) fn holder(layout: &Layout) -> Option<Holder> {
        let path = directory(layout).join("lock");
        let file = File::open(&path).ok()?;
        if flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
            return None;
        }
        let text = node_files::text(&path)?;
        let mut words = text.split_whitespace();
        Some(Holder { pid: words.next()?.parse().ok()?, started: words.next()?.parse().ok()? })
    }
}

/// The journal as it is. Errors: it cannot be read, or is damaged.
pub(super) fn read(layout: &Layout) -> Result<Journal> {
    let path = directory(layout).join("journal");
    match node_files::bytes(&path, MAX_JOURNAL) {
        Ok(bytes) => journal::decode(&bytes).map_err(|e| anyhow!("{}: {e}", path.display())),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Journal::default()),
        Err(e) => Err(e).with_context(|| path.display().to_string()),
    }
}

/// The journal, to be continued.
pub(super) struct Writer {
    file: File,
    /// What is in it.
    pub(super) records: Vec<Record>,
}

impl Writer {
    /// Opens it, and takes away what a write that was cut short left at its end.
    pub(super) fn open(layout: &Layout, _lock: &Lock) -> Result<Self> {
        let dir = directory(layout);
        let journal = read(layout)?;
        let path = dir.join("journal");
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut file = options.with_context(|| path.display().to_string())?;
        if journal.whole == 0 {
            file.set_len(0)?;
            file.write_all(HEADER.as_bytes())?;
            sync_directory(&dir)?;
        } else {
            file.set_len(journal.whole as u64)?;
            file.seek(SeekFrom::End(0))?;
        }
        file.sync_all()?;
        Ok(Self { file, records: journal.records })
    }

    /// Adds a record; it is on the disk when this returns.
    pub(super) fn append(&mut self, event: Event) -> Result<()> {
        let record = Record { at: now_millis(), event };
        let line = journal::encode(&record).map_err(|e| anyhow!("journal: {e}"))?;
        self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data()).context("journal")?;
        self.records.push(record);
        Ok(())
    }

    /// The last operation.
    pub(super) fn state(&self) -> Option<State> {
        State::last(&self.records)
    }

    /// Before an operation begins: a long journal keeps the adoption that is in force, and nothing else.
    pub(super) fn compact(&mut self, layout: &Layout) -> Result<()> {
        if self.file.metadata()?.len() < COMPACT {
            return Ok(());
        }
        if self.state().is_some_and(|state| state.ended.is_none()) {
            bail!("an operation is not over");
        }
        let kept: Vec<Record> = match journal::in_force(&self.records) {
            Some(plan) => {
                let commit = Event::Done { step: berth_adopt::Step::Commit };
                let events = [Event::Begin { plan: Box::new(plan) }, commit, Event::End { done: true }];
                events.into_iter().map(|event| Record { at: now_millis(), event }).collect()
            }
            None => Vec::new(),
        };
        let mut text = HEADER.to_owned();
        for record in &kept {
            text.push_str(&journal::encode(record).map_err(|e| anyhow!("journal: {e}"))?);
        }
        let dir = directory(layout);
        let new = dir.join(".journal.new");
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, dir.join("journal"))?;
        sync_directory(&dir)?;
        (self.file, self.records) = (file, kept);
        Ok(())
    }
}

/// A name in a directory survives a power cut after this.
pub(super) fn sync_directory(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).with_context(|| format!("directory {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_the_lock_and_records_outlive_a_torn_write() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(Some(dir.path())).unwrap();
        assert!(Lock::holder(&layout).is_none() && read(&layout).unwrap().records.is_empty());
        let lock = Lock::take(&layout).unwrap().unwrap();
        assert!(Lock::take(&layout).unwrap().is_none());
        let own = std::process::id();
        assert_eq!(Lock::holder(&layout), Some(Holder { pid: own, started: process_start(own).unwrap() }));
        let mut writer = Writer::open(&layout, &lock).unwrap();
        writer.append(Event::Back { reason: "one".into() }).unwrap();
        drop(writer);
        let path = directory(&layout).join("journal");
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"12345678 {\"at\"").unwrap();
        let mut writer = Writer::open(&layout, &lock).unwrap();
        assert_eq!(writer.records.len(), 1);
        writer.append(Event::Back { reason: "two".into() }).unwrap();
        assert_eq!(read(&layout).unwrap().records.len(), 2);
        drop(lock);
        assert!(Lock::holder(&layout).is_none());
    }
}
