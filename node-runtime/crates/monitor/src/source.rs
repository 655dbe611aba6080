//! One stream of output that goes to a log and to those who are attached.
//!
//! Owns: the read end, the unfinished line, the copies. Must not: wait for a reader of a copy.
use crate::lines::Lines;
use crate::log::Stream;
use berth_sys::poll;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// Most readers of copies of one stream.
const MAX_COPIES: usize = 8;
/// How often a terminal that nobody has open is looked at again.
const PARKED: Duration = Duration::from_millis(500);

/// What a read found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// So many bytes.
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// Nobody has the terminal open now; somebody may open it again.
    Hangup,
    /// The end.
    End,
}

/// A stream.
#[derive(Debug)]
pub struct Source {
    /// What is read: a pipe, or a terminal's master.
    pub file: File,
    /// Its name in the log.
    pub stream: Stream,
    /// Its unfinished line.
    pub lines: Lines,
    /// Not watched until then.
    pub parked_until: Option<Instant>,
    terminal: bool,
    copies: Vec<File>,
}

impl Source {
    /// Reads from a descriptor, which becomes non-blocking.
    pub fn new(fd: OwnedFd, stream: Stream, terminal: bool) -> io::Result<Self> {
        poll::set_nonblocking(fd.as_fd())?;
        Ok(Self { file: fd.into(), stream, lines: Lines::default(), parked_until: None, terminal, copies: Vec::new() })
    }

    /// Reads once.
    pub fn read(&mut self, buffer: &mut [u8]) -> Found {
        loop {
            return match self.file.read(buffer) {
                Ok(0) => Found::End,
                Ok(n) => Found::Bytes(n),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => Found::Nothing,
                // EIO: the last slave was closed (pty(7)).
                Err(_) if self.terminal => Found::Hangup,
                Err(_) => Found::End,
            };
        }
    }

    /// Leaves it alone for a while.
    pub fn park(&mut self) {
        self.parked_until = Some(Instant::now() + PARKED);
    }

    /// Makes a pipe with a copy of what comes from now on; `None` if there are too many.
    pub fn copy(&mut self) -> io::Result<Option<OwnedFd>> {
        if self.copies.len() >= MAX_COPIES {
            return Ok(None);
        }
        let (read, write) = io::pipe()?;
        poll::set_nonblocking(write.as_fd())?;
        self.copies.push(OwnedFd::from(write).into());
        Ok(Some(read.into()))
    }

    /// Gives the bytes to those attached. Who has no room loses them; who has gone is forgotten.
    pub fn tee(&mut self, bytes: &[u8]) {
        self.copies.retain_mut(|copy| match copy.write(bytes) {
            Ok(_) => true,
            Err(e) => matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
        });
    }
}
