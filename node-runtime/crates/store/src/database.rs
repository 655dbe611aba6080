//! One redb file with a table per kind of record. Every write is one transaction with one sync; a write that returned
//! `Ok` survives a power cut. Format: `docs/formats/database.md`.
//!
//! A disk that fails or is full ends redb's use of the file for good, so the file is then opened again, which brings back the last
//! commit; and the file has room of its own ([`crate::room`]), so that a full disk is met by pulls and not by removals.
use crate::room::Roomy;
use berth_model::{Error, ErrorKind, Result};
use redb::{ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

/// Longest key in bytes: a reference of 255 bytes of name, a tag of 128 and a digest fits.
pub const MAX_KEY: usize = 1024;
/// Longest record of an image in bytes.
pub const MAX_IMAGE_RECORD: usize = 4 << 20;
/// Longest lease in bytes.
pub const MAX_LEASE: usize = 64 << 10;

/// The file's own cache. The records are read once, at start, so more would only be memory lost.
const CACHE_BYTES: usize = 2 << 20;
/// How long a lock may outlive its daemon: a process that the daemon was starting when it was killed holds its descriptors until
/// it executes its own program.
const LOCK_LIMIT: Duration = Duration::from_secs(2);
const LOCK_RETRY: Duration = Duration::from_millis(10);
/// Written into a new file. A file with a higher number is refused; a lower one is migrated where this changes.
const SCHEMA_VERSION: u64 = 1;

const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");
const SCHEMA_KEY: &str = "schema_version";
const IMAGES: Table = Table { name: "images", max: MAX_IMAGE_RECORD };
const REFERENCES: Table = Table { name: "references", max: MAX_KEY };
const LEASES: Table = Table { name: "leases", max: MAX_LEASE };

/// A table of texts to bytes, with the longest value it takes.
#[derive(Clone, Copy)]
struct Table {
    name: &'static str,
    max: usize,
}

impl Table {
    fn definition(self) -> TableDefinition<'static, &'static str, &'static [u8]> {
        TableDefinition::new(self.name)
    }
}

/// What one transaction does to images and references: all of it or nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageChanges {
    /// Images to write: id and record.
    pub put_images: Vec<(String, Vec<u8>)>,
    /// Ids of images to forget. An absent one is fine.
    pub remove_images: Vec<String>,
    /// References to write: text and the id of the image they name.
    pub put_references: Vec<(String, String)>,
    /// References to forget. An absent one is fine.
    pub remove_references: Vec<String>,
}

/// The database of one root directory. One process at a time can have it open.
pub struct Database {
    path: PathBuf,
    /// `None` after a fault from which it could not be opened again; the next use tries once more.
    inner: RwLock<Option<redb::Database>>,
}

impl Database {
    /// Opens the file, or makes it. Errors: `FailedPrecondition` when another process has it open or when a newer version
    /// wrote it; `Internal` when it is not a database of ours.
    pub fn open(path: &Path) -> Result<Self> {
        let inner = open_file(path)?;
        Ok(Self { path: path.to_owned(), inner: RwLock::new(Some(inner)) })
    }

    /// Uses the open database; opens it first if an earlier fault closed it.
    fn with<T>(&self, work: impl Fn(&redb::Database) -> Result<T>) -> Result<T> {
        {
            let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(open) = &*inner {
                return work(open);
            }
        }
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if inner.is_none() {
            *inner = Some(open_file(&self.path)?);
        }
        inner.as_ref().map_or_else(|| Err(Error::internal("database is not open")), work)
    }

