//! The groups of ours directly below a parent, for whoever looks for those that nobody knows any more.
//!
//! Must not: name a group that we may not have made. In the file system we mark what we make (`files.rs`), in each hierarchy; a scope of
//! systemd's is ours by its name.
use crate::files::{Tree, failed, is_gone};
use crate::{CgroupPath, Cgroups, Driver, path};
use berth_model::Result;
use std::collections::BTreeMap;

impl Cgroups {
    /// The groups that [`Cgroups::create`] or [`Cgroups::start_scope`] made directly below `parent`, by the names that they were made
    /// with. cgroupfs: a group that lacks our mark in one of the hierarchies where it is, is somebody else's. systemd: the scopes
    /// `berth-NAME.scope` alone. No parent, no groups. Errors: the parent's directory cannot be read.
    pub fn made_below(&self, parent: &str) -> Result<BTreeMap<String, CgroupPath>> {
        let above = path::resolve_parent(self.driver(), parent)?;
        let mut found = BTreeMap::new();
        for tree in self.trees() {
            for dir in directories(tree, above.dir())? {
                let name = match self.driver() {
                    Driver::Cgroupfs => Some(dir.as_str()),
                    Driver::Systemd => dir.strip_prefix("berth-").and_then(|rest| rest.strip_suffix(".scope")),
                };
                // What is not named as we name groups is no group of ours.
                let Some((name, group)) =
                    name.and_then(|name| Some((name, path::resolve(self.driver(), parent, "", name).ok()?)))
                else {
                    continue;
                };
                if self.driver() == Driver::Systemd || self.is_ours_everywhere(&group) {
                    found.insert(name.to_owned(), group);
                }
            }
        }
        Ok(found)
    }

    fn is_ours_everywhere(&self, group: &CgroupPath) -> bool {
        self.trees().into_iter().all(|tree| match tree.group(group.dir()) {
            Ok(_) => tree.is_ours(group.dir()),
            Err(e) => is_gone(&e),
        })
    }
}

fn directories(tree: &Tree, dir: &str) -> Result<Vec<String>> {
    let entries = match tree.group(dir).and_then(|group| group.entries()) {
        Err(e) if is_gone(&e) => return Ok(Vec::new()),
        result => result.map_err(|e| failed(format!("cgroup {}", tree.path(dir).display()), e))?,
    };
    Ok(entries.into_iter().filter_map(|(name, is_dir)| is_dir.then_some(name)).collect())
}
