//! The database's file, with room set aside: what it may grow by is allocated before it is needed.
//!
//! Owns: allocation. A commit writes new pages before it frees old ones, so a database without room could not even forget an image
//! on a full disk, which is the moment when that matters. The room lies behind the end of the file itself (fallocate(2),
//! `FALLOC_FL_KEEP_SIZE`), so nobody else can take it first. Must not: interpret what is written.
//! File systems that write elsewhere on each change (btrfs) or know no fallocate give no such promise.
use redb::StorageBackend;
use redb::backends::FileBackend;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use std::fs::File;
use std::io::{Error, Result};
use std::ops::Bound;
use std::path::Path;

/// Least room. Smaller databases double when they grow, larger ones need no more than this at a time.
const LEAST: u64 = 1 << 20;
/// Most room.
const MOST: u64 = 16 << 20;

/// A file that grows into blocks it has already.
#[derive(Debug)]
pub(crate) struct Roomy {
    file: File,
    inner: FileBackend,
}

impl Roomy {
    /// Opens the file or makes it.
    pub fn open(path: &Path) -> std::result::Result<Self, redb::DatabaseError> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let inner = FileBackend::new(file.try_clone()?)?;
        let roomy = Self { file, inner };
        let length = roomy.file.metadata()?.len();
        if length > 0 {
            // A database of an earlier version has holes. Without space now they stay for the next time.
            let _ = roomy.allocate(length);
            roomy.set_aside(length);
        }
        Ok(roomy)
    }

    /// Gives every byte up to `length` a block; the file becomes that long if it was shorter.
    fn allocate(&self, length: u64) -> Result<()> {
        match fallocate(&self.file, FallocateFlags::empty(), 0, length) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.file.set_len(length),
            other => other.map_err(Error::from),
        }
    }

    /// Allocates room behind `length`. On a full disk it is had later: every change of the length tries again.
    fn set_aside(&self, length: u64) {
        let _ = fallocate(&self.file, FallocateFlags::KEEP_SIZE, length, length.clamp(LEAST, MOST));
    }
}

impl StorageBackend for Roomy {
    fn len(&self) -> Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, length: u64) -> Result<()> {
        let before = self.file.metadata()?.len();
        if length <= before {
            self.file.set_len(length)?;
        } else if let Err(e) = self.allocate(length) {
            // Some of it may have been had; the file must be as it was.
            self.file.set_len(before)?;
            self.set_aside(before);
            return Err(e);
        }
        self.set_aside(length);
        Ok(())
    }

    fn sync_data(&self) -> Result<()> {
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.inner.write(offset, data)
    }

    fn close(&self) -> Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> std::result::Result<bool, redb::BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> std::result::Result<bool, redb::BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> std::result::Result<(), redb::BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> std::result::Result<(), redb::BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> std::result::Result<(), redb::BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> std::result::Result<bool, redb::BackendError> {
        self.inner.query_lock_range(start, end)
    }
}
