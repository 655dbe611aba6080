//! Versions that are on the node and that nothing runs and nobody goes back to: they go.
//!
//! What stays: those of the agent's image, the one that `current` names and the one before it, the newest one, and every one of which a process
//! runs a program: monitors and streaming outlive the daemon that started them. Must not: remove what no agent has staged.
use super::manifest::Manifest;
use super::{Problem, Staging, copy, is_version};
use berth_crds::compare_versions as compare;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Ends the name of what is being removed.
const GOING: &str = ".removing";

impl Staging {
    /// Removes them, and gives their names. `proc` is where all processes of the host can be seen: where none runs a program from here, they
    /// cannot, and nothing is removed. Errors: what was begun is finished the next time.
    pub fn remove_old(&self, proc: &Path) -> Result<Vec<String>, Problem> {
        let running = running(proc);
        let staged = self.staged()?;
        let is_run = |version: &String| programs(&self.prefix.join(version)).any(|file| running.contains(&file));
        let in_use: BTreeSet<String> = staged.iter().filter(|version| is_run(version)).cloned().collect();
        let Some(current) = self.named("current").filter(|_| !in_use.is_empty()) else { return Ok(Vec::new()) };
        let older = || staged.iter().filter(|version| compare(version, &current).is_lt());
        let before = self.named("previous").or_else(|| older().max_by(|a, b| compare(a, b)).cloned());
        let newest = staged.iter().max_by(|a, b| compare(a, b)).cloned();
        let mut keep = in_use;
        keep.extend(self.versions()?);
        keep.extend([Some(current), before, newest].into_iter().flatten());
        let old: Vec<String> = staged.into_iter().filter(|version| !keep.contains(version)).collect();
        for version in &old {
            let going = self.prefix.join(format!(".{version}{GOING}"));
            // At once: half a version has no name.
            copy::remove(&going)?;
            fs::rename(self.prefix.join(version), &going).map_err(|e| Problem::of(&going, &e))?;
            copy::remove(&going)?;
        }
        Ok(old)
    }

    /// Versions that an agent has staged. What a removal has left is removed on the way.
    fn staged(&self) -> Result<Vec<String>, Problem> {
        let entries = fs::read_dir(&self.prefix).map_err(|e| Problem::of(&self.prefix, &e))?;
        let names: Vec<String> = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        for left in names.iter().filter(|name| name.starts_with('.') && name.ends_with(GOING)) {
            copy::remove(&self.prefix.join(left))?;
        }
        Ok(names
            .into_iter()
            .filter(|name| is_version(name) && Manifest::read(&self.prefix.join(name)).is_ok())
            .collect())
    }

    fn named(&self, link: &str) -> Option<String> {
        fs::read_link(self.prefix.join(link)).ok()?.to_str().map(str::to_owned)
    }
}

/// A file wherever it is mounted: an agent sees the host's programs at another path than those who run them.
type Identity = (u64, u64);

fn identity(path: &Path) -> io::Result<Identity> {
    fs::metadata(path).map(|meta| (meta.dev(), meta.ino()))
}

/// What all processes run.
fn running(proc: &Path) -> BTreeSet<Identity> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    entries.filter_map(|process| identity(&process.path().join("exe")).ok()).collect()
}

fn programs(version: &Path) -> impl Iterator<Item = Identity> {
    fs::read_dir(version).into_iter().flatten().flatten().filter_map(|entry| identity(&entry.path()).ok())
}
