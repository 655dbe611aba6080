//! One directory, one subdirectory per object, one self-describing JSON file in each: `DIR/<id>/record.json`.
//! Format: `docs/formats/records.md`.
use crate::spare::Spares;
use berth_model::{Error, ErrorKind, Result, ResultExt};
use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::io::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

const FILE: &str = "record.json";
const TEMPORARY: &str = ".record.json.new";
/// Longest id in bytes, as file systems have it.
const MAX_ID: usize = 255;
/// Longest record in bytes.
const MAX_RECORD: u64 = 4 << 20;

/// Records of one kind. `T` is what the owner of the records means by one; this crate only keeps it.
///
/// A record that was written is found again after a power cut. Each write replaces the whole record and syncs its data once;
/// an object's first write, and a removal, also sync the directory that holds the name.
pub struct Records<T> {
    directory: PathBuf,
    kind: &'static str,
    version: u32,
    spares: Option<Spares>,
    record: PhantomData<fn() -> T>,
}

/// When a write must be on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// Before the call returns: found again after a power cut.
    Now,
    /// When the kernel gets to it: found again after a kill, and whole or not at all after a power cut.
    Later,
}

/// What a directory held.
#[derive(Debug)]
pub struct Loaded<T> {
    /// Objects whose record was read: id and record, by id.
    pub records: Vec<(String, T)>,
    /// Objects whose record was not.
    pub unreadable: Vec<Unreadable>,
}

/// An object that exists and whose record cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The object's id: the name of its directory.
    pub id: String,
    /// Why, in words.
    pub problem: String,
}

/// What is in the file.
#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    kind: String,
    version: u32,
    /// The lowest version that reads this.
    readable_by: u32,
    id: String,
    record: T,
}

/// The envelope alone, read first so that a newer version is told from a torn file.
#[derive(Deserialize)]
struct Label {
    kind: String,
    version: u32,
    /// Records of before the field are read by their own version and the next.
    readable_by: Option<u32>,
    id: String,
}

impl<T: Serialize + DeserializeOwned> Records<T> {
    /// Opens the directory, or makes it. `version` goes into what is written; records of that version, of the one before and of the next
    /// are read, so `T` must read all of them: a field that is added has a default, and none is taken away that the version before needs.
    pub fn open(directory: PathBuf, kind: &'static str, version: u32) -> Result<Self> {
        std::fs::create_dir_all(&directory).context(|| format!("directory {}", directory.display()))?;
        Ok(Self { directory, kind, version, spares: None, record: PhantomData })
    }

    /// Keeps files in reserve, so that records that exist can be replaced on a disk without a free block or inode: objects can then
    /// be stopped and removed, which is what frees the disk. Costs half a MiB.
    #[must_use]
    pub fn with_spares(self) -> Self {
        Self { spares: Some(Spares::beside(&self.directory)), ..self }
    }

    /// The directory of one object; its owner may keep other files there. Errors: `InvalidArgument` for an id that is no
    /// plain file name.
    pub fn path(&self, id: &str) -> Result<PathBuf> {
        check_id(id)?;
        Ok(self.directory.join(id))
    }

    /// Reads every record. What cannot be read is reported and stops nothing. Errors: only when the directory itself cannot
    /// be listed.
    pub fn load(&self) -> Result<Loaded<T>> {
        let mut loaded = Loaded { records: Vec::new(), unreadable: Vec::new() };
        let entries = std::fs::read_dir(&self.directory).context(|| self.directory.display())?;
        for entry in entries {
            let name = entry.context(|| self.directory.display())?.file_name();
            let id = name.to_string_lossy().into_owned();
            match name
                .to_str()
                .ok_or_else(|| Error::internal("directory name is not UTF-8"))
                .and_then(|id| self.read(id))
            {
                Ok(record) => loaded.records.push((id, record)),
                // A kill inside the first write, or inside a removal: the record comes first and goes last, so there is no object.
                Err(e) if e.kind() == ErrorKind::NotFound && self.remove(&id).is_ok() => {}
                Err(e) => loaded.unreadable.push(Unreadable { id, problem: e.message().to_owned() }),
            }
        }
        loaded.records.sort_by(|a, b| a.0.cmp(&b.0));
        loaded.unreadable.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(loaded)
    }

