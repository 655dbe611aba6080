//! The programs: `PREFIX/<version>`, and `PREFIX/current`, which names one of them.
use crate::adopt::record::sync_directory;
use anyhow::{Context, Result, bail};
use berth_adopt::plan::Install;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::symlink;
use std::path::Path;

/// What the daemon needs beside itself.
pub(in crate::adopt) const PROGRAMS: [&str; 3] = ["berth", "berth-monitor", "berth-init"];
/// How much of two programs is compared at once, in bytes.
const PIECE: usize = 256 << 10;

/// Whether two directories have the same programs, byte for byte.
pub(in crate::adopt) fn same(one: &Path, other: &Path) -> bool {
    if one.canonicalize().ok().is_some_and(|path| other.canonicalize().is_ok_and(|other| path == other)) {
        return true;
    }
    PROGRAMS.iter().all(|name| equal(&one.join(name), &other.join(name)).unwrap_or(false))
}

fn equal(one: &Path, other: &Path) -> io::Result<bool> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    let (meta, other_meta) = (one.metadata()?, other.metadata()?);
    if !meta.is_file() || !other_meta.is_file() || meta.len() != other_meta.len() {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; PIECE], vec![0; PIECE]);
    loop {
        let length = one.read(&mut left)?;
        if length == 0 {
            return Ok(true);
        }
        other.read_exact(&mut right[..length])?;
        if left[..length] != right[..length] {
            return Ok(false);
        }
    }
}

/// Copies them and has `current` name them.
pub(super) fn stage(install: &Install) -> Result<()> {
    let place = install.prefix.join(&install.version);
    if !same(&install.from, &place) {
        if place.exists() {
            bail!("{} has other programs than {}", place.display(), install.from.display());
        }
        let new = install.prefix.join(format!(".{}.new", install.version));
        remove_tree(&new)?;
        std::fs::create_dir_all(&new).with_context(|| new.display().to_string())?;
        for name in PROGRAMS {
            let (from, to) = (install.from.join(name), new.join(name));
            std::fs::copy(&from, &to).with_context(|| format!("{} to {}", from.display(), to.display()))?;
            File::open(&to)?.sync_all()?;
        }
        std::fs::rename(&new, &place).with_context(|| place.display().to_string())?;
    }
    point(install, &install.version)
}

/// Puts `current` back, and removes what was staged, if it was not there before.
pub(super) fn unstage(install: &Install) -> Result<()> {
    match &install.current_before {
        Some(before) => point(install, before)?,
        None => remove_link(&install.prefix.join("current"))?,
    }
    remove_tree(&install.prefix.join(format!(".{}.new", install.version)))?;
    if !install.staged_before {
        remove_tree(&install.prefix.join(&install.version))?;
    }
    if !install.prefix_before {
        // The agent's, which points `current` too.
        remove_link(&install.prefix.join("previous"))?;
        // Versions that came by updates; a prefix that was there before belongs to whoever made it.
        for place in std::fs::read_dir(&install.prefix).into_iter().flatten().flatten().map(|entry| entry.path()) {
            if PROGRAMS.iter().all(|name| place.join(name).is_file()) {
                remove_tree(&place)?;
            }
        }
        // Somebody else's files keep it.
        let _ = std::fs::remove_dir(&install.prefix);
    }
    Ok(())
}

fn point(install: &Install, version: &str) -> Result<()> {
    let (link, new) = (install.prefix.join("current"), install.prefix.join(".current.new"));
    remove_link(&new)?;
    symlink(version, &new).with_context(|| new.display().to_string())?;
    std::fs::rename(&new, &link).with_context(|| link.display().to_string())?;
    sync_directory(&install.prefix)
}

fn remove_link(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e).with_context(|| path.display().to_string()),
        _ => Ok(()),
    }
}

fn remove_tree(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e).with_context(|| path.display().to_string()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn install(dir: &Path, version: &str) -> Install {
        Install {
            prefix: dir.join("opt/berth"),
            from: dir.join("from"),
            version: version.into(),
            current_before: None,
            staged_before: false,
            prefix_before: false,
            daemon_before: false,
            systemd: false,
            unit_before: false,
            unit_enabled_before: false,
            network_before: false,
        }
    }

    #[test]
    fn versions_are_staged_and_leave_nothing() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("from")).unwrap();
        PROGRAMS.iter().for_each(|name| std::fs::write(dir.path().join("from").join(name), name).unwrap());
        std::fs::create_dir(dir.path().join("opt")).unwrap();
        let first = install(dir.path(), "1");
        let current = || std::fs::read_link(first.prefix.join("current")).ok();
        stage(&first).unwrap();
        stage(&first).unwrap();
        assert_eq!(current().as_deref(), Some(Path::new("1")));
        let second =
            Install { version: "2".into(), current_before: Some("1".into()), prefix_before: true, ..first.clone() };
        stage(&second).unwrap();
        assert_eq!(std::fs::read(first.prefix.join("current/berth")).unwrap(), b"berth");
        assert_eq!(current().as_deref(), Some(Path::new("2")));
        unstage(&second).unwrap();
        assert_eq!(current().as_deref(), Some(Path::new("1")));
        std::fs::write(dir.path().join("from/berth"), "another").unwrap();
        assert!(stage(&first).unwrap_err().to_string().contains("other programs"));
        // An update has brought another version.
        std::fs::create_dir(first.prefix.join("3")).unwrap();
        PROGRAMS.iter().for_each(|name| std::fs::write(first.prefix.join("3").join(name), name).unwrap());
        assert!(same(&first.prefix.join("1"), &first.prefix.join("3")));
        unstage(&first).unwrap();
        unstage(&first).unwrap();
        assert_eq!(std::fs::read_dir(dir.path().join("opt")).unwrap().count(), 0);
    }
}
