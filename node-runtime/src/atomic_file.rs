//! Files written whole or not at all: whoever reads them, also after a power cut, finds the old text or the new one.
//!
//! Owns: that. Must not: choose paths or texts.
use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Name under which a file is written before it takes its place: hidden, beside it.
pub fn draft(path: &Path) -> PathBuf {
    path.with_file_name(format!(".{}.berth-new", path.file_name().unwrap_or_default().to_string_lossy()))
}

/// Puts a file of these permissions into its place, synced with its directory. Errors: those of the system; the file is as it was then, and
/// no draft stays.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    replace_with(path, bytes, |file| file.set_permissions(Permissions::from_mode(mode))).map(drop)
}

/// As [`replace`], and gives the file, open for writing on; `finish` may set what goes with it before it takes its place.
pub fn replace_with(path: &Path, bytes: &[u8], finish: impl FnOnce(&File) -> io::Result<()>) -> io::Result<File> {
    let new = draft(path);
    let written = write(&new, bytes, finish).and_then(|file| std::fs::rename(&new, path).map(|()| file));
    let file = written.inspect_err(|_| drop(std::fs::remove_file(&new)))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()?;
    Ok(file)
}

fn write(new: &Path, bytes: &[u8], finish: impl FnOnce(&File) -> io::Result<()>) -> io::Result<File> {
    // One that a write which was cut short has left may be a link to anything.
    let _ = std::fs::remove_file(new);
    let mut file = File::options().read(true).write(true).create_new(true).open(new)?;
    finish(&file)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_no_draft_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(draft(&path), "cut sho").unwrap();
        replace(&path, b"one", 0o640).unwrap();
        replace(&path, b"two", 0o600).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let refused = replace_with(&path, b"three", |_| Err(io::Error::other("no")));
        assert!(refused.is_err() && std::fs::read(&path).unwrap() == b"two");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
