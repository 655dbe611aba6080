//! The journal's file and the lock. Format: `docs/formats/adopt-journal.md`; what a record means is `berth_adopt::journal`'s.
//!
//! Owns: one writer at a time, a record on the disk before the call returns, room for records on a disk that is full, the end of a write that
//! was cut short. Must not: decide.
use super::talk::Talk;
use super::{now_millis, process_start};
use crate::layout::Layout;
use crate::{atomic_file, node_files};
use anyhow::{Context, Result, anyhow, bail};
use berth_adopt::journal::{self, Event, HEADER, InForce, Journal, MAX_JOURNAL, Record, State};
use rustix::fs::{FallocateFlags, FlockOperation, flock};
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A journal longer than this is written anew when an operation begins.
const COMPACT: u64 = 4 << 20;
/// Room in bytes that an operation takes for its records before it begins.
const SPARE: u64 = 256 << 10;
/// Longest reason that is recorded, in bytes: what others say may be of any length.
const MAX_REASON: usize = 4096;
/// How often, and after which pause, a lock is tried that somebody only looks at.
const LOOKS: u32 = 50;
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// Where the journal and what belongs to it lie.
pub(crate) fn directory(layout: &Layout) -> PathBuf {
    layout.lib.join("adopt")
}

/// Whoever may change the node. It goes with the process, however that ends.
pub(super) struct Lock {
    #[allow(dead_code, reason = "it is held by being open")]
    file: File,
}

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
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(|e| anyhow!("lock {}: {e}", path.display()))?;
        if !try_exclusive(&file) {
            return Ok(None);
        }
        let own = std::process::id();
        // In place and of one length, so that it needs no room on a disk that is full.
        let text = format!("{:<40}\n", format!("{own} {}", process_start(own).unwrap_or_default()));
        if let Err(e) = file.write_all_at(text.as_bytes(), 0).and_then(|()| file.set_len(text.len() as u64)) {
            Talk { quiet: false }.say(&format!("berth: {} does not say who has it: {e}", path.display()));
        }
        Ok(Some(Self { file }))
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

/// Takes a lock on the file. Whoever looks who has it holds it shared for a moment: that is waited for, a holder is not.
pub(crate) fn try_exclusive(file: &File) -> bool {
    for _ in 0..LOOKS {
        if flock(file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            return true;
        }
        if flock(file, FlockOperation::NonBlockingLockShared).is_err() {
            return false;
        }
        let _ = flock(file, FlockOperation::Unlock);
        std::thread::sleep(LOOK_PAUSE);
    }
    false
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
    /// Length of what is whole of it.
    length: u64,
    /// Lines that could not be written yet.
    unwritten: String,
    spare: PathBuf,
    /// What is in it, or will be.
    pub(super) records: Vec<Record>,
}

impl Writer {
    /// Opens it, and takes away what a write that was cut short left at its end.
    pub(super) fn open(layout: &Layout, _lock: &Lock) -> Result<Self> {
        let dir = directory(layout);
        let journal = read(layout)?;
        let path = dir.join("journal");
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = options.with_context(|| path.display().to_string())?;
        let mut length = journal.whole as u64;
        file.set_len(length)?;
        if length == 0 {
            length = HEADER.len() as u64;
            file.write_all_at(HEADER.as_bytes(), 0).with_context(|| path.display().to_string())?;
            sync_directory(&dir)?;
        }
        file.sync_all()?;
        Ok(Self { file, length, unwritten: String::new(), spare: dir.join("spare"), records: journal.records })
    }

