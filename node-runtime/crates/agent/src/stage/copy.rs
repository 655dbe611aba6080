//! Copying, so that a crash, a full disk or a damaged image leaves either the whole version or nothing under its name.
use super::Problem;
use super::manifest::{Manifest, NAME, sum_of};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Copies what the list names into a new directory, synced, each compared with its sum while it is read.
pub(super) fn programs(from: &Path, new: &Path, manifest: &Manifest) -> Result<(), Problem> {
    fs::DirBuilder::new().mode(0o755).create(new).map_err(|e| Problem::of(new, &e))?;
    for name in manifest.names() {
        let (source, target) = (from.join(name), new.join(name));
        let file = File::open(&source).map_err(|e| Problem::of(&source, &e))?;
        let sum = write(&target, 0o755, |out| sum_of(file, |bytes| out.write_all(bytes)))
            .map_err(|e| Problem::of(&target, &e))?;
        if Some(sum.as_str()) != manifest.sum(name) {
            let text = format!("{}: its SHA-256 is {sum}, not what {NAME} says; nothing was staged", source.display());
            return Err(Problem::Refused(text));
        }
    }
    let list = new.join(NAME);
    write(&list, 0o644, |out| out.write_all(manifest.text().as_bytes())).map_err(|e| Problem::of(&list, &e))?;
    sync(new)
}

fn write<T>(path: &Path, mode: u32, body: impl FnOnce(&mut File) -> io::Result<T>) -> io::Result<T> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    let done = body(&mut file)?;
    file.sync_all()?;
    Ok(done)
}

/// Has the new directory take its place; what was there under the name, and is not in use, goes.
pub(super) fn put(new: &Path, to: &Path, prefix: &Path) -> Result<(), Problem> {
    let moved = match renameat_with(CWD, new, CWD, to, RenameFlags::NOREPLACE) {
        Err(rustix::io::Errno::EXIST) => renameat_with(CWD, new, CWD, to, RenameFlags::EXCHANGE),
        other => other,
    };
    moved.map_err(|e| Problem::of(to, &e.into()))?;
    sync(prefix)?;
    remove(new)
}

/// Removes a directory, if it is there.
pub(super) fn remove(path: &Path) -> Result<(), Problem> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Problem::of(path, &e)),
        _ => Ok(()),
    }
}

fn sync(dir: &Path) -> Result<(), Problem> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|e| Problem::of(dir, &e))
}
