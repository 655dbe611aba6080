//! The pod's runtime directory: its lock, the socket, the exit records.
//!
//! Owns: what is in the directory. Must not: write anywhere else.
use berth_monitor_api::{SOCKET, record};
use berth_sys::{process, socket};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Connections that may wait to be taken.
const BACKLOG: i32 = 8;

/// The directory, locked for as long as this lives: a pod has one monitor.
#[derive(Debug)]
pub struct Directory {
    lock: File,
    path: PathBuf,
    exits: PathBuf,
    /// Records that could not be written yet.
    unwritten: Vec<(String, record::ExitRecord)>,
}

impl Directory {
    /// Opens and locks it. Errors say which step failed.
    pub fn open(path: &Path) -> Result<Self, String> {
        let at = |step: &'static str| move |e: &dyn std::fmt::Display| format!("{}: {step}: {e}", path.display());
        let lock = File::open(path).map_err(|e| at("open")(&e))?;
        lock.try_lock().map_err(|e| at("lock (a pod has one monitor)")(&e))?;
        let exits = path.join(record::DIRECTORY);
        match std::fs::DirBuilder::new().mode(0o700).create(&exits) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(at("make exits")(&e)),
            _ => {}
        }
        Ok(Self { lock, path: path.to_owned(), exits, unwritten: Vec::new() })
    }

    /// Listens on the socket, for root only. A socket that a dead monitor has left is replaced: the lock says that it is dead.
    pub fn listen(&self) -> io::Result<OwnedFd> {
        let _ = std::fs::remove_file(self.path.join(SOCKET));
        let before = process::set_umask(0o177);
        let listener = socket::listen(self.lock.as_fd(), SOCKET, BACKLOG);
        process::set_umask(before);
        listener
    }

    /// Removes the socket, so that nobody waits for an answer from it.
    pub fn remove_socket(&self) {
        let _ = std::fs::remove_file(self.path.join(SOCKET));
    }

    /// Writes a task's exit record. One that cannot be written now (tmpfs full) is kept for [`Directory::retry`].
    pub fn write_record(&mut self, id: &str, record: record::ExitRecord) {
        if self.try_write(id, &record).is_err() {
            self.unwritten.push((id.to_owned(), record));
        }
    }

    /// Whether a record still waits to be written.
    pub fn has_unwritten(&self) -> bool {
        !self.unwritten.is_empty()
    }

    /// Tries again what could not be written.
    pub fn retry(&mut self) {
        let waiting = std::mem::take(&mut self.unwritten);
        for (id, record) in waiting {
            self.write_record(&id, record);
        }
    }

    /// Removes a record.
    pub fn remove_record(&mut self, id: &str) {
        self.unwritten.retain(|(other, _)| other != id);
        let _ = std::fs::remove_file(self.exits.join(id));
    }

    /// By rename, so that a record is there as a whole or not at all. Ids have no dot, so the name in between is free.
    fn try_write(&self, id: &str, record: &record::ExitRecord) -> io::Result<()> {
        let fresh = self.exits.join(".new");
        std::fs::write(&fresh, record.encode())?;
        std::fs::rename(&fresh, self.exits.join(id))
    }
}
