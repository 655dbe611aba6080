//! The one configuration that the daemon writes itself, from a document, into the directory of configurations.
//!
//! It is the daemon's by a mark in it and by a record of where it was written; a file of that name without the mark is somebody
//! else's and is left alone. It appears whole, and goes when the document says nothing any more, from a former directory too.
//! Format of the record: docs/formats/cni-attachment.md. Where another runtime has the node, the directory is another one (`beside`).
//! Must not: choose what is written (`template`), read other files of the directory.
use super::beside::DIRECTORY as BESIDE;
use super::config::MAX_CONFIG;
use super::template::{FIELD, MARK};
use berth_model::{Error, ErrorKind, Result, ResultExt};
use serde_json::Value;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Name of the file: early in name order, as those of network add-ons are.
pub const FILE: &str = "10-berth.conflist";
/// Longest record.
const MAX_RECORD: u64 = 8192;

/// Makes the directory hold this configuration and no other of the daemon's; `None` is none. `record` says where one was written.
/// Idempotent. Errors: `FailedPrecondition` where the file is somebody else's, or one of the disk.
pub(super) fn keep(record: &Path, directory: &Path, text: Option<&str>) -> Result<()> {
    let file = directory.join(FILE);
    let former = recorded(record);
    if let Some(former) = former.as_deref().filter(|former| text.is_none() || *former != file) {
        if content(former)?.is_some_and(|old| is_ours(&old)) {
            fs::remove_file(former).context(|| former.display())?;
            tracing::info!(file = %former.display(), "the CNI configuration that a document asked for is removed");
        }
        forget(record)?;
    }
    let Some(text) = text else { return Ok(()) };
    if content(&file)?.is_some_and(|old| old == text.as_bytes()) {
        return Ok(());
    }
    check_free(directory)?;
    if former.as_deref() != Some(&file) {
        // Before the file, and on the disk before it: what was begun is found again, also after a power cut.
        let path = file.display().to_string();
        replace(&draft(record), record, &Value::String(path).to_string()).context(|| record.display())?;
    }
    // That one is made, and taken away, by whoever takes the node over.
    if directory != record.with_file_name(BESIDE) {
        fs::create_dir_all(directory).context(|| directory.display())?;
    }
    replace(&draft(&file), &file, text).context(|| file.display())?;
    tracing::info!(file = %file.display(), "the CNI configuration of a document is written");
    Ok(())
}

/// Errors: `FailedPrecondition` where a file of the daemon's name in the directory is somebody else's.
pub(super) fn check_free(directory: &Path) -> Result<()> {
    let file = directory.join(FILE);
    match content(&file)? {
        Some(text) if !is_ours(&text) => {
            let problem = format!("{FIELD}: {} is somebody else's; remove it, or unset the field", file.display());
            Err(Error::new(ErrorKind::FailedPrecondition, problem))
        }
        _ => Ok(()),
    }
}

/// Removes the file that was written, for good; the record stays. One that is somebody else's by now is left: which.
pub(super) fn take_away(record: &Path) -> Result<Option<PathBuf>> {
    let Some(file) = recorded(record) else { return Ok(None) };
    match content(&file)? {
        None => return Ok(None),
        Some(text) if !is_ours(&text) => return Ok(Some(file)),
        Some(_) => {}
    }
    match fs::remove_file(&file) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e).context(|| file.display()),
        _ => {}
    }
    sync_directory(&file)?;
    Ok(None)
}

/// The file that was written, if it is there and is the daemon's.
pub(super) fn standing(record: &Path) -> Option<PathBuf> {
    recorded(record).filter(|file| content(file).is_ok_and(|text| text.is_some_and(|text| is_ours(&text))))
}

/// The name of a file while it is written. A hidden one is no configuration.
fn draft(file: &Path) -> PathBuf {
    file.with_file_name(format!(".{}.new", file.file_name().unwrap_or_default().to_string_lossy()))
}

/// Writes a file whole, and its name to the disk: whoever looks sees the former one or this one.
fn replace(new: &Path, file: &Path, text: &str) -> Result<()> {
    match fs::remove_file(new) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
        _ => {}
    }
    // Configurations may hold credentials of add-ons.
    let mut options = File::options();
    let mut out = options.write(true).create_new(true).mode(0o600).open(new)?;
    let written = out.write_all(text.as_bytes()).and_then(|()| out.sync_all()).and_then(|()| fs::rename(new, file));
    if written.is_err() {
        let _ = fs::remove_file(new);
    }
    written?;
    sync_directory(file)
}

