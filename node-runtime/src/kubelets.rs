//! Running kubelets of this node, and what they were told.
//!
//! Owns: finding their processes and reading the files that they name, with the kubelet's own view of paths. Must not: judge.
use crate::node_files::{self, MAX_FILE, processes, text};
use berth_adopt::kubelet::{Configuration, Files};
use std::io;
use std::path::{Path, PathBuf};

/// Most files that are listed of a drop-in directory.
const MAX_LISTED: usize = 4096;
/// Deepest directory that is looked into below it.
const MAX_DEPTH: usize = 8;

/// Processes of kubelets.
pub fn all() -> Vec<u32> {
    processes().into_iter().filter(|pid| is_kubelet(*pid)).collect()
}

/// Those of them that live in this process's mount namespace: the node's own, where several nodes are namespaces of one machine.
pub fn of_this_node() -> Vec<u32> {
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    let own = namespace("self");
    all().into_iter().filter(|pid| own.is_some() && namespace(&pid.to_string()) == own).collect()
}

fn is_kubelet(pid: u32) -> bool {
    text(format!("/proc/{pid}/comm")).is_some_and(|name| name.trim() == "kubelet")
}

/// What the process was told. What cannot be read is among its problems.
pub fn configuration(pid: u32) -> Configuration {
    let line = text(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let arguments = line.trim_end_matches('\0').split('\0').map(str::to_owned).collect();
    Configuration::read(arguments, &View(pid))
}

/// The files of a process: its root, and its working directory for relative paths.
pub struct View(pub u32);

impl View {
    /// Where a path of the process is for this one.
    pub fn place(&self, path: &Path) -> PathBuf {
        match path.strip_prefix("/") {
            Ok(inside) => Path::new(&format!("/proc/{}/root", self.0)).join(inside),
            Err(_) => Path::new(&format!("/proc/{}/cwd", self.0)).join(path),
        }
    }
}

impl Files for View {
    fn text(&self, path: &Path) -> io::Result<String> {
        node_files::exact(self.place(path), MAX_FILE)
    }

    fn below(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        walk(&self.place(dir), dir, 0, &mut found)?;
        Ok(found)
    }
}

/// By name in each directory, a directory's files where its name stands.
fn walk(place: &Path, shown: &Path, depth: usize, found: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut entries = std::fs::read_dir(place)?.take(MAX_LISTED).collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let shown = shown.join(entry.file_name());
        if found.len() >= MAX_LISTED || depth >= MAX_DEPTH {
            return Err(io::Error::other("has too many files below it"));
        }
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), &shown, depth + 1, found)?;
        } else {
            found.push(shown);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_met_by_name_and_devices_are_not_read() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["b/2.conf", "a.conf", "c.conf", "b/1.conf"] {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "maxPods: 1\n").unwrap();
        }
        let view = View(std::process::id());
        let names: Vec<_> = view.below(dir.path()).unwrap();
        let names: Vec<_> = names.iter().map(|p| p.strip_prefix(dir.path()).unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["a.conf", "b/1.conf", "b/2.conf", "c.conf"]);
        assert_eq!(view.text(&dir.path().join("a.conf")).unwrap(), "maxPods: 1\n");
        assert!(view.text(Path::new("/dev/zero")).unwrap_err().to_string().contains("no regular file"));
        assert!(view.below(&dir.path().join("gone")).is_err());
    }
}
