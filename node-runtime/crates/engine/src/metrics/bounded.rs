//! Values of labels that come from outside, in bounded number: whatever a node is asked to do, its series stay few.
use berth_settings::Settings;
use std::collections::BTreeSet;
use std::sync::{PoisonError, RwLock};

/// What stands for every name that is not told by itself.
pub(super) const OTHER: &str = "other";
/// What stands where there is no name.
pub(super) const NONE: &str = "none";
/// Most names that are told by themselves.
const MOST: usize = 64;
/// Longest name.
const LONGEST: usize = 128;

/// Names of registries and mirrors: those that the documents configure, in the order of their names.
#[derive(Default)]
pub(super) struct Hosts(RwLock<BTreeSet<String>>);

impl Hosts {
    /// Takes the names over from the settings. A name that has left keeps its series and gets nothing more.
    pub(super) fn follow(&self, settings: &Settings) {
        let mut all = BTreeSet::new();
        for host in settings.registries.iter().flat_map(super::hosts::names) {
            if host.len() <= LONGEST && all.len() < MOST {
                all.insert(host);
            }
        }
        // Series of names that were configured once stay until the daemon ends, so they count too.
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for host in all {
            if known.len() < MOST {
                known.insert(host);
            }
        }
    }

    /// The name, if it is told by itself.
    pub(super) fn label(&self, host: &str) -> String {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if known.contains(host) { host.to_owned() } else { OTHER.to_owned() }
    }
}
