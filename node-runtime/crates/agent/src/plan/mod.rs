//! What to do next on a node: a pure function of what its RuntimeNode says, what the journal remembers and what was found. It is made
//! again after each step, so that whoever plans after a crash plans the same.
//!
//! Must not: do I/O, read a clock. Policies come first: they wait for nobody (`policies`). Then the configuration (`configuration`), to
//! which `target` says where the way goes: to the desired revision, or back.
mod asked;
mod configuration;
mod grant;
mod known;
mod policies;
mod target;
#[cfg(test)]
mod tests;

pub(crate) use asked::asked;
pub use known::{Answer, Circumstances, Content, Known, Wanted};
pub use target::order;

use crate::facts::Facts;
use crate::journal::Journal;
use berth_crds::{Disruption, Phase, RuntimeNodeSpec};

/// How long a node may be unwell after a step before the revision is given up, in seconds; of an operation, after its end.
pub const PATIENCE: u64 = 120;
/// The same where a daemon that answers says something that does not pass by itself, in seconds. What it has said of the configuration
/// before it is heard out.
pub const LASTING: u64 = 8;
/// How long it takes until a step is tried again that did not come off, or an operation that could not begin, in seconds.
pub const AGAIN: u64 = 10;
/// How long it takes until a set of policies that was refused is tried again, by the same daemon or on the same node of another runtime, in
/// seconds.
pub const POLICIES_AGAIN: u64 = 300;
/// Most steps of one attempt.
pub const MAX_TRIES: u32 = 8;
/// Most operations of one attempt that take the node over, or give it back: one that was ended from outside is begun again.
pub const MAX_OPERATIONS: u32 = 3;
/// Most restarts of the daemon of one attempt.
pub const MAX_RESTARTS: u32 = 3;
/// So many crashes of the daemon in one attempt, and it is given up.
pub const MAX_CRASHES: u32 = 3;

/// What a plan is made of.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// What the node is to have.
    pub wish: &'a RuntimeNodeSpec,
    /// What was tried.
    pub journal: &'a Journal,
    /// What was found.
    pub facts: &'a Facts,
    /// What was fetched and checked.
    pub known: &'a Known,
    /// Unix seconds, of the API server's clock where that is known.
    pub now: u64,
    /// Whether it is. A node's own clock may be wrong, and ends no grant and makes none last.
    pub certain: bool,
}

/// The next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing, until something changes.
    Rest,
    /// Looking again soon: something goes on.
    Wait,
    /// Fetching a revision.
    Fetch(String),
    /// Asking the node whether it can have a revision, and what that takes.
    Check(String),
    /// Having a set of policies enforced.
    ApplyPolicies(String),
    /// Remembering that a set of policies was refused.
    RefusePolicies {
        /// Which.
        revision: String,
        /// Why.
        message: String,
    },
    /// Handing the daemon the credentials that a configuration names.
    HandOver(String),
    /// Having a configuration applied.
    Apply(String),
    /// Restarting the daemon, as that version.
    Restart {
        /// For which revision.
        revision: String,
        /// Which version.
        version: String,
    },
    /// Taking the node over.
    Adopt {
        /// With which revision.
        revision: String,
        /// Name of the grant.
        grant: String,
        /// When it ends, in Unix seconds.
        expires: u64,
    },
    /// Giving the node back.
    GiveBack {
        /// For which revision.
        revision: String,
        /// Name of the grant.
        grant: String,
        /// When it ends, in Unix seconds.
        expires: u64,
    },
    /// Having the kubelet started anew with other settings.
    ConfigureKubelet {
        /// For which revision.
        revision: String,
        /// Also if it has them already: it asks the daemon for the cgroup driver when it starts.
        restart: bool,
        /// Name and end of the grant, in Unix seconds; none on the way back, and where one that it was begun under has ended.
        grant: Option<(String, u64)>,
    },
    /// Having the daemon supervised again.
    Supervise,
    /// Having an operation that was left walk back.
    Recover,
    /// Having the cluster's revisions forgotten, on a node that was given back.
    Release,
    /// Remembering that a revision is applied and verified.
    Commit(String),
    /// Giving a revision up.
    GiveUp {
        /// Which.
        revision: String,
        /// Why, as one word.
        reason: &'static str,
        /// Why, as a sentence.
        message: String,
    },
}

/// What to do next, and what to say of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The step.
    pub step: Step,
    /// What the agent is at.
    pub phase: Phase,
    /// What there is to say of it.
    pub message: Option<String>,
    /// What leave it waits for.
    pub asks: Option<Disruption>,
}

impl Plan {
    fn new(step: Step, phase: Phase) -> Self {
        Self { step, phase, message: None, asks: None }
    }

    fn saying(self, message: impl Into<String>) -> Self {
        Self { message: Some(message.into()), ..self }
    }

    /// With that to say too.
    #[must_use]
    pub fn saying_too(self, message: &str) -> Self {
        let all = self.message.as_ref().map_or_else(|| message.to_owned(), |said| format!("{said}; {message}"));
        self.saying(all)
    }
}

/// The next step.
pub fn plan(view: &View<'_>) -> Plan {
    asked::kept(view, policies::plan(view).unwrap_or_else(|| configuration::plan(view)))
}
