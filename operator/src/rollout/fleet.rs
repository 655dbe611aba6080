//! What the planner is told: the rollout, and each node as the API server's objects show it. Times are Unix seconds.
use super::strategy::Strategy;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Name of a RuntimeRevision: the hash of its content.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub String);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the way from one revision to another does to a node, lightest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Disruption {
    /// Applied while everything runs.
    None,
    /// Counts for what is started from now on.
    NewPods,
    /// The daemon restarts; containers do not notice.
    DaemonRestart,
    /// The kubelet restarts; containers do not notice.
    KubeletRestart,
    /// The node's pods must go first.
    Drain,
}

impl Disruption {
    /// Whether an agent must hold a grant before it begins.
    pub fn needs_grant(self) -> bool {
        self >= Self::DaemonRestart
    }
}

/// Leave to interrupt a node, for one revision, for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// What for.
    pub revision: Revision,
    /// Most that may be done.
    pub disruption: Disruption,
    /// When it ends.
    pub expires: u64,
}

/// Who made a node unschedulable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Cordon {
    /// Nobody: pods are scheduled to it.
    #[default]
    None,
    /// This operator, at that time.
    Ours(u64),
    /// Somebody else. It is theirs to undo.
    Foreign,
}

/// What is known of the pods that a drain would have to move.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pods {
    /// There are none.
    #[default]
    Gone,
    /// They can be asked to go.
    Evictable,
    /// One of them would be lost, and nobody said that it may be.
    Blocking,
}

/// How long after its leave an agent may take to say that nothing was begun under it, in seconds: `berth adopt` looks at the whole node before
/// its first step, and that may be when the leave ends.
const UNSAID: u64 = 30;
/// How long a node that has had no leave may be not Ready before it is put off, in seconds: a kubelet that starts anew takes less.
pub(super) const UNREADY: u64 = 60;

/// How often in one order a node may let its leave end before its agent has begun anything; then the node has failed.
pub const UNUSED_LEAVES: u32 = 3;

/// What is known of a node's agent, by its pod.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AgentState {
    /// Nothing that keeps it from answering.
    #[default]
    Runs,
    /// Its container cannot be made: nothing that it would have done has begun.
    CannotStart,
    /// It begins, and ends: it may have died of anything.
    Crashes,
}

/// One node: its Node and RuntimeNode, and what depends on both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Name.
    pub name: String,
    /// Failure zone; empty if it has none.
    pub zone: String,
    /// Runs a part of the control plane: its labels say so, or its agent does.
    pub control_plane: bool,
    /// When it was made.
    pub created: u64,
    /// Since when it is not Ready, if it is not.
    pub unready_since: Option<u64>,
    /// Since when its agent reports that runtime, kubelet or enforcement are not well, if it does.
    pub unhealthy_since: Option<u64>,
    /// Since when it has been Ready and its agent has reported it well, both without a break; 0 if that is not known.
    pub well_since: u64,
    /// Unschedulable, and by whom.
    pub cordon: Cordon,
    /// Pods that a drain would have to move.
    pub pods: Pods,
    /// What it is told to have, and since when.
    pub desired: Option<(Revision, u64)>,
    /// What it has applied and verified, and since when.
    pub current: Option<(Revision, u64)>,
    /// The revision that its agent has given up (it went back by itself), or did not begin however often it had leave.
    pub failed: Option<Revision>,
    /// Crashes of its runtime that the agent has counted; such nodes come last.
    pub crashes: u32,
    /// Its agent has checked what the node is told to have, and waits for leave.
    pub asks: bool,
    /// Its agent says that something was begun for what the node is told to have.
    pub begun: bool,
    /// Its agent does not take the node over before it has the image policies that it is to enforce. That says nothing of the revision: it ends
    /// no time, and no leave is given for what nobody would begin.
    pub lacks_policies: bool,
    /// Revisions of a version of the runtime that is newer than all that its agent has put on the node: before that one is there, nothing begins.
    pub unstaged: BTreeSet<Revision>,
    /// Whether there is an agent that could answer.
    pub agent: AgentState,
    /// Its grant.
    pub grant: Option<Grant>,
    /// How often its leave for what it is told to have has ended before its agent had begun anything. From [`UNUSED_LEAVES`] on that is in `failed`.
    pub unused: u32,
    /// An administrator has asked to leave it alone.
    pub hold: bool,
    /// Not before that time, because its pods could not be evicted.
    pub postponed_until: u64,
    /// What the ways from its current revision to others take: to the desired one, the target, the last known good one.
    pub ways: BTreeMap<Revision, Disruption>,
}

