//! Which nodes are told of a revision next.
use super::budget::Budget;
use super::fleet::{Cordon, Node, Revision, Rollout};
use super::judge::{Fate, Judged};
use super::plan::{Action, Short};
use super::waves::{self, Wave};

/// Up to this part of the group (one in so many), nodes at work are of one zone.
const ONE_ZONE_UP_TO: usize = 4;

/// Tells the next nodes of the open wave of the target. Returns what the budget lacks for more of them.
pub(super) fn forward(
    rollout: &Rollout,
    nodes: &[Node],
    judged: &Judged<'_>,
    wave: Wave,
    now: u64,
    actions: &mut Vec<Action>,
) -> Option<Short> {
    let group = waves::group(rollout, nodes);
    let mut budget = Budget::left(rollout, &group, now);
    let mut short = None;
    if let Wave::Open { size, .. } = wave {
        let room = size.saturating_sub(judged.told.len());
        let due = due(rollout, &group, judged, size, now);
        let (told, no_room) = take(&due, &rollout.target, room, &mut budget, judged);
        let due = room.min(due.len()) - told.len();
        let away = || away(rollout, &group, now);
        short = no_room.then(|| Short { due, away: away() }).filter(|short| !short.away.is_empty());
        actions.extend(told);
    }
    newcomers(rollout, &group, &mut budget, now, actions);
    short
}

/// The nodes that take of the budget of interruptions by no doing of this rollout.
fn away(rollout: &Rollout, group: &[&Node], now: u64) -> Vec<String> {
    let timeout = rollout.strategy.node_timeout;
    let gone = |n: &&&Node| n.unready_since.is_some() || n.cordon == Cordon::Foreign;
    group.iter().filter(gone).filter(|n| !n.interrupted(timeout, now)).map(|n| n.name.clone()).collect()
}

/// The nodes that may be told now, in their order.
fn due<'a>(rollout: &Rollout, group: &[&'a Node], judged: &Judged<'_>, size: usize, now: u64) -> Vec<&'a Node> {
    let target = &rollout.target;
    let open = |n: &&Node| !n.wants(target) && n.within_reach(target);
    let mut due = waves::order(group.iter().copied().filter(open).collect());
    let tried = half_of_the_others_are_well(group, judged);
    let passed_over = |n: &Node| tried && n.postponed_until > now;
    if due.iter().any(|n| !n.control_plane && !passed_over(n)) {
        due.retain(|n| !n.control_plane);
    }
    due.retain(|n| n.postponed_until <= now);
    if size * ONE_ZONE_UP_TO <= judged.members {
        let zone = judged.of(Fate::Underway).next().or(due.first().copied()).map(|n| n.zone.clone());
        due.retain(|n| Some(&n.zone) == zone.as_ref());
    }
    due
}

/// The control plane waits for all others. For one that is put off again and again it would wait for ever, and all of them would be judged as long: it
/// waits for those no more once half of the others have it and are well. Before that it would be the control plane that tries the target.
fn half_of_the_others_are_well(group: &[&Node], judged: &Judged<'_>) -> bool {
    let others = group.iter().filter(|n| !n.control_plane).count();
    judged.of(Fate::Well).filter(|n| !n.control_plane).count() * 2 >= others
}

/// Those that may be told, and whether an interruption of the next one found no room.
fn take(
    due: &[&Node],
    target: &Revision,
    room: usize,
    budget: &mut Budget,
    judged: &Judged<'_>,
) -> (Vec<Action>, bool) {
    let mut control_plane_at_work = judged.of(Fate::Underway).any(|n| n.control_plane);
    let mut actions = Vec::new();
    for node in due {
        if actions.len() == room || (node.control_plane && control_plane_at_work) {
            break;
        }
        if !budget.take(node, node.way(target)) {
            return (actions, node.way(target).needs_grant());
        }
        control_plane_at_work |= node.control_plane;
        actions.push(Action::Tell { node: node.name.clone(), revision: target.clone() });
    }
    (actions, false)
}

/// A node that has never been told anything, while a rollout is under way, gets what others have yet: it is no canary.
fn newcomers(rollout: &Rollout, group: &[&Node], budget: &mut Budget, now: u64, actions: &mut Vec<Action>) {
    let Some(good) = rollout.last_known_good.as_ref().filter(|good| **good != rollout.target) else { return };
    if !group.iter().any(|n| n.wants(good)) {
        return;
    }
    let told: Vec<_> = actions.iter().filter_map(Action::node).map(str::to_owned).collect();
    let open = |n: &&&Node| n.desired.is_none() && n.within_reach(good) && n.postponed_until <= now;
    let new = group.iter().filter(open).filter(|n| !told.contains(&n.name));
    for node in new.take_while(|n| budget.take(n, n.way(good))) {
        actions.push(Action::Tell { node: node.name.clone(), revision: good.clone() });
    }
}

/// Tells the nodes that were told of the target to go back, those that came last first. A node that has not begun, or whose
/// agent went back by itself, loses nothing and goes at once. Returns how many are not back yet.
pub(super) fn backward(
    rollout: &Rollout,
    good: &Revision,
    nodes: &[Node],
    now: u64,
    actions: &mut Vec<Action>,
) -> usize {
    let group = waves::group(rollout, nodes);
    let mut budget = Budget::left(rollout, &group, now);
    let mut back: Vec<_> = group.iter().copied().filter(|n| n.wants(&rollout.target)).collect();
    back.sort_by_key(|n| std::cmp::Reverse(n.desired.as_ref().map(|(_, since)| *since)));
    for node in &back {
        let free = node.has(good) && (node.gave_up() || node.grant.is_none());
        if free || budget.take(node, node.way(good)) {
            actions.push(Action::Tell { node: node.name.clone(), revision: good.clone() });
        }
    }
    let on_their_way = group.iter().filter(|n| n.wants(good) && !n.has(good)).count();
    back.len() + on_their_way
}
