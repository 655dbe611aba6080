//! The kubelet's files as they will be.
//!
//! Owns: that view, in which a configuration is read again before anything is written. Must not: read or write files.
use super::FileChange;
use crate::kubelet::{Configuration, Files};
use std::io;
use std::path::{Path, PathBuf};

/// What was read, with what a plan changes of it.
pub(super) struct Overlay<'a> {
    pub(super) configuration: &'a Configuration,
    pub(super) changes: &'a [FileChange],
}

impl Files for Overlay<'_> {
    fn text(&self, path: &Path) -> io::Result<String> {
        let text = match self.changes.iter().find(|change| change.path == path) {
            Some(change) => change.after.as_ref().map(|state| &state.text),
            None => {
                let mut sources = self.configuration.file.iter().chain(&self.configuration.drop_ins);
                sources.find(|source| source.path == path).map(|source| &source.text)
            }
        };
        text.cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn below(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let changed = |path: &Path| self.changes.iter().any(|change| change.path == path);
        let old = self.configuration.drop_ins.iter().map(|source| source.path.clone()).filter(|path| !changed(path));
        let there = self.changes.iter().filter(|change| change.after.is_some());
        let new = there.map(|change| change.path.clone()).filter(|path| path.starts_with(dir));
        let mut all: Vec<PathBuf> = old.chain(new).collect();
        all.sort();
        all.dedup();
        Ok(all)
    }
}