    /// Reads one record. Errors: `NotFound`; `Internal` for one that is torn, too long, or not of this kind and version.
    pub fn read(&self, id: &str) -> Result<T> {
        let path = self.path(id)?.join(FILE);
        let bytes = read_bounded(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Error::not_found(format!("{} record", self.kind), id),
            _ => Error::from(e).context(path.display()),
        })?;
        self.decode(id, &bytes).map_err(|e| e.context(path.display()))
    }

    fn decode(&self, id: &str, bytes: &[u8]) -> Result<T> {
        let label: Label = serde_json::from_slice(bytes).map_err(|e| Error::internal(format!("not a record: {e}")))?;
        if label.kind != self.kind || label.id != id {
            return Err(Error::internal(format!(
                "is the record of {} {}, not of {} {id}",
                label.kind, label.id, self.kind
            )));
        }
        let least = label.readable_by.unwrap_or(label.version);
        if least > self.version {
            return Err(Error::internal(format!(
                "has version {}, which versions from {least} on read; this build's is {}: start a newer build, or the one that wrote it",
                label.version, self.version
            )));
        }
        if label.version.saturating_add(1) < self.version {
            return Err(Error::internal(format!(
                "has version {}, this build reads {} and the one before: start the build in between first",
                label.version, self.version
            )));
        }
        let envelope: Envelope<T> =
            serde_json::from_slice(bytes).map_err(|e| Error::internal(format!("record does not parse: {e}")))?;
        Ok(envelope.record)
    }

    /// Writes a record durably, replacing the one before. When it fails, the one before is still there. Errors:
    /// `InvalidArgument` for a record over 4 MiB, `ResourceExhausted` for a full disk.
    pub fn write(&self, id: &str, record: &T) -> Result<()> {
        self.write_synced(id, record, Sync::Now)
    }

    /// As [`Records::write`], durable when `sync` says.
    pub fn write_synced(&self, id: &str, record: &T, sync: Sync) -> Result<()> {
        check_id(id)?;
        let (kind, version) = (self.kind.to_owned(), self.version);
        let envelope =
            Envelope { kind, version, readable_by: self.version.saturating_sub(1).max(1), id: id.to_owned(), record };
        let bytes = serde_json::to_vec(&envelope).map_err(|e| Error::internal(format!("{} {id}: {e}", self.kind)))?;
        if bytes.len() as u64 > MAX_RECORD {
            return Err(Error::invalid(
                format!("{} {id}", self.kind),
                format!("record of {} bytes is longer than {MAX_RECORD}", bytes.len()),
            ));
        }
        self.replace(id, &bytes, sync).context(|| format!("cannot write {} {id}", self.kind))
    }

    fn replace(&self, id: &str, bytes: &[u8], sync: Sync) -> Result<()> {
        let parent = open_directory(&self.directory)?;
        let fresh = match fs::mkdirat(&parent, id, Mode::from_raw_mode(0o700)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(e) => return Err(io(e)),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = fs::openat(&parent, id, flags, Mode::empty()).map_err(io)?;
        let mut written = write_and_rename(&directory, bytes, sync);
        match (&self.spares, &written) {
            (Some(spares), Ok(())) => spares.fill(),
            // A disk without even a spare file is told by the first error.
            (Some(spares), Err(e))
                if !fresh
                    && e.kind() == ErrorKind::ResourceExhausted
                    && spares.replace(&directory, (TEMPORARY, FILE), bytes, sync == Sync::Now).is_ok() =>
            {
                written = Ok(());
            }
            _ => {}
        }
        if written.is_err() {
            // A full disk must not leave half a file, or an object that never was.
            let _ = fs::unlinkat(&directory, TEMPORARY, AtFlags::empty());
            if fresh {
                let _ = fs::unlinkat(&parent, id, AtFlags::REMOVEDIR);
            }
            return written;
        }
        if sync == Sync::Later {
            return Ok(());
        }
        fs::fsync(&directory).map_err(io)?;
        if fresh {
            fs::fsync(&parent).map_err(io)?;
        }
        Ok(())
    }

    /// Removes an object with everything in its directory, the record first. An absent one is fine.
    pub fn remove(&self, id: &str) -> Result<()> {
        let path = self.path(id)?;
        let removed = std::fs::remove_file(path.join(FILE)).and_then(|()| std::fs::remove_dir_all(&path));
        match removed {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => match std::fs::remove_dir_all(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::from(e).context(path.display()));
                }
                _ => {}
            },
            other => other.context(|| path.display())?,
        }
        fs::fsync(open_directory(&self.directory)?).map_err(io)
    }
}

/// Data first, then the name: whoever sees the name sees all of the data.
fn write_and_rename(directory: &OwnedFd, bytes: &[u8], sync: Sync) -> Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file =
        std::fs::File::from(fs::openat(directory, TEMPORARY, flags, Mode::from_raw_mode(0o600)).map_err(io)?);
    file.write_all(bytes)?;
    if sync == Sync::Now {
        file.sync_data()?;
    }
    fs::renameat(directory, TEMPORARY, directory, FILE).map_err(io)
}

fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_RECORD + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_RECORD {
        return Err(std::io::Error::other(format!("longer than {MAX_RECORD} bytes")));
    }
    Ok(bytes)
}