impl Node {
    /// Whether it is told to have that revision.
    pub fn wants(&self, revision: &Revision) -> bool {
        self.desired.as_ref().is_some_and(|(desired, _)| desired == revision)
    }

    /// Whether it has that revision.
    pub fn has(&self, revision: &Revision) -> bool {
        self.current.as_ref().is_some_and(|(current, _)| current == revision)
    }

    /// Whether it has what it is told to have.
    pub fn settled(&self) -> bool {
        self.desired.as_ref().is_none_or(|(desired, _)| self.has(desired))
    }

    /// Whether its agent has given up what it is told to have.
    pub fn gave_up(&self) -> bool {
        matches!((&self.desired, &self.failed), (Some((desired, _)), Some(failed)) if desired == failed)
    }

    /// What it takes to have a revision. Of one that nothing is known of, the most.
    pub fn way(&self, to: &Revision) -> Disruption {
        if self.has(to) { Disruption::None } else { self.ways.get(to).copied().unwrap_or(Disruption::Drain) }
    }

    /// What it takes to have what it is told to have.
    pub fn way_on(&self) -> Disruption {
        self.desired.as_ref().map_or(Disruption::None, |(desired, _)| self.way(desired))
    }

    /// Whether it could be told of a revision now: nobody asked to leave it alone, it, its agent and that version of the runtime are there, and it
    /// has not tried before.
    pub fn within_reach(&self, revision: &Revision) -> bool {
        !self.hold
            && self.unready_since.is_none()
            && self.agent == AgentState::Runs
            && self.cordon != Cordon::Foreign
            && self.failed.as_ref() != Some(revision)
            && !self.unstaged.contains(revision)
    }

    /// The grant for what it is told to have, over or not.
    pub(super) fn grant_on(&self) -> Option<&Grant> {
        let (desired, _) = self.desired.as_ref()?;
        self.grant.as_ref().filter(|grant| grant.revision == *desired)
    }

    /// Whether its agent may interrupt it now.
    pub fn granted(&self, now: u64) -> bool {
        self.grant_on().is_some_and(|grant| grant.expires > now)
    }

    /// Whether its agent says that nothing was begun for what it is told. Where the node is not Ready, or the agent ends again and again, what was
    /// last said may be of before it began.
    fn says_unbegun(&self) -> bool {
        !self.begun && self.unready_since.is_none() && self.agent != AgentState::Crashes
    }

    /// Whether its agent still asks for leave, whatever was given, and has begun nothing.
    pub(super) fn only_asks(&self) -> bool {
        self.asks && self.says_unbegun()
    }

    /// Whether nothing begins for what it is told because somebody asked to leave it alone. Under leave that may not be said yet.
    pub(super) fn held_back(&self, now: u64) -> bool {
        let nothing = match self.grant_on() {
            Some(grant) => self.says_unbegun() && now >= grant.expires.saturating_add(UNSAID),
            None => self.says_unbegun() || self.way_on().needs_grant(),
        };
        self.hold && !self.begun && nothing
    }

    /// Whether what it is told to have waits for a version of the runtime, and nothing was begun for it.
    pub(super) fn lacks_version(&self) -> bool {
        let lacks = self.desired.as_ref().is_some_and(|(desired, _)| self.unstaged.contains(desired));
        lacks && !self.begun && self.grant_on().is_none()
    }

