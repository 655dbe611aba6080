//! One node on its way: cordon, evict, grant, and make schedulable again.
use super::fleet::{Cordon, Disruption, Grant, Node, Rollout};
use super::plan::Action;

/// What a node needs next to get what it is told to have.
pub(super) fn advance(rollout: &Rollout, node: &Node, now: u64) -> Option<Action> {
    let (desired, told) = node.desired.as_ref()?;
    if !node.interrupted() || node.grant.as_ref().is_some_and(|grant| grant.revision == *desired) {
        return None;
    }
    let name = node.name.clone();
    if node.disruption == Disruption::Drain {
        let since = match node.cordon {
            Cordon::None => return Some(Action::Cordon { node: name }),
            Cordon::Ours(since) => since,
            Cordon::Foreign => *told,
        };
        if node.occupied {
            let over = now >= since.saturating_add(rollout.strategy.drain_timeout);
            return Some(if over { postpone(rollout, node, now) } else { Action::Evict { node: name } });
        }
    }
    let expires = now.saturating_add(rollout.strategy.node_timeout);
    let grant = Grant { revision: desired.clone(), disruption: node.disruption, expires };
    Some(Action::Grant { node: name, grant })
}

/// Pods that cannot be evicted say nothing about the revision: the node keeps what it has, and gets another turn.
fn postpone(rollout: &Rollout, node: &Node, now: u64) -> Action {
    Action::Postpone {
        node: node.name.clone(),
        back_to: node.current.as_ref().map(|(current, _)| current.clone()),
        until: now.saturating_add(rollout.strategy.drain_backoff),
    }
}

/// Makes a node schedulable again that this operator had cordoned, once it is through or has given up, and is there.
pub(super) fn release(node: &Node) -> Option<Action> {
    let ours = matches!(node.cordon, Cordon::Ours(_));
    let through = node.settled() || node.gave_up();
    (ours && through && node.unready_since.is_none()).then(|| Action::Uncordon { node: node.name.clone() })
}
