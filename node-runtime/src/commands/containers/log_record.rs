//! Records of a container's log (the CRI's format): `TIME stdout|stderr TAG CONTENT`, where a line that was too long is several
//! records tagged `P` and one tagged `F`. Pure.
use crate::commands::time::parse_rfc3339;

/// The stream that a record is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// A record, without its line break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// As written.
    pub stamp: &'a str,
    pub stream: Stream,
    /// Whether the line goes on in the next record of the stream.
    pub partial: bool,
    pub content: &'a [u8],
}

impl<'a> Record<'a> {
    /// Reads one; `None` for what is no record.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |b| *b == b' ');
        let stamp = std::str::from_utf8(parts.next()?).ok()?;
        let stream = match parts.next()? {
            b"stdout" => Stream::Stdout,
            b"stderr" => Stream::Stderr,
            _ => return None,
        };
        // Tags are joined by colons, the first says whether the line is whole.
        let partial = match parts.next()?.split(|b| *b == b':').next()? {
            b"P" => true,
            b"F" => false,
            _ => return None,
        };
        Some(Self { stamp, stream, partial, content: parts.next().unwrap_or_default() })
    }

    /// When it was written, in Unix nanoseconds.
    pub fn at(&self) -> Option<i64> {
        parse_rfc3339(self.stamp)
    }
}

/// Turns records back into what the container wrote.
#[derive(Debug)]
pub struct Joiner {
    /// Write the stamp of each line before it.
    timestamps: bool,
    /// Leave out lines that are older, in Unix nanoseconds.
    since: i64,
    /// Leave out lines that are younger.
    until: i64,
    /// Per stream: a line is under way, and whether it is shown.
    open: [Option<bool>; 2],
}

impl Default for Joiner {
    fn default() -> Self {
        Self { timestamps: false, since: 0, until: i64::MAX, open: [None; 2] }
    }
}

impl Joiner {
    /// With the stamp before each line, or without; lines older than `since` (Unix nanoseconds, 0 for none) and younger than
    /// `until` are left out.
    pub fn new(timestamps: bool, since: i64, until: i64) -> Self {
        Self { timestamps, since, until, ..Self::default() }
    }

    /// What to write for a record, and where.
    pub fn feed(&mut self, record: &Record<'_>) -> (Stream, Vec<u8>) {
        let open = &mut self.open[record.stream as usize];
        let begins = open.is_none();
        let (since, until) = (self.since, self.until);
        let shown = *open.get_or_insert_with(|| {
            // Times are read only where they decide.
            (since == 0 && until == i64::MAX) || record.at().is_none_or(|at| at >= since && at <= until)
        });
        let mut out = Vec::new();
        if shown {
            if begins && self.timestamps {
                out.extend_from_slice(record.stamp.as_bytes());
                out.push(b' ');
            }
            out.extend_from_slice(record.content);
            if !record.partial {
                out.push(b'\n');
            }
        }
        if !record.partial {
            *open = None;
        }
        (record.stream, out)
    }
}

/// Finds where the last lines begin, as records go by.
#[derive(Debug)]
pub struct Tail {
    keep: usize,
    starts: std::collections::VecDeque<u64>,
    /// Per stream: where its line under way began.
    open: [bool; 2],
}

impl Tail {
    /// Of this many lines.
    pub fn new(keep: usize) -> Self {
        Self { keep, starts: std::collections::VecDeque::new(), open: [false; 2] }
    }

    /// A record that begins at this offset.
    pub fn feed(&mut self, offset: u64, record: &Record<'_>) {
        let open = &mut self.open[record.stream as usize];
        if !std::mem::replace(open, record.partial) {
            self.starts.push_back(offset);
            if self.starts.len() > self.keep {
                self.starts.pop_front();
            }
        }
    }

    /// Where to begin reading; `end` if there is nothing to keep.
    pub fn start(&self, end: u64) -> u64 {
        if self.keep == 0 { end } else { self.starts.front().copied().unwrap_or(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const T: &str = "2026-01-01T00:00:00.000000000Z";

    fn joined(joiner: &mut Joiner, lines: &[&str]) -> (String, String) {
        let (mut out, mut err) = (String::new(), String::new());
        for line in lines {
            let (stream, bytes) = joiner.feed(&Record::parse(line.as_bytes()).unwrap());
            let text = String::from_utf8(bytes).unwrap();
            match stream {
                Stream::Stdout => out += &text,
                Stream::Stderr => err += &text,
            }
        }
        (out, err)
    }

    #[test]
    fn partial_records_become_lines_per_stream() {
        let lines = ["T stdout P ab", "T stderr F oops  x", "T stdout P cd", "T stdout F ", "T stdout F:t end"];
        let (out, err) = joined(&mut Joiner::default(), &lines);
        assert_eq!((out.as_str(), err.as_str()), ("abcd\nend\n", "oops  x\n"));
        let mut stamped = Joiner::new(true, 0, i64::MAX);
        assert_eq!(joined(&mut stamped, &["T stdout P ab", "U stdout F c"]).0, "T abc\n");
    }

    #[test]
    fn old_lines_are_left_out_as_wholes() {
        let mut joiner = Joiner::new(false, parse_rfc3339(T).unwrap(), i64::MAX);
        let old = "2025-12-31T23:59:59.999999999Z";
        let lines = [format!("{old} stdout P a"), format!("{T} stdout F b"), format!("{T} stdout F c")];
        assert_eq!(joined(&mut joiner, &lines.each_ref().map(String::as_str)).0, "c\n");
        let mut joiner = Joiner::new(false, 0, parse_rfc3339(T).unwrap() - 1);
        assert_eq!(joined(&mut joiner, &lines.each_ref().map(String::as_str)).0, "ab\n", "the line that began before");
    }

    #[test]
    fn what_is_no_record_is_none() {
        for bad in ["", "T", "T stdout", "T stdin F x", "T stdout X x", "T stdout  x"] {
            assert!(Record::parse(bad.as_bytes()).is_none(), "{bad:?}");
        }
        assert_eq!(Record::parse(b"T stdout F").unwrap().content, b"");
    }

    #[test]
    fn the_tail_counts_lines_and_not_records() {
        let lines = ["T stdout F 1", "T stdout P 2", "T stdout F 2", "T stderr F 3"];
        for (keep, wanted) in [(0, 4), (1, 3), (2, 1), (3, 0), (9, 0)] {
            let mut tail = Tail::new(keep);
            for (i, line) in lines.iter().enumerate() {
                tail.feed(i as u64, &Record::parse(line.as_bytes()).unwrap());
            }
            assert_eq!(tail.start(4), wanted, "{keep}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(line in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(record) = Record::parse(&line) {
                let _ = record.at();
                Joiner::default().feed(&record);
            }
        }
    }
}
