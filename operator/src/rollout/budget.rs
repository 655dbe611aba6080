//! Budgets: how many more nodes may be begun now.
use super::fleet::{Disruption, Node, Rollout};

/// What is left to be taken.
#[derive(Debug)]
pub(super) struct Budget {
    interrupting: usize,
    gentle: usize,
    timeout: u64,
    now: u64,
}

impl Budget {
    /// What is left: nodes that are away for any reason count as if this rollout had taken them.
    pub(super) fn left(rollout: &Rollout, group: &[&Node], now: u64) -> Self {
        let timeout = rollout.strategy.node_timeout;
        let away = group.iter().filter(|n| n.unavailable() || n.interrupted(timeout, now)).count();
        let gentle = |n: &&&Node| n.under_way(timeout, now) && !n.way_on().needs_grant();
        let at_work = group.iter().filter(gentle).count();
        Self {
            interrupting: rollout.strategy.max_unavailable.at_least(group.len()).saturating_sub(away),
            gentle: rollout.strategy.max_in_flight.at_least(group.len()).saturating_sub(at_work),
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
