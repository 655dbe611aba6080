//! Files and directories below given directories. Links are not followed, and mounts are not entered twice: they are walked
//! as the directories that they look like.
use crate::unless_gone;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// The path of everything there, the directories themselves included.
pub fn list(roots: &[PathBuf]) -> io::Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for root in roots {
        walk(root, &mut found)?;
    }
    Ok(found.into_iter().map(|path| (path.clone(), path)).collect())
}

fn walk(path: &Path, found: &mut Vec<String>) -> io::Result<()> {
    let Some(metadata) = unless_gone(fs::symlink_metadata(path))? else { return Ok(()) };
    found.push(path.display().to_string());
    if metadata.is_dir()
        && let Some(entries) = unless_gone(fs::read_dir(path))?
    {
        for entry in entries {
            walk(&entry?.path(), found)?;
        }
    }
    Ok(())
}