fn open_directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    fs::open(path, flags, Mode::empty()).map_err(io).context(|| path.display())
}

fn io(e: Errno) -> Error {
    Error::from(std::io::Error::from(e))
}

fn check_id(id: &str) -> Result<()> {
    if id.is_empty() || id.len() > MAX_ID || id.starts_with('.') || id.contains(['/', '\0']) {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("id {id:?} is no plain file name of at most {MAX_ID} bytes"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Pod {
        name: String,
        #[serde(default)]
        note: String,
    }

    fn pod(name: &str) -> Pod {
        Pod { name: name.into(), note: String::new() }
    }

    fn records(dir: &Path, version: u32) -> Records<Pod> {
        Records::open(dir.join("pods"), "Pod", version).unwrap()
    }

    #[test]
    fn what_was_written_is_read_back_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let pods = records(dir.path(), 1);
        pods.write("b", &pod("one")).unwrap();
        pods.write("a", &pod("two")).unwrap();
        pods.write("b", &pod("three")).unwrap();
        std::fs::write(pods.path("b").unwrap().join("extra"), "x").unwrap();
        let loaded = records(dir.path(), 1).load().unwrap();
        assert_eq!(loaded.records, [("a".to_owned(), pod("two")), ("b".to_owned(), pod("three"))]);
        assert!(loaded.unreadable.is_empty());
        pods.remove("b").unwrap();
        pods.remove("b").unwrap();
        assert!(!pods.path("b").unwrap().exists());
        assert_eq!(pods.read("b").unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn one_bad_record_is_reported_and_stops_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let pods = records(dir.path(), 3);
        pods.write("good", &pod("one")).unwrap();
        let text = std::fs::read_to_string(pods.path("good").unwrap().join(FILE)).unwrap();
        let plant = |id: &str, text: String| {
            std::fs::create_dir(pods.directory.join(id)).unwrap();
            std::fs::write(pods.directory.join(id).join(FILE), text).unwrap();
        };
        let renamed = |id: &str| text.replace("\"good\"", &format!("\"{id}\""));
        plant("torn", renamed("torn")[..text.len() / 2].to_owned());
        plant("empty", String::new());
        plant("stolen", text.clone());
        let newer = "\"version\":5,\"readable_by\":4";
        plant("newer", renamed("newer").replace("\"version\":3,\"readable_by\":2", newer));
        let next = "\"version\":4,\"readable_by\":3";
        plant("next", renamed("next").replace("\"version\":3,\"readable_by\":2", next));
        // As builds wrote it before they said who reads it.
        plant("silent", renamed("silent").replace("\"version\":3,\"readable_by\":2", "\"version\":4"));
        plant("ancient", renamed("ancient").replace("\"version\":3", "\"version\":1"));
        plant("former", renamed("former").replace("\"version\":3", "\"version\":2"));
        plant("other", renamed("other").replace("\"Pod\"", "\"Image\""));
        plant("huge", " ".repeat(MAX_RECORD as usize + 1));
        std::fs::create_dir(pods.directory.join("bare")).unwrap();
        let loaded = pods.load().unwrap();
        let good: Vec<&str> = loaded.records.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(good, ["former", "good", "next"]);
        let bad: Vec<&str> = loaded.unreadable.iter().map(|u| u.id.as_str()).collect();
        assert_eq!(bad, ["ancient", "empty", "huge", "newer", "other", "silent", "stolen", "torn"]);
        assert!(loaded.unreadable[3].problem.contains("version 5"), "{:?}", loaded.unreadable[3]);
        assert!(!pods.directory.join("bare").exists(), "a directory without a record is no object");
    }

    #[test]
    fn ids_cannot_leave_the_directory_and_records_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let pods = records(dir.path(), 1);
        for id in ["", ".", "..", "a/b", "/a", ".hidden", "a\0", &"x".repeat(256)] {
            assert_eq!(pods.write(id, &pod("x")).unwrap_err().kind(), ErrorKind::InvalidArgument, "{id:?}");
            assert!(pods.remove(id).is_err(), "{id:?}");
        }
        let big = Pod { name: "x".into(), note: "n".repeat(MAX_RECORD as usize) };
        assert_eq!(pods.write("big", &big).unwrap_err().kind(), ErrorKind::InvalidArgument);
        assert!(!pods.path("big").unwrap().exists());
    }

    #[test]
    fn a_link_in_place_of_a_record_directory_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let pods = records(dir.path(), 1);
        let elsewhere = dir.path().join("elsewhere");
        std::fs::create_dir(&elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, pods.directory.join("link")).unwrap();
        assert!(pods.write("link", &pod("x")).is_err());
        assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0);
    }
}
