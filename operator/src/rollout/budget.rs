//! Budgets: how many more nodes may be begun now.
use super::fleet::{Node, Rollout};

/// What is left to be taken.
#[derive(Debug)]
pub(super) struct Budget {
    interrupting: usize,
    gentle: usize,
}

impl Budget {
    /// What is left: nodes that are away for any reason count as if this rollout had taken them.
    pub(super) fn left(rollout: &Rollout, group: &[&Node]) -> Self {
        let away = group.iter().filter(|n| n.unavailable() || n.interrupted()).count();
        let at_work = group.iter().filter(|n| !n.settled() && !n.gave_up() && !n.disruption.needs_grant()).count();
        Self {
            interrupting: rollout.strategy.max_unavailable.at_least(group.len()).saturating_sub(away),
            gentle: rollout.strategy.max_in_flight.at_least(group.len()).saturating_sub(at_work),
        }
    }

    /// Takes one node's part; false if nothing is left. A node that counts already takes nothing.
    pub(super) fn take(&mut self, node: &Node) -> bool {
        let needs_grant = node.disruption.needs_grant();
        let counts_already =
            if needs_grant { node.unavailable() || node.interrupted() } else { !node.settled() && !node.gave_up() };
        let left = if needs_grant { &mut self.interrupting } else { &mut self.gentle };
        if !counts_already {
            let Some(rest) = left.checked_sub(1) else { return false };
            *left = rest;
        }
        true
    }
}
