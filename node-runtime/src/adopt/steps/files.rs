//! Files of others: written whole or not at all, with permissions and owner as before, and put back byte for byte.
//!
//! Owns: that. Must not: choose files or texts; those are the plan's.
use super::Node;
use super::command::systemctl;
use crate::adopt::record::{directory, sync_directory};
use crate::node_files::{self, MAX_FILE};
use anyhow::{Context, Result, bail};
use aws_lc_rs::digest;
use berth_adopt::plan::{FileChange, FileState, Profile};
use std::fs::{File, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::Path;

/// The SELinux label of a file, where there is one.
const LABEL: &str = "security.selinux";

/// SHA-256 in hexadecimal.
pub(in crate::adopt) fn sha256(bytes: &[u8]) -> String {
    digest::digest(&digest::SHA256, bytes).as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

/// The state with its sum.
pub(in crate::adopt) fn hashed(state: FileState) -> FileState {
    FileState { sha256: sha256(state.text.as_bytes()), ..state }
}

/// A file as it is; `None` if there is none. Errors: it is no regular file, too large, or no text.
pub(in crate::adopt) fn found(path: &Path) -> Result<Option<FileState>> {
    let meta = match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.with_context(|| path.display().to_string())?,
    };
    if meta.file_type().is_symlink() {
        bail!("{} is a symbolic link; name the file itself on the kubelet's command line", path.display());
    }
    let text = node_files::exact(path, MAX_FILE).with_context(|| path.display().to_string())?;
    let state = FileState { text, sha256: String::new(), mode: meta.mode() & 0o7777, uid: meta.uid(), gid: meta.gid() };
    Ok(Some(hashed(state)))
}

/// Writes what the plan says. Errors: a file is neither as it was found nor as it will be.
pub(super) async fn switch(node: &Node<'_>) -> Result<()> {
    let dir = directory(node.layout);
    for change in &node.plan.files {
        let now = found(&change.path)?;
        if now == change.after {
            continue;
        }
        if now != change.before {
            bail!("{} was changed after the plan was made; start again", change.path.display());
        }
        keep_original(&dir, change)?;
        put(change, change.after.as_ref())?;
    }
    reload(node).await
}

/// Puts everything back. What somebody else has written in between is kept aside.
pub(super) async fn restore(node: &Node<'_>) -> Result<()> {
    let dir = directory(node.layout);
    for change in node.plan.files.iter().rev() {
        let now = found(&change.path);
        if now.as_ref().is_ok_and(|now| *now == change.before) {
            continue;
        }
        if !now.as_ref().is_ok_and(|now| *now == change.after) && std::fs::symlink_metadata(&change.path).is_ok() {
            let aside = dir.join(format!("found-{}-{}", node.plan.id, escaped(&change.path)));
            std::fs::copy(&change.path, &aside).with_context(|| aside.display().to_string())?;
            node.talk.say(&format!(
                "{} was changed by somebody else; that is kept as {}",
                change.path.display(),
                aside.display()
            ));
        }
        put(change, change.before.as_ref())?;
    }
    reload(node).await
}

async fn reload(node: &Node<'_>) -> Result<()> {
    if node.plan.profile == Profile::Command {
        return Ok(());
    }
    systemctl(node.layout, &["daemon-reload"]).await
}

/// For people: the file as it was before Berth ever touched it. Written once.
fn keep_original(dir: &Path, change: &FileChange) -> Result<()> {
    let Some(before) = &change.before else { return Ok(()) };
    let originals = dir.join("original");
    std::fs::create_dir_all(&originals)?;
    let place = originals.join(escaped(&change.path));
    if place.exists() {
        return Ok(());
    }
    let mut file = File::create(&place).with_context(|| place.display().to_string())?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(before.text.as_bytes())?;
    file.sync_all()?;
    sync_directory(&originals)
}

fn escaped(path: &Path) -> String {
    path.display().to_string().trim_start_matches('/').replace('/', "__")
}

/// Makes the file be in this state.
fn put(change: &FileChange, state: Option<&FileState>) -> Result<()> {
    let path = &change.path;
    let parent = path.parent().unwrap_or(Path::new("/"));
    let Some(state) = state else {
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e).with_context(|| path.display().to_string()),
            _ => {}
        }
        if change.directory_before {
            return sync_directory(parent);
        }
        // Ours, unless somebody has put something into it.
        let _ = std::fs::remove_dir(parent);
        return Ok(());
    };
    std::fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
    let new = path.with_file_name(format!(".{}.berth-new", path.file_name().unwrap_or_default().to_string_lossy()));
    let written = write_new(path, &new, state);
    if written.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    written.with_context(|| path.display().to_string())?;
    sync_directory(parent)
}

fn write_new(path: &Path, new: &Path, state: &FileState) -> Result<()> {
    let mut file = File::create(new)?;
    file.set_permissions(Permissions::from_mode(state.mode))?;
    fchown(&file, Some(state.uid), Some(state.gid))?;
    file.write_all(state.text.as_bytes())?;
    let mut label = [0; 256];
    if let Ok(length) = rustix::fs::getxattr(path, LABEL, &mut label[..]) {
        rustix::fs::fsetxattr(&file, LABEL, &label[..length], rustix::fs::XattrFlags::empty())?;
    }
    file.sync_all()?;
    std::fs::rename(new, path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(text: &str, mode: u32) -> FileState {
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        hashed(FileState { text: text.into(), sha256: String::new(), mode, uid, gid })
    }

    #[test]
    fn files_come_and_go_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("config.yaml"), dir.path().join("made/99.conf"));
        std::fs::write(&old, "a: 1\n").unwrap();
        std::fs::set_permissions(&old, Permissions::from_mode(0o640)).unwrap();
        assert_eq!(found(&old).unwrap(), Some(state("a: 1\n", 0o640)));
        let change = |path: &Path, before: Option<FileState>, after: FileState, directory_before| FileChange {
            path: path.to_owned(),
            before,
            after: Some(after),
            directory_before,
        };
        let changes = [
            change(&old, found(&old).unwrap(), state("a: 2\n", 0o640), true),
            change(&new, None, state("b: 1\n", 0o644), false),
        ];
        for change in &changes {
            put(change, change.after.as_ref()).unwrap();
            assert_eq!(found(&change.path).unwrap(), change.after);
            put(change, change.before.as_ref()).unwrap();
            assert_eq!(found(&change.path).unwrap(), change.before);
        }
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["config.yaml"], "neither temporary files nor directories stay");
        assert_eq!(sha256(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
