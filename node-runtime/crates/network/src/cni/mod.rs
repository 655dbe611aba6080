//! The CNI client: pods on whatever network a node's add-on configures (CNI specification 1.1; versions 0.3.0 to 1.1.0).
//!
//! What is promised: an attachment is on disk, with the configuration that made it, before its first plugin runs, and stays
//! there until DEL has succeeded; a DEL that fails is tried again for as long as it takes, also by the next daemon and after a
//! reboot, and keeps nobody waiting. A plugin has a deadline, and nothing of a failed one lives on.
//! Must not: start a shell, give a plugin the daemon's environment, touch attachments of other runtimes.
//!
//! Tasks, once [`Cni::follow`] and [`Cni::recover`] are called: one that watches the directory and asks for STATUS, one that
//! deletes, one that collects, one that checks and ends.

mod background;
pub mod beside;
mod call;
mod chain;
mod client;
mod config;
mod exec;
mod follow;
mod gc;
mod ledger;
mod load;
mod netns;
mod places;
mod record;
mod request;
mod result;
mod secrets;
mod strays;
mod template;
mod version;
mod written;

pub use client::Cni;
pub use template::{FIELD as CONF_LIST_FIELD, check_template};

use berth_model::PodId;
use std::path::PathBuf;
use std::time::Duration;

/// Where plugins and their configuration lie, and how long they may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniConfig {
    /// Directory of configurations.
    pub conf_dir: PathBuf,
    /// Directories of programs, the first one that has a plugin counts.
    pub bin_dirs: Vec<PathBuf>,
    /// How long all plugins of one operation may take together.
    pub timeout: Duration,
    /// A configuration list that the daemon writes into `conf_dir`, with places for the node's pod CIDR (`template`).
    pub conf_list: Option<String>,
    /// Most ADDs at a time.
    pub parallel_adds: usize,
}

/// Told what happened, by a short name: `cni_delete_failed`, `cni_check_failed`, `cni_gc_failed`, `cni_configuration_refused`.
pub type Tell = Box<dyn Fn(&'static str) + Send + Sync>;

/// The state of the network, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CniReport {
    /// Name of the network that pods get.
    pub network: Option<String>,
    /// The file that it comes from.
    pub file: Option<PathBuf>,
    /// What keeps pods from getting it.
    pub problem: Option<String>,
    /// Files that are refused, each with the field and the reason.
    pub refused: Vec<String>,
    /// Files that are not used, because the network's comes before them.
    pub unused: Vec<String>,
    /// Attachments whose DEL has not succeeded yet.
    pub pending: Vec<PendingDelete>,
    /// Pods on whose network CHECK found something wrong, with what it says.
    pub broken: Vec<(PodId, String)>,
}

/// An attachment that is still to be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingDelete {
    /// The pod; it may be gone.
    pub pod: PodId,
    /// How often DEL has failed.
    pub failures: u32,
    /// What the last failure said.
    pub problem: String,
}