/// The name of a file, or that it is gone, survives a power cut after this.
fn sync_directory(file: &Path) -> Result<()> {
    let directory = file.parent().unwrap_or(Path::new("/"));
    File::open(directory).and_then(|dir| dir.sync_all()).context(|| directory.display())
}

/// Where one was written. A record that is damaged is none.
pub(super) fn recorded(record: &Path) -> Option<PathBuf> {
    let bytes = fs::read(record).ok()?;
    serde_json::from_slice::<String>(&bytes[..bytes.len().min(usize::try_from(MAX_RECORD).ok()?)])
        .ok()
        .map(PathBuf::from)
}

/// Removes the record, and what a daemon that died in the middle of it has left.
pub(super) fn forget(record: &Path) -> Result<()> {
    let _ = fs::remove_file(draft(record));
    match fs::remove_file(record) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).context(|| record.display()),
        _ => Ok(()),
    }
}

/// What a file holds, up to one byte more than a configuration may; `None` without one. A directory in its place holds nothing, and is
/// somebody else's.
fn content(file: &Path) -> Result<Option<Vec<u8>>> {
    let opened = match File::options().read(true).custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits()).open(file) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.context(|| file.display())?,
    };
    if opened.metadata().context(|| file.display())?.is_dir() {
        return Ok(Some(Vec::new()));
    }
    let mut bytes = Vec::new();
    opened.take(MAX_CONFIG as u64 + 1).read_to_end(&mut bytes).context(|| file.display())?;
    Ok(Some(bytes))
}

fn is_ours(bytes: &[u8]) -> bool {
    serde_json::from_slice::<Value>(bytes).is_ok_and(|value| value.get(MARK).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without its record nobody takes the file away any more.
    #[test]
    fn a_record_that_cannot_be_written_leaves_the_former_one_and_makes_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let (record, one, two) = (dir.path().join("record"), dir.path().join("a"), dir.path().join("b"));
        let text = format!("{{\"{MARK}\": 1}}");
        keep(&record, &one, Some(&text)).unwrap();
        let names = || fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
        assert!(!names().iter().any(|name| name.to_string_lossy().starts_with('.')), "{:?}", names());
        assert_eq!(recorded(&record), Some(one.join(FILE)));
        // Somebody's directory stands where it is drafted: as a full disk, that keeps it from being written.
        fs::remove_file(&record).unwrap();
        fs::create_dir(dir.path().join(".record.new")).unwrap();
        assert!(keep(&record, &two, Some(&text)).is_err());
        assert!(!record.exists() && !two.join(FILE).exists());
        fs::write(&record, format!("\"{}\"", one.join(FILE).display())).unwrap();
        assert!(keep(&record, &one, Some(&format!("{{\"{MARK}\": 2}}"))).is_ok(), "where it is recorded already");
    }

    #[test]
    fn the_file_comes_whole_moves_and_goes_and_nobody_elses_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let (record, one, two) = (dir.path().join("record"), dir.path().join("a/net.d"), dir.path().join("b"));
        let text = format!("{{\"{MARK}\": 1}}");
        keep(&record, &one, None).unwrap();
        assert!(!one.exists() && !record.exists());
        keep(&record, &one, Some(&text)).unwrap();
        assert_eq!(fs::read_to_string(one.join(FILE)).unwrap(), text);
        assert_eq!(fs::read_dir(&one).unwrap().count(), 1, "nothing half-made is left");
        // A document that names another directory, also while the daemon was away.
        keep(&record, &two, Some(&text)).unwrap();
        assert!(!one.join(FILE).exists() && two.join(FILE).exists());
        // Somebody changes it: it is mended. Somebody puts a file of their own there: it stays.
        fs::write(two.join(FILE), format!("{{\"{MARK}\": 2}}")).unwrap();
        keep(&record, &two, Some(&text)).unwrap();
        assert_eq!(fs::read_to_string(two.join(FILE)).unwrap(), text);
        fs::write(two.join(FILE), "{}").unwrap();
        let refused = keep(&record, &two, Some(&text)).unwrap_err();
        assert!(refused.message().contains("somebody else's; remove it, or unset"), "{refused}");
        keep(&record, &two, None).unwrap();
        assert_eq!(fs::read_to_string(two.join(FILE)).unwrap(), "{}");
        assert!(!record.exists());
        keep(&record, &two, None).unwrap();
    }
}
