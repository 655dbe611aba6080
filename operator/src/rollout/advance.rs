//! One node on its way: cordon, evict, grant, and make schedulable again; or not go on for now.
use super::fleet::{AgentState, Cordon, Disruption, Grant, Node, Pods, Revision, Rollout, UNREADY, UNUSED_LEAVES};
use super::plan::{Action, Why};

/// How long an agent may take to say that it asks for nothing any more, in seconds.
const ASKED_BEFORE: u64 = 60;

/// What a node needs next to get what it is told to have.
pub(super) fn advance(rollout: &Rollout, node: &Node, now: u64) -> Option<Action> {
    let (desired, told) = node.desired.as_ref()?;
    let forward = *desired == rollout.target;
    if node.has(desired) {
        return finish(rollout, node, desired, *told, now);
    }
    if node.gave_up() || node.postponed_until > now {
        return None;
    }
    // The agent that it was told under was replaced by one that never began: the node is told again when one runs.
    if forward && node.agent == AgentState::CannotStart && node.grant_on().is_none() {
        return Some(recall(node, now, Why::AgentDown));
    }
    if forward && node.lacks_version() {
        return Some(recall(node, now, Why::NotStaged));
    }
    if forward && node.held_back(now) {
        return Some(recall(node, now, Why::Held));
    }
    if !node.way_on().needs_grant() {
        return None;
    }
    if let Some(grant) = node.grant_on() {
        return if grant.expires <= now { leave_is_over(rollout, node, now) } else { None };
    }
    if node.hold {
        return None;
    }
    if forward && node.cordon == Cordon::Foreign {
        return Some(recall(node, now, Why::Held));
    }
    // Whatever it asked for, nobody could use leave there now, and nothing has begun. One whose kubelet starts anew is not Ready for a moment.
    if forward && let Some(since) = node.unready_since {
        return (now >= since.saturating_add(UNREADY)).then(|| postpone(rollout, node, now, Why::NotReady));
    }
    // Nothing is done to a node whose agent has not looked whether it could have the revision at all.
    if !node.asks && !node.lacks_policies {
        return None;
    }
    // What it asked for nobody would use; a node is not drained for that. Later, because the revision may be what it dies of.
    if forward && node.agent != AgentState::Runs {
        return Some(postpone(rollout, node, now, Why::AgentDown));
    }
    if node.lacks_policies {
        return None;
    }
    if node.way_on() == Disruption::Drain {
        if node.pods == Pods::Blocking {
            return Some(postpone(rollout, node, now, Why::PodsBlock));
        }
        let since = match node.cordon {
            Cordon::None => return Some(Action::Cordon { node: node.name.clone() }),
            Cordon::Ours(since) => since,
            Cordon::Foreign => *told,
        };
        // A node that is not Ready keeps its cordon between two turns: each turn has its time.
        let since = since.max(node.postponed_until);
        if node.pods == Pods::Evictable {
            let over = now >= since.saturating_add(rollout.strategy.drain_timeout);
            let evict = || Action::Evict { node: node.name.clone() };
            return Some(if over { postpone(rollout, node, now, Why::DrainTimedOut) } else { evict() });
        }
    }
    Some(grant(rollout, node, desired, node.way_on(), now))
}

/// Towards the target a node has failed whose leave is over, unless it was not the revision that kept it, or not that often. On its way back it
/// gets another grant; others have their turn before that.
fn leave_is_over(rollout: &Rollout, node: &Node, now: u64) -> Option<Action> {
    let forward = node.wants(&rollout.target);
    if !forward || node.lacks_policies {
        return Some(postpone(rollout, node, now, Why::GrantExpired));
    }
    if !node.only_asks() {
        return None;
    }
    let times = node.unused.saturating_add(1);
    let why = Why::LeaveUnused { times };
    if times < UNUSED_LEAVES {
        return Some(postpone(rollout, node, now, why));
    }
    // It stays told, and has failed: who else is told, is judged by that.
    let back_to = node.desired.as_ref().map(|(desired, _)| desired.clone());
    Some(Action::Postpone { node: node.name.clone(), back_to, until: now, why })
}

