//! A container's log file in the CRI's format: `TIME stdout|stderr P|F CONTENT\n` (KEP-1602's predecessor, the kubelet's
//! `pkg/kubelet/kuberuntime/logs`).
//!
//! Owns: the file, what could not be written to it, and that records are whole: a record that a full disk has cut is completed
//! before anything else is written. Must not: block the container; what does not fit is counted and dropped.
use crate::lines::{Lines, Tag};
use crate::stamp::{self, Stamps};
use memchr::{memchr, memrchr};
use std::fs::File;
use std::io::{self, Write};
use std::time::Duration;

/// Which stream a record is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// `stdout`.
    Stdout,
    /// `stderr`.
    Stderr,
}

/// Bytes before a record's content: the stamp, ` stdout P `.
const PREFIX: usize = stamp::LEN + 10;
/// Bytes of a longest record.
const MAX_RECORD: usize = PREFIX + crate::lines::MAX_CONTENT + 1;
/// Least size of a buffer that records are collected in.
pub const MIN_BUFFER: usize = MAX_RECORD;

/// A place that bytes are appended to; a file, but in tests.
pub trait Append {
    /// Appends as much as fits; like write(2).
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize>;
}

impl Append for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write(bytes)
    }
}

/// The log of one task. Without a file, output goes nowhere and is not counted.
#[derive(Debug)]
pub struct Log<F> {
    file: Option<F>,
    stamps: Stamps,
    /// A record that the file has only a part of.
    torn: Vec<u8>,
    /// How many bytes of it the file has.
    torn_written: usize,
    dropped: u64,
    /// Of those dropped, the bytes that no marker line tells of yet.
    unreported: u64,
    why: String,
}

impl<F: Append> Log<F> {
    /// A log into this file.
    pub fn new(file: Option<F>) -> Self {
        Self {
            file,
            stamps: Stamps::default(),
            torn: Vec::new(),
            torn_written: 0,
            dropped: 0,
            unreported: 0,
            why: String::new(),
        }
    }

    /// Bytes of records that could not be written.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Writes what a stream has sent. `buffer` holds records on their way, at least [`MIN_BUFFER`] bytes.
    pub fn write(&mut self, stream: Stream, lines: &mut Lines, input: &[u8], now: Duration, buffer: &mut [u8]) {
        let mut batch = Batch { used: 0, prefix: prefix(self.stamps.stamp(now), stream), buffer };
        lines.feed(input, |tag, a, b| self.record(&mut batch, tag, a, b));
        self.flush(&mut batch);
    }

    /// Writes a stream's unfinished line; it has ended.
    pub fn finish(&mut self, stream: Stream, lines: &mut Lines, now: Duration, buffer: &mut [u8]) {
        let mut batch = Batch { used: 0, prefix: prefix(self.stamps.stamp(now), stream), buffer };
        lines.finish(|tag, a, b| self.record(&mut batch, tag, a, b));
        self.flush(&mut batch);
    }

    /// Goes on in another file. A record that the old file cannot take the rest of goes into the new one as a whole; in the old
    /// one it has no newline, so it is no record there.
    pub fn reopen(&mut self, file: F) {
        self.settle();
        self.torn_written = 0;
        self.file = Some(file);
    }

    /// Closes the file after a last try to write what is due.
    pub fn close(&mut self) {
        self.settle();
        let left = (self.torn.len() - self.torn_written) as u64;
        self.dropped += left;
        self.torn = Vec::new();
        self.torn_written = 0;
        self.file = None;
    }

    fn record(&mut self, batch: &mut Batch<'_>, tag: Tag, a: &[u8], b: &[u8]) {
        if batch.buffer.len() - batch.used < PREFIX + a.len() + b.len() + 1 {
            self.flush(batch);
        }
        batch.push(tag, a, b);
    }

    fn flush(&mut self, batch: &mut Batch<'_>) {
        let records = &batch.buffer[..batch.used];
        batch.used = 0;
        if records.is_empty() || self.file.is_none() {
            return;
        }
        if self.settle() {
            self.append(records);
        } else {
            self.drop_bytes(records.len());
        }
    }

    /// Completes a torn record, then tells of dropped bytes. Whether the file takes records again.
    fn settle(&mut self) -> bool {
        if self.file.is_none() {
            return false;
        }
        if !self.torn.is_empty() {
            let torn = std::mem::take(&mut self.torn);
            self.torn_written += self.write_all(&torn[self.torn_written..]);
            if self.torn_written < torn.len() {
                self.torn = torn;
                return false;
            }
            self.torn_written = 0;
        }
        if self.unreported > 0 {
            let lost = std::mem::take(&mut self.unreported);
            let text = format!("berth: {lost} bytes of this log were lost: {}", self.why);
            let mut marker = [0; 256];
            let latest = self.stamps.stamp(Duration::ZERO);
            let mut batch = Batch { used: 0, prefix: prefix(latest, Stream::Stderr), buffer: &mut marker };
            batch.push(Tag::Full, &text.as_bytes()[..text.len().min(128)], &[]);
            let length = batch.used;
            let written = self.write_all(&marker[..length]);
            if written == 0 {
                self.unreported = lost;
                return false;
            }
            if written < length {
                self.tear(&marker[..length], written);
                return false;
            }
        }
        true
    }

    /// Writes whole records; keeps the one that is cut, counts those behind it.
    fn append(&mut self, records: &[u8]) {
        let written = self.write_all(records);
        if written == records.len() {
            return;
        }
        let start = memrchr(b'\n', &records[..written]).map_or(0, |at| at + 1);
        if start == written {
            self.drop_bytes(records.len() - written);
            return;
        }
        let end = memchr(b'\n', &records[written..]).map_or(records.len(), |at| written + at + 1);
        self.tear(&records[start..end], written - start);
        self.drop_bytes(records.len() - end);
    }

    fn tear(&mut self, record: &[u8], written: usize) {
        self.torn = record.to_vec();
        self.torn_written = written;
    }

    fn drop_bytes(&mut self, count: usize) {
        self.dropped += count as u64;
        self.unreported += count as u64;
    }

    /// Writes until all is written or the file refuses; returns how much it took.
    fn write_all(&mut self, bytes: &[u8]) -> usize {
        let Some(file) = &mut self.file else { return 0 };
        let mut written = 0;
        while written < bytes.len() {
            match file.append(&bytes[written..]) {
                Ok(0) => break,
                Ok(n) => written += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    self.why = e.to_string();
                    break;
                }
            }
        }
        written
    }
}

/// Records on their way to the file.
struct Batch<'a> {
    buffer: &'a mut [u8],
    used: usize,
    prefix: [u8; PREFIX],
}

impl Batch<'_> {
    /// Adds a record, for which there is room.
    fn push(&mut self, tag: Tag, a: &[u8], b: &[u8]) {
        self.prefix[PREFIX - 2] = match tag {
            Tag::Full => b'F',
            Tag::Partial => b'P',
        };
        for piece in [&self.prefix[..], a, b, b"\n"] {
            self.buffer[self.used..self.used + piece.len()].copy_from_slice(piece);
            self.used += piece.len();
        }
    }
}

fn prefix(stamp: [u8; stamp::LEN], stream: Stream) -> [u8; PREFIX] {
    let mut prefix = [b' '; PREFIX];
    prefix[..stamp::LEN].copy_from_slice(&stamp);
    let name = match stream {
        Stream::Stdout => b"stdout",
        Stream::Stderr => b"stderr",
    };
    prefix[stamp::LEN + 1..stamp::LEN + 7].copy_from_slice(name);
    prefix
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
