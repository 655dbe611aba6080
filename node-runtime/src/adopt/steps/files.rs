//! Files of others: written whole or not at all, with permissions and owner as before, and put back byte for byte.
//!
//! Owns: that. Must not: choose files or texts; those are the plan's.
use super::Node;
use super::command::systemctl;
use crate::adopt::record::{directory, sync_directory};
use crate::atomic_file;
use crate::node_files::{self, MAX_FILE};
use anyhow::{Context, Result, bail};
use aws_lc_rs::digest;
use berth_adopt::plan::{FileChange, FileState, Profile};
use std::fs::Permissions;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

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
        link_before(change);
        put(change, change.after.as_ref())?;
    }
    reload(node).await
}

/// What of a change is beside the file until the operation cannot go back any more: the file itself as it was, so that a full disk does not
/// keep it from coming back.
fn kept(path: &Path) -> PathBuf {
    path.with_file_name(format!(".{}.berth-before", path.file_name().unwrap_or_default().to_string_lossy()))
}

/// A second name of the file as it is. Where there are no such names (a file system without hard links), it comes back by being written.
fn link_before(change: &FileChange) {
    if change.before.is_some() {
        let kept = kept(&change.path);
        let _ = std::fs::remove_file(&kept);
        let _ = std::fs::hard_link(&change.path, kept);
    }
}

/// Takes away what stood beside the files in case they had to come back, and the directories that were made for files that are gone.
pub(super) fn commit(changes: &[FileChange]) {
    forget(changes);
    for change in changes {
        leave_directory(change, change.after.as_ref());
    }
}

fn forget(changes: &[FileChange]) {
    for change in changes {
        let _ = std::fs::remove_file(kept(&change.path));
        let _ = std::fs::remove_file(atomic_file::draft(&change.path));
    }
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
            let aside = put_aside(&dir, &node.plan.id, &change.path)?;
            node.talk.say(&format!(
                "{} was changed by somebody else; that is kept as {}",
                change.path.display(),
                aside.display()
            ));
        }
        come_back(change)?;
    }
    forget(&node.plan.files);
    for change in &node.plan.files {
        leave_directory(change, change.before.as_ref());
    }
    reload(node).await
}

/// As it was: written anew, or, where there is no room for that, the file itself that still has its second name.
fn come_back(change: &FileChange) -> Result<()> {
    let kept = kept(&change.path);
    match put(change, change.before.as_ref()) {
        Err(_) if change.before.is_some() && found(&kept).is_ok_and(|kept| kept == change.before) => {
            std::fs::rename(&kept, &change.path).with_context(|| change.path.display().to_string())?;
            sync_directory(change.path.parent().unwrap_or(Path::new("/")))
        }
        other => other,
    }
}

/// What somebody else has put where a file of the plan's is: a text is copied beside the journal, all else gets another name.
fn put_aside(dir: &Path, operation: &str, path: &Path) -> Result<PathBuf> {
    let regular = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file());
    if regular && let Ok(bytes) = node_files::bytes(path, MAX_FILE) {
        let aside = dir.join(format!("found-{operation}-{}", escaped(path)));
        if atomic_file::replace(&aside, &bytes, 0o600).is_ok() {
            return Ok(aside);
        }
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = path.with_file_name(format!("{name}.found-{operation}"));
    std::fs::rename(path, &aside).with_context(|| aside.display().to_string())?;
    sync_directory(path.parent().unwrap_or(Path::new("/")))?;
    Ok(aside)
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
    atomic_file::replace(&place, before.text.as_bytes(), 0o600).with_context(|| place.display().to_string())
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
        if parent.is_dir() {
            sync_directory(parent)?;
        }
        leave_directory(change, None);
        return Ok(());
    };
    std::fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
    write(path, state).with_context(|| path.display().to_string())
}

/// A directory that was made for a file that is not there any more. Somebody else's files keep it.
fn leave_directory(change: &FileChange, state: Option<&FileState>) {
    if state.is_none() && !change.directory_before {
        let _ = change.path.parent().map(std::fs::remove_dir);
    }
}

fn write(path: &Path, state: &FileState) -> std::io::Result<()> {
    let mut label = [0; 256];
    let label = rustix::fs::getxattr(path, LABEL, &mut label[..]).ok().and_then(|length| label.get(..length));
    let written = atomic_file::replace_with(path, state.text.as_bytes(), |file| {
        file.set_permissions(Permissions::from_mode(state.mode))?;
        fchown(file, Some(state.uid), Some(state.gid))?;
        if let Some(label) = label {
            rustix::fs::fsetxattr(file, LABEL, label, rustix::fs::XattrFlags::empty())?;
        }
        Ok(())
    });
    written.map(drop)
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
        // A drop-in of an adoption goes, and has a second name until the way back is over.
        let drop_in = change(&new, None, state("b: 1\n", 0o644), false);
        put(&drop_in, drop_in.after.as_ref()).unwrap();
        let gone = [drop_in.reversed()];
        link_before(&gone[0]);
        put(&gone[0], gone[0].after.as_ref()).unwrap();
        assert!(kept(&new).exists());
        commit(&gone);
        assert!(!new.parent().unwrap().exists(), "its directory goes with it");
        // Somebody else's link, which is no text to be copied.
        let (journal, link) = (dir.path().join("journal"), dir.path().join("link"));
        std::fs::create_dir(&journal).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
        let aside = put_aside(&journal, "op", &link).unwrap();
        assert!(!link.exists() && std::fs::read_link(&aside).unwrap() == Path::new("/dev/zero"));
        std::fs::remove_file(aside).unwrap();
        assert_eq!(std::fs::read(put_aside(&journal, "op", &old).unwrap()).unwrap(), b"a: 1\n");
        std::fs::remove_dir_all(journal).unwrap();
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["config.yaml"], "neither temporary files nor directories stay");
        assert_eq!(sha256(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