    /// Closes the file, as it is after a fault; the next use opens it.
    fn close(&self) {
        drop(self.inner.write().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// All images: id and record.
    pub fn images_all(&self) -> Result<Vec<(String, Vec<u8>)>> {
        self.all(IMAGES)
    }

    /// All references: text and the id of the image they name.
    pub fn references_all(&self) -> Result<Vec<(String, String)>> {
        let rows = self.all(REFERENCES)?;
        rows.into_iter()
            .map(|(text, id)| match String::from_utf8(id) {
                Ok(id) => Ok((text, id)),
                Err(_) => Err(Error::internal(format!("reference {text} names an id that is not text"))),
            })
            .collect()
    }

    /// Applies changes to images and references in one transaction, removals first. Errors: `InvalidArgument` for a key or
    /// record over its limit, and then nothing is changed.
    pub fn change_images(&self, changes: &ImageChanges) -> Result<()> {
        self.write(|tx| {
            for id in &changes.remove_images {
                remove(tx, IMAGES, id)?;
            }
            for text in &changes.remove_references {
                remove(tx, REFERENCES, text)?;
            }
            for (id, record) in &changes.put_images {
                put(tx, IMAGES, id, record)?;
            }
            for (text, id) in &changes.put_references {
                put(tx, REFERENCES, text, id.as_bytes())?;
            }
            Ok(())
        })
    }

    /// All leases: key and value.
    pub fn lease_all(&self) -> Result<Vec<(String, Vec<u8>)>> {
        self.all(LEASES)
    }

    /// Writes a lease, replacing an earlier one of the key. Errors: `InvalidArgument` for a key over [`MAX_KEY`] or a value over
    /// [`MAX_LEASE`].
    pub fn lease_put(&self, key: &str, value: &[u8]) -> Result<()> {
        self.write(|tx| put(tx, LEASES, key, value))
    }

    /// Removes a lease. An absent one is fine.
    pub fn lease_remove(&self, key: &str) -> Result<()> {
        self.write(|tx| remove(tx, LEASES, key))
    }

    fn all(&self, table: Table) -> Result<Vec<(String, Vec<u8>)>> {
        self.with(|database| {
            let read = database.begin_read().map_err(fault)?;
            let open = read.open_table(table.definition()).map_err(fault)?;
            let rows = open.iter().map_err(fault)?;
            rows.map(|row| row.map(|(k, v)| (k.value().to_owned(), v.value().to_vec())).map_err(fault)).collect()
        })
    }

    /// One transaction. A closure that fails changes nothing; a fault of the disk is met by opening the file again and trying
    /// once more: its own room is enough for what removes, and what adds fails again.
    fn write(&self, change: impl Fn(&WriteTransaction) -> Result<()>) -> Result<()> {
        match self.with(|database| transaction(database, &change)) {
            Err(e) if !matches!(e.kind(), ErrorKind::InvalidArgument) => {
                self.close();
                let again = self.with(|database| transaction(database, &change));
                if again.is_err() {
                    self.close();
                }
                again
            }
            done => done,
        }
    }
}

fn open_file(path: &Path) -> Result<redb::Database> {
    let deadline = Instant::now() + LOCK_LIMIT;
    let opened = loop {
        let file = Roomy::open(path).map_err(|e| open_error(path, &e))?;
        match redb::Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(file) {
            Err(redb::DatabaseError::DatabaseAlreadyOpen) if Instant::now() < deadline => {
                std::thread::sleep(LOCK_RETRY);
            }
            other => break other.map_err(|e| open_error(path, &e))?,
        }
    };
    prepare(&opened).map_err(|e| e.context(path.display()))?;
    Ok(opened)
}

/// Makes the tables and checks the schema's version.
fn prepare(database: &redb::Database) -> Result<()> {
    let found = {
        let read = database.begin_read().map_err(fault)?;
        match read.open_table(META) {
            Ok(meta) => meta.get(SCHEMA_KEY).map_err(fault)?.map(|v| v.value()),
            Err(redb::TableError::TableDoesNotExist(_)) => None,
            Err(e) => return Err(fault(e)),
        }
    };
    match found {
        Some(SCHEMA_VERSION) => return Ok(()),
        Some(version) if version > SCHEMA_VERSION => {
            return Err(Error::new(
                ErrorKind::FailedPrecondition,
                format!(
                    "schema version {version} is newer than {SCHEMA_VERSION}, which this build reads: start the version that wrote it"
                ),
            ));
        }
        _ => {}
    }
    transaction(database, |tx| {
        for table in [IMAGES, REFERENCES, LEASES] {
            tx.open_table(table.definition()).map_err(fault)?;
        }
        tx.open_table(META).map_err(fault)?.insert(SCHEMA_KEY, SCHEMA_VERSION).map_err(fault)?;
        Ok(())
    })
}

fn transaction(database: &redb::Database, change: impl Fn(&WriteTransaction) -> Result<()>) -> Result<()> {
    let tx = database.begin_write().map_err(fault)?;
    match change(&tx) {
        Ok(()) => tx.commit().map_err(fault),
        Err(e) => {
            // An abort that fails too says nothing that the first error does not.
            let _ = tx.abort();
            Err(e)
        }
    }
}

fn put(tx: &WriteTransaction, table: Table, key: &str, value: &[u8]) -> Result<()> {
    for (what, len, max) in [("key", key.len(), MAX_KEY), ("record", value.len(), table.max)] {
        if len > max {
            return Err(Error::invalid(table.name, format!("{what} of {len} bytes is longer than {max}")));
        }
    }
    tx.open_table(table.definition()).map_err(fault)?.insert(key, value).map_err(fault)?;
    Ok(())
}

fn remove(tx: &WriteTransaction, table: Table, key: &str) -> Result<()> {
    tx.open_table(table.definition()).map_err(fault)?.remove(key).map_err(fault)?;
    Ok(())
}

/// A full disk stays `ResourceExhausted` through redb's wrapping; everything else is a fault of the machine.
fn fault(e: impl Into<redb::Error>) -> Error {
    match e.into() {
        redb::Error::Io(io) => Error::from(io).context("database"),
        other => Error::internal(format!("database: {other}")),
    }
}

fn is_full(e: &std::io::Error) -> bool {
    matches!(e.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

fn open_error(path: &Path, e: &redb::DatabaseError) -> Error {
    match e {
        redb::DatabaseError::Storage(redb::StorageError::Io(io)) if is_full(io) => {
            Error::new(ErrorKind::ResourceExhausted, format!("cannot open database {}: {io}", path.display()))
        }
        redb::DatabaseError::DatabaseAlreadyOpen => Error::new(
            ErrorKind::FailedPrecondition,
            format!("{} is open in another process: only one daemon can serve a root directory", path.display()),
        ),
        other => Error::internal(format!("cannot open database {}: {other}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> (tempfile::TempDir, std::path::PathBuf, Database) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("berth.redb");
        let database = Database::open(&path).unwrap();
        (dir, path, database)
    }

    #[test]
    fn leases_survive_a_reopen() {
        let (_dir, path, db) = open();
        db.lease_put("10.0.0.2", b"a").unwrap();
        db.lease_put("10.0.0.3", b"b").unwrap();
        db.lease_put("10.0.0.2", b"c").unwrap();
        db.lease_remove("10.0.0.3").unwrap();
        db.lease_remove("10.0.0.9").unwrap();
        drop(db);
        let db = Database::open(&path).unwrap();
        assert_eq!(db.lease_all().unwrap(), [("10.0.0.2".to_owned(), b"c".to_vec())]);
    }

    #[test]
    fn image_changes_are_all_or_nothing() {
        let (_dir, _path, db) = open();
        db.change_images(&ImageChanges {
            put_images: vec![("a".into(), b"1".to_vec())],
            put_references: vec![("x:1".into(), "a".into()), ("x:2".into(), "a".into())],
            ..ImageChanges::default()
        })
        .unwrap();
        let bad = ImageChanges {
            remove_images: vec!["a".into()],
            put_images: vec![("b".into(), vec![0; MAX_IMAGE_RECORD + 1])],
            ..ImageChanges::default()
        };
        assert_eq!(db.change_images(&bad).unwrap_err().kind(), ErrorKind::InvalidArgument);
        assert_eq!(db.images_all().unwrap(), [("a".to_owned(), b"1".to_vec())]);
        let long = "k".repeat(MAX_KEY + 1);
        assert!(db.lease_put(&long, b"").unwrap_err().message().contains("longer than 1024"));
        db.change_images(&ImageChanges { remove_references: vec!["x:1".into()], ..ImageChanges::default() }).unwrap();
        assert_eq!(db.references_all().unwrap(), [("x:2".to_owned(), "a".to_owned())]);
    }

    #[test]
    fn a_second_opener_and_a_newer_schema_are_told_so() {
        let (_dir, path, db) = open();
        let error = Database::open(&path).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
        assert!(error.message().contains("another process"), "{error}");
        db.write(|tx| {
            tx.open_table(META).unwrap().insert(SCHEMA_KEY, SCHEMA_VERSION + 1).unwrap();
            Ok(())
        })
        .unwrap();
        drop(db);
        let error = Database::open(&path).err().unwrap();
        assert!(error.message().contains("newer"), "{error}");
    }

    #[test]
    fn a_file_that_is_no_database_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("berth.redb");
        std::fs::write(&path, vec![b'x'; 8192]).unwrap();
        assert!(Database::open(&path).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), vec![b'x'; 8192]);
    }
}
