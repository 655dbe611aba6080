//! Directories of every control group hierarchy that is mounted here: each v1 controller, and v2.
use crate::mounts::Namespaces;
use crate::unless_gone;
use std::collections::BTreeSet;
use std::path::Path;
use std::{fs, io};

/// One control group of one hierarchy.
#[derive(Debug, Clone)]
pub struct Cgroup {
    /// Its path within the hierarchy, as /proc/PID/cgroup names it.
    pub path: String,
    /// Its directory.
    pub directory: String,
}

/// All of them. The same path in two hierarchies is two.
pub fn list(namespaces: &Namespaces) -> io::Result<Vec<Cgroup>> {
    let own = namespaces.get("").map(Vec::as_slice).unwrap_or_default();
    let mut devices = BTreeSet::new();
    let mut found = Vec::new();
    for mount in own.iter().filter(|m| m.kind == "cgroup" || m.kind == "cgroup2") {
        // A hierarchy that is mounted twice is still one.
        if devices.insert(&mount.device) {
            walk(Path::new(&mount.point), Path::new(&mount.point), &mut found)?;
        }
    }
    Ok(found)
}

fn walk(dir: &Path, top: &Path, found: &mut Vec<Cgroup>) -> io::Result<()> {
    let Some(entries) = unless_gone(fs::read_dir(dir))? else { return Ok(()) };
    let path = dir.strip_prefix(top).unwrap_or(dir);
    found.push(Cgroup { path: format!("/{}", path.display()), directory: dir.display().to_string() });
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            walk(&entry.path(), top, found)?;
        }
    }
    Ok(())
}