fn grant(rollout: &Rollout, node: &Node, revision: &Revision, disruption: Disruption, now: u64) -> Action {
    let expires = now.saturating_add(rollout.strategy.node_timeout);
    Action::Grant { node: node.name.clone(), grant: Grant { revision: revision.clone(), disruption, expires } }
}

/// A node that was told to stay with what it has may be in the middle of something else, and need leave to undo that.
fn finish(rollout: &Rollout, node: &Node, desired: &Revision, told: u64, now: u64) -> Option<Action> {
    let needs = node.asks && !node.hold && !node.granted(now) && now >= told.saturating_add(ASKED_BEFORE);
    needs.then(|| grant(rollout, node, desired, Disruption::KubeletRestart, now))
}

/// How long a node is put off at most that was away, in seconds: it is told again only once it is back, and what ended it may have been anything.
const BACK_SOON: u64 = 120;

/// Puts a node off that says nothing about the revision: forward it keeps what it has until its next turn; on its way back it stays
/// told, because what it has may be bad.
fn postpone(rollout: &Rollout, node: &Node, now: u64, why: Why) -> Action {
    let forward = node.wants(&rollout.target);
    let stays = if forward { &node.current } else { &node.desired };
    let longest = if matches!(why, Why::AgentDown | Why::NotReady) { BACK_SOON } else { u64::MAX };
    Action::Postpone {
        node: node.name.clone(),
        back_to: stays.as_ref().map(|(revision, _)| revision.clone()),
        until: now.saturating_add(rollout.strategy.drain_backoff.min(longest)),
        why,
    }
}

/// Takes back what a node was told, before anything was begun: it keeps what it has, and may be told again at once.
fn recall(node: &Node, now: u64, why: Why) -> Action {
    let back_to = node.current.as_ref().map(|(current, _)| current.clone());
    Action::Postpone { node: node.name.clone(), back_to, until: now, why }
}

/// Where nothing is to go on: what a node needs that was told, perhaps is being drained, and has no leave yet. One whose time is over has
/// failed, and is remembered by what it was told.
pub(super) fn halt(rollout: &Rollout, node: &Node, now: u64) -> Option<Action> {
    if node.settled() || node.granted(now) {
        return None;
    }
    let bad = node.desired.as_ref().is_some_and(|(desired, _)| rollout.bad.contains(desired));
    let failed = node.gave_up() || node.lapsed(rollout.strategy.node_timeout, now);
    let waits = node.way_on().needs_grant() && !(failed && node.wants(&rollout.target));
    (bad || waits).then(|| recall(node, now, Why::Stopped))
}

/// Makes a node schedulable again that this operator had cordoned, once it is through, has given up or is put off, and is there.
pub(super) fn release(rollout: &Rollout, node: &Node, now: u64) -> Option<Action> {
    let ours = matches!(node.cordon, Cordon::Ours(_));
    let over = node.settled() || node.gave_up() || node.lapsed(rollout.strategy.node_timeout, now);
    let waits = (node.hold || node.lacks_policies || node.postponed_until > now) && !node.granted(now);
    let release = ours && (over || waits) && node.unready_since.is_none();
    release.then(|| Action::Uncordon { node: node.name.clone() })
}

/// What a node needs that no rollout is about any more: to keep what it has, and to be schedulable again, if this operator had cordoned it. Of a
/// `frozen` one it is not known what it is to have: it is left as it is, but for that cordon.
pub fn leave(node: &Node, frozen: bool, now: u64) -> Option<Action> {
    let ours = matches!(node.cordon, Cordon::Ours(_));
    if node.granted(now) {
        return None;
    }
    if !node.settled() && !node.gave_up() {
        // Nobody would ever give it the leave that it asks for. What has begun without any is finished.
        return (ours || !(frozen || node.begun)).then(|| recall(node, now, Why::Stopped));
    }
    (ours && node.unready_since.is_none()).then(|| Action::Uncordon { node: node.name.clone() })
}
