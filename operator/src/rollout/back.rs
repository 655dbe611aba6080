//! The way back, counted: which nodes are still waited for. Those that cannot come back are named by their number, and waited for by nobody.
use super::fleet::{AgentState, Cordon, Node, Revision, Rollout};
use super::plan::{Action, Plan, Stage};
use std::iter::Sum;

/// Nodes that go back, of one rollout or several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Back {
    /// Are told to, and their agents are at it.
    pub at_it: usize,
    /// Wait for their turn.
    pub waiting: usize,
    /// Were put off, once at least, because their pods could not go in time or their leave was over. They are tried again, perhaps for ever.
    pub put_off: usize,
    /// Cannot: held, not Ready, without an agent that runs, given up, or longer at it than a node may be.
    pub stuck: usize,
    /// Nodes that have a part of the budget, on their way or away, and give it free within some time.
    pub busy: usize,
}

impl Back {
    /// How many are waited for. Those that wait for their turn only where it can come: nobody knows when a node is there again that is long away.
    pub fn going(&self) -> usize {
        if self.at_it + self.busy == 0 { 0 } else { self.at_it + self.waiting }
    }

    /// How many are not back, whether or not somebody waits for them.
    pub fn left(&self) -> usize {
        self.at_it + self.waiting + self.put_off + self.stuck
    }
}

impl Sum for Back {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |a, b| Self {
            at_it: a.at_it + b.at_it,
            put_off: a.put_off + b.put_off,
            waiting: a.waiting + b.waiting,
            stuck: a.stuck + b.stuck,
            busy: a.busy + b.busy,
        })
    }
}

/// Counts those of a rollout, `plan` being its plan for these nodes. Pure.
pub fn back(rollout: &Rollout, nodes: &[Node], plan: &Plan, now: u64) -> Back {
    let timeout = rollout.strategy.node_timeout;
    let mut back = Back { busy: rollout.group(nodes).filter(|n| busy(rollout, n, now)).count(), ..Back::default() };
    let (Stage::RollingBack { left }, Some(good)) = (&plan.stage, &rollout.last_known_good) else { return back };
    for node in rollout.group(nodes) {
        if node.wants(good) {
            let goes = !node.settled() && !node.gave_up() && !node.lapsed(timeout, now) && answers(node, timeout, now);
            back.put_off += usize::from(goes && put_off(node));
            back.at_it += usize::from(goes && !overdue(rollout, node, now));
        } else if tells(plan, node, good) {
            back.at_it += usize::from(listens(node, now));
        } else if node.wants(&rollout.target) {
            back.waiting += usize::from(listens(node, now));
        }
    }
    back.stuck = left.saturating_sub(back.at_it + back.waiting + back.put_off);
    back
}

/// When a node that goes back is not waited for any more: once it has had the time that a drain and a node may take.
pub(super) fn waited_until(rollout: &Rollout, node: &Node) -> Option<u64> {
    let (_, told) = node.desired.as_ref().filter(|_| !node.settled())?;
    Some(told.saturating_add(rollout.strategy.drain_timeout).saturating_add(rollout.strategy.node_timeout))
}

/// Whether a node was put off since it was told what it is told.
fn put_off(node: &Node) -> bool {
    node.desired.as_ref().is_some_and(|(_, told)| node.postponed_until > *told) && !node.settled()
}

/// Whether nobody can say when a node that is at it will be through.
fn overdue(rollout: &Rollout, node: &Node, now: u64) -> bool {
    put_off(node) || waited_until(rollout, node).is_some_and(|until| now >= until)
}

fn busy(rollout: &Rollout, node: &Node, now: u64) -> bool {
    let timeout = rollout.strategy.node_timeout;
    let at_it = node.under_way(timeout, now);
    if at_it && overdue(rollout, node, now) {
        return false;
    }
    let released = matches!(node.cordon, Cordon::Ours(_)) && node.unready_since.is_none();
    let away = node.unready_since.is_some_and(|since| now < since.saturating_add(timeout));
    released || away || (at_it && answers(node, timeout, now))
}

/// Whether somebody does what the node is told.
fn listens(node: &Node, now: u64) -> bool {
    node.agent == AgentState::Runs && (node.granted(now) || (!node.hold && !node.lacks_policies))
}

/// The same, and it is not away for longer than what it was told takes: what is bad may be what makes it so.
fn answers(node: &Node, timeout: u64, now: u64) -> bool {
    let told = node.desired.as_ref().map_or(0, |(_, since)| *since);
    let there = node.unready_since.is_none_or(|since| now < since.max(told).saturating_add(timeout));
    there && listens(node, now)
}

fn tells(plan: &Plan, node: &Node, revision: &Revision) -> bool {
    let to =
        |action: &Action| matches!(action, Action::Tell { node: n, revision: r } if *n == node.name && r == revision);
    plan.actions.iter().any(to)
}