    /// When its time is over to get what it is told to have. `None`: its agent waits for policies, for a version of the runtime, or for leave, and
    /// before that perhaps for pods to go, which has a limit of its own.
    pub(super) fn deadline(&self, timeout: u64) -> Option<u64> {
        let (_, told) = self.desired.as_ref()?;
        let ends = told.saturating_add(timeout);
        match self.grant_on() {
            _ if self.lacks_policies || self.lacks_version() => None,
            _ if !self.way_on().needs_grant() => Some(ends),
            Some(_) if self.only_asks() => None,
            Some(grant) if self.begun => Some(grant.expires),
            Some(grant) => Some(grant.expires.saturating_add(UNSAID)),
            // It died, and nothing had begun.
            None if self.unready_since.is_some() => None,
            None => (!self.asks).then_some(ends),
        }
    }

    /// Whether its time was over before it had what it is told to have: nothing is begun any more, and nobody waits for it.
    pub fn lapsed(&self, timeout: u64, now: u64) -> bool {
        let over = self.deadline(timeout).is_some_and(|end| now >= end);
        over && !self.settled() && !self.gave_up() && !self.held_back(now)
    }

    /// Whether it is on its way to what it is told to have.
    pub fn under_way(&self, timeout: u64, now: u64) -> bool {
        !self.settled() && !self.gave_up() && self.postponed_until <= now && !self.lapsed(timeout, now)
    }

    /// Whether it is on its way, and is interrupted by that.
    pub fn interrupted(&self, timeout: u64, now: u64) -> bool {
        self.under_way(timeout, now) && self.way_on().needs_grant()
    }

    /// Whether pods can neither run nor be scheduled there for sure.
    pub fn unavailable(&self) -> bool {
        self.unready_since.is_some() || self.cordon != Cordon::None
    }
}

/// One rollout: where a group of nodes is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    /// What all are to have.
    pub target: Revision,
    /// When the target last came through, here or on other nodes; `None`: it never did.
    pub came_through: Option<u64>,
    /// What nodes go back to: a good one that they have or had; the target itself once it is through ([`Self::standing`]).
    pub last_known_good: Option<Revision>,
    /// Revisions that broke nodes. They are never handed out again.
    pub bad: BTreeSet<Revision>,
    /// Nothing new is begun.
    pub paused: bool,
    /// How.
    pub strategy: Strategy,
    /// Nodes of other rollouts that share its budgets.
    pub beside: Beside,
}

/// Nodes that the same RuntimeConfigs are about, and that are to have something else: they share a budget, not a fate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Beside {
    /// How many there are.
    pub nodes: usize,
    /// Of them, how many are away, or will be by what was planned already.
    pub away: usize,
    /// Of them, how many are on their way without an interruption, or will be.
    pub at_work: usize,
}

impl Rollout {
    /// The same, for those nodes: where at least half of them have the target since it came through, it is what others go back to, and
    /// newcomers have nobody to protect. One that came through on a few of them, on nodes that are gone, or before they were told to have
    /// something else, goes in waves again.
    #[must_use]
    pub fn standing(mut self, nodes: &[Node]) -> Self {
        let proven = self.group(nodes).filter(|node| self.proven(node)).count();
        let most = proven * 2 >= self.group(nodes).count();
        if self.came_through.is_some() && most && !self.bad.contains(&self.target) {
            self.last_known_good = Some(self.target.clone());
        }
        self
    }

    /// Whether a node has the target since it came through: what happens to it now is no news about the target.
    pub(super) fn proven(&self, node: &Node) -> bool {
        let told = node.desired.as_ref().filter(|(desired, _)| *desired == self.target && node.has(desired));
        matches!((told, self.came_through), (Some((_, told)), Some(through)) if *told <= through)
    }

    /// Whether the target is through: it is what others would go back to.
    pub(super) fn is_through(&self) -> bool {
        self.last_known_good.as_ref() == Some(&self.target)
    }
}
