//! Where the time of a start goes. Shown by the CLI and exported as histograms, so names are a closed set.
use serde::{Deserialize, Serialize};

/// One named step and how long it took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// Step name, such as `run/network` or `start/mounts`.
    pub name: String,
    /// Duration in microseconds.
    pub micros: u64,
}

/// The phases of one operation, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phases(pub Vec<Phase>);

impl Phases {
    /// Adds a phase.
    pub fn push(&mut self, name: impl Into<String>, took: std::time::Duration) {
        self.0.push(Phase { name: name.into(), micros: u64::try_from(took.as_micros()).unwrap_or(u64::MAX) });
    }

    /// Sum in microseconds.
    pub fn total_micros(&self) -> u64 {
        self.0.iter().map(|p| p.micros).sum()
    }
}
