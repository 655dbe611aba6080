//! Budgets: how many more nodes may be begun now.
use super::fleet::{Beside, Disruption, Node, Rollout};
use super::plan::{Action, Plan};

/// What is left to be taken.
#[derive(Debug)]
pub(super) struct Budget {
    interrupting: usize,
    gentle: usize,
    timeout: u64,
    now: u64,
}

/// What nodes take of budgets now.
fn taken<'a>(nodes: impl Iterator<Item = &'a Node>, timeout: u64, now: u64) -> Beside {
    nodes.fold(Beside::default(), |mut taken, node| {
        taken.nodes += 1;
        taken.away += usize::from(node.unavailable() || node.interrupted(timeout, now));
        taken.at_work += usize::from(node.under_way(timeout, now) && !node.way_on().needs_grant());
        taken
    })
}

/// What a rollout takes of the budgets that it shares: by its nodes as they are, and by those that a plan tells something.
pub fn share(rollout: &Rollout, nodes: &[Node], plan: Option<&Plan>, now: u64) -> Beside {
    let timeout = rollout.strategy.node_timeout;
    let mut taken = taken(rollout.group(nodes), timeout, now);
    for action in plan.iter().flat_map(|plan| &plan.actions) {
        let Action::Tell { node, revision } = action else { continue };
        let Some(node) = nodes.iter().find(|n| n.name == *node) else { continue };
        let way = node.way(revision);
        taken.away += usize::from(way.needs_grant() && !node.unavailable() && !node.interrupted(timeout, now));
        taken.at_work += usize::from(!way.needs_grant() && !node.under_way(timeout, now));
    }
    taken
}

impl Budget {
    /// What is left: nodes that are away for any reason count as if this rollout had taken them.
    pub(super) fn left(rollout: &Rollout, group: &[&Node], now: u64) -> Self {
        let (timeout, beside) = (rollout.strategy.node_timeout, rollout.beside);
        let taken = taken(group.iter().copied(), timeout, now);
        let of = group.len() + beside.nodes;
        Self {
            interrupting: rollout.strategy.max_unavailable.at_least(of).saturating_sub(taken.away + beside.away),
            gentle: rollout.strategy.max_in_flight.at_least(of).saturating_sub(taken.at_work + beside.at_work),
            timeout,
            now,
        }
    }

    /// Takes one node's part for a way; false if nothing is left. A node that counts already takes nothing.
    pub(super) fn take(&mut self, node: &Node, way: Disruption) -> bool {
        let interrupted = node.interrupted(self.timeout, self.now);
        let counts_already = if way.needs_grant() {
            node.unavailable() || interrupted
        } else {
            node.under_way(self.timeout, self.now) && !interrupted
        };
        let left = if way.needs_grant() { &mut self.interrupting } else { &mut self.gentle };
        if !counts_already {
            let Some(rest) = left.checked_sub(1) else { return false };
            *left = rest;
        }
        true
    }
}