    /// Takes room for an operation's records, and for `more` bytes beside them. Errors: there is none.
    pub(super) fn reserve(&self, more: u64) -> Result<()> {
        let room = SPARE.saturating_add(more);
        let taken = File::create(&self.spare).and_then(|file| {
            match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, room) {
                Err(rustix::io::Errno::OPNOTSUPP) => {
                    io::copy(&mut io::Read::take(io::repeat(0), room), &mut &file).map(drop)?;
                }
                other => other?,
            }
            file.sync_all()
        });
        taken.inspect_err(|_| self.release()).with_context(|| {
            format!("{room} bytes for the journal, {}; make room on that file system", self.spare.display())
        })
    }

    /// Gives that room back.
    pub(super) fn release(&self) {
        let _ = std::fs::remove_file(&self.spare);
    }

    /// Adds a record; it is on the disk when this returns. Errors: it cannot be written, and is no part of the journal then.
    pub(super) fn append(&mut self, event: Event) -> Result<()> {
        let (record, line) = encoded(event)?;
        let before = self.unwritten.len();
        self.unwritten.push_str(&line);
        if let Err(e) = self.flush() {
            self.unwritten.truncate(before);
            return Err(e);
        }
        self.records.push(record);
        Ok(())
    }

    /// Adds a record that counts from now on. One that cannot be written is written before the next one. Errors: it is not on the disk yet.
    pub(super) fn note(&mut self, event: Event) -> Result<()> {
        let (record, line) = encoded(event)?;
        self.unwritten.push_str(&line);
        self.records.push(record);
        self.flush()
    }

    /// Writes what could not be written, if anything is left.
    pub(super) fn flush(&mut self) -> Result<()> {
        if self.unwritten.is_empty() {
            return Ok(());
        }
        let mut written = self.write();
        if written.is_err() {
            self.release();
            written = self.write();
        }
        if written.is_err() {
            // What was written of it would be damage for whoever writes behind it.
            let _ = self.file.set_len(self.length);
        }
        written.context("journal")?;
        self.length += self.unwritten.len() as u64;
        self.unwritten.clear();
        Ok(())
    }

    fn write(&self) -> io::Result<()> {
        self.file.write_all_at(self.unwritten.as_bytes(), self.length)?;
        self.file.sync_data()
    }

    /// The last operation.
    pub(super) fn state(&self) -> Option<State> {
        State::last(&self.records)
    }

    /// Before an operation begins: a long journal keeps what is in force, and nothing else.
    pub(super) fn compact(&mut self, layout: &Layout) -> Result<()> {
        if self.file.metadata()?.len() < COMPACT {
            return Ok(());
        }
        if self.state().is_some_and(|state| state.ended.is_none()) {
            bail!("an operation is not over");
        }
        let kept = InForce::of(&self.records).plans().flat_map(|plan| {
            let commit = Event::Done { step: berth_adopt::Step::Commit };
            [Event::Begin { plan: Box::new(plan) }, commit, Event::End { done: true }]
        });
        let kept: Vec<Record> = kept.map(|event| Record { at: now_millis(), event }).collect();
        let mut text = HEADER.to_owned();
        for record in &kept {
            text.push_str(&journal::encode(record).map_err(|e| anyhow!("journal: {e}"))?);
        }
        let path = directory(layout).join("journal");
        let private = |file: &File| file.set_permissions(Permissions::from_mode(0o600));
        self.file = atomic_file::replace_with(&path, text.as_bytes(), private).context("journal")?;
        (self.length, self.records) = (text.len() as u64, kept);
        Ok(())
    }
}

fn encoded(mut event: Event) -> Result<(Record, String)> {
    if let Event::Back { reason, .. } | Event::Stuck { reason, .. } = &mut event {
        reason.truncate(reason.floor_char_boundary(MAX_REASON));
    }
    let record = Record { at: now_millis(), event };
    let line = journal::encode(&record).map_err(|e| anyhow!("journal: {e}"))?;
    Ok((record, line))
}

/// A name in a directory survives a power cut after this.
pub(super) fn sync_directory(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).with_context(|| format!("directory {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn whoever_looks_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(Some(dir.path())).unwrap();
        drop(Lock::take(&layout).unwrap().unwrap());
        let looking = File::open(directory(&layout).join("lock")).unwrap();
        flock(&looking, FlockOperation::LockShared).unwrap();
        let soon = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            drop(looking);
        });
        assert!(Lock::take(&layout).unwrap().is_some());
        soon.join().unwrap();
    }

    #[test]
    fn what_could_not_be_written_is_written_with_the_next_record() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(Some(dir.path())).unwrap();
        let lock = Lock::take(&layout).unwrap().unwrap();
        let mut writer = Writer::open(&layout, &lock).unwrap();
        let reason = |text: &str| Event::Back { reason: text.into(), interrupted: false };
        writer.append(reason("one")).unwrap();
        // As a full disk does: nothing can be written behind what is there.
        let path = directory(&layout).join("journal");
        let whole = std::mem::replace(&mut writer.file, File::open(&path).unwrap());
        assert!(writer.append(reason("lost")).is_err());
        assert!(writer.note(reason("two")).is_err() && writer.note(reason("three")).is_err());
        assert_eq!((writer.records.len(), read(&layout).unwrap().records.len()), (3, 1));
        writer.file = whole;
        writer.note(reason(&"x".repeat(MAX_REASON * 2))).unwrap();
        let read = read(&layout).unwrap().records;
        assert_eq!(read, writer.records);
        assert!(matches!(&read[3].event, Event::Back { reason, .. } if reason.len() == MAX_REASON));
        writer.reserve(100).unwrap();
        assert_eq!(std::fs::metadata(&writer.spare).unwrap().len(), SPARE + 100);
        writer.release();
        assert!(!writer.spare.exists());
    }

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
        writer.append(Event::Back { reason: "one".into(), interrupted: false }).unwrap();
        drop(writer);
        let path = directory(&layout).join("journal");
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"12345678 {\"at\"").unwrap();
        let mut writer = Writer::open(&layout, &lock).unwrap();
        assert_eq!(writer.records.len(), 1);
        writer.append(Event::Back { reason: "two".into(), interrupted: false }).unwrap();
        assert_eq!(read(&layout).unwrap().records.len(), 2);
        drop(lock);
        assert!(Lock::holder(&layout).is_none());
    }
}
