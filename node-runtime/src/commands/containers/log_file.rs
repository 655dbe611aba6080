//! Reads a container's log file record by record, from where the last lines begin, and follows it when the kubelet rotates it.
//!
//! Must not: write, or know who asks.
use crate::commands::containers::log_record::{Joiner, Record, Stream, Tail};
use crate::commands::output;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A line that is longer is no record: the monitor splits at 16 KiB.
const MAX_LINE: u64 = 1 << 20;

/// A log under reading.
pub struct LogFile {
    path: PathBuf,
    reader: BufReader<File>,
    /// A record whose end is not written yet.
    rest: Vec<u8>,
}

impl LogFile {
    /// Opens it at its beginning.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("log {}", path.display()))?;
        Ok(Self { path: path.to_owned(), reader: BufReader::with_capacity(64 << 10, file), rest: Vec::new() })
    }

    /// Goes to where the last lines begin.
    pub fn seek_tail(&mut self, lines: usize) -> Result<()> {
        self.rest.clear();
        self.reader.rewind()?;
        let (mut tail, mut offset) = (Tail::new(lines), 0u64);
        while let Some(line) = self.next_line()? {
            if let Some(record) = Record::parse(&line) {
                tail.feed(offset, &record);
            }
            offset += line.len() as u64 + 1;
        }
        self.rest.clear();
        self.reader.seek(SeekFrom::Start(tail.start(offset)))?;
        Ok(())
    }

    /// Writes out all whole records that there are. Tells whether there was any.
    pub fn drain(&mut self, joiner: &mut Joiner) -> Result<bool> {
        let mut any = false;
        while let Some(line) = self.next_line()? {
            any = true;
            match Record::parse(&line).map(|record| joiner.feed(&record)) {
                Some((Stream::Stdout, bytes)) => output::bytes(&bytes)?,
                Some((Stream::Stderr, bytes)) => output::error_bytes(&bytes)?,
                None => output::error_bytes(b"berth: a line of the log is no record of the CRI's format\n")?,
            }
        }
        output::flush()?;
        Ok(any)
    }

    /// Goes on with a new file of the same name, if there is one: the old one was rotated away. Its writer may have been at
    /// work until a moment ago, so the old one is read to its end first.
    pub fn follow_rotation(&mut self, joiner: &mut Joiner) -> Result<bool> {
        let Ok(there) = std::fs::metadata(&self.path) else { return Ok(false) };
        let here = self.reader.get_ref().metadata()?;
        if (there.dev(), there.ino()) != (here.dev(), here.ino()) {
            self.drain(joiner)?;
            *self = Self::open(&self.path)?;
            return Ok(true);
        }
        // Cut to nothing in place, as `copytruncate` does.
        if there.len() < self.reader.stream_position()? {
            self.rest.clear();
            self.reader.seek(SeekFrom::Start(0))?;
            return Ok(true);
        }
        Ok(false)
    }

    /// The next line with its end written, without its line break.
    fn next_line(&mut self) -> Result<Option<Vec<u8>>> {
        let room = MAX_LINE.saturating_sub(self.rest.len() as u64);
        let read = self.reader.by_ref().take(room).read_until(b'\n', &mut self.rest);
        read.with_context(|| format!("log {}", self.path.display()))?;
        let whole = self.rest.last() == Some(&b'\n');
        if !whole && (self.rest.len() as u64) < MAX_LINE {
            return Ok(None);
        }
        let mut line = std::mem::take(&mut self.rest);
        if whole {
            line.pop();
        }
        Ok(Some(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn lines(log: &mut LogFile) -> Vec<String> {
        std::iter::from_fn(|| log.next_line().unwrap()).map(|l| String::from_utf8(l).unwrap()).collect()
    }

    #[test]
    fn only_whole_lines_come_and_the_tail_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"T stdout F 1\nT stdout P 2\nT stdout F 2\nT stdo").unwrap();
        let mut log = LogFile::open(&path).unwrap();
        assert_eq!(lines(&mut log).len(), 3);
        file.write_all(b"ut F 3\n").unwrap();
        assert_eq!(lines(&mut log), ["T stdout F 3"]);
        let mut log = LogFile::open(&path).unwrap();
        log.seek_tail(2).unwrap();
        assert_eq!(lines(&mut log), ["T stdout P 2", "T stdout F 2", "T stdout F 3"]);
        log.seek_tail(0).unwrap();
        assert!(lines(&mut log).is_empty());
    }

    #[test]
    fn a_new_file_of_the_name_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, "").unwrap();
        let mut log = LogFile::open(&path).unwrap();
        assert!(!log.follow_rotation(&mut Joiner::default()).unwrap());
        std::fs::rename(&path, dir.path().join("0.log.1")).unwrap();
        assert!(!log.follow_rotation(&mut Joiner::default()).unwrap(), "the new one is not there yet");
        std::fs::write(&path, "T stdout F new\n").unwrap();
        assert!(log.follow_rotation(&mut Joiner::default()).unwrap());
        assert_eq!(lines(&mut log), ["T stdout F new"]);
        std::fs::write(&path, "").unwrap();
        assert!(log.follow_rotation(&mut Joiner::default()).unwrap(), "cut in place");
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, vec![b'x'; (MAX_LINE + 5) as usize]).unwrap();
        let mut log = LogFile::open(&path).unwrap();
        assert_eq!(log.next_line().unwrap().unwrap().len() as u64, MAX_LINE);
        assert!(log.next_line().unwrap().is_none());
    }
}
