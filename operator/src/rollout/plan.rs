//! The plan: what may be done now, where the rollout stands, and when to look again though nothing changes.
use super::advance;
use super::back;
use super::fleet::{Cordon, Grant, Node, Revision, Rollout, UNREADY};
use super::judge::{self, Fate, Judged};
use super::start;
use super::strategy::OnFailure;
use super::waves::{self, Wave};

/// One thing to do. Each can be done again without harm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A node is told to have a revision.
    Tell {
        /// Which node.
        node: String,
        /// What it is to have.
        revision: Revision,
    },
    /// A node's agent may interrupt it.
    Grant {
        /// Which node.
        node: String,
        /// For what and how long.
        grant: Grant,
    },
    /// A node becomes unschedulable, with a mark that says by whom.
    Cordon {
        /// Which node.
        node: String,
    },
    /// A node becomes schedulable again.
    Uncordon {
        /// Which node.
        node: String,
    },
    /// A node's pods are evicted, as their disruption budgets allow.
    Evict {
        /// Which node.
        node: String,
    },
    /// A node is put off.
    Postpone {
        /// Which node.
        node: String,
        /// What it is told to have meanwhile: what it has (`None` is nothing yet) or, on its way back, what it goes back to.
        back_to: Option<Revision>,
        /// When it may have its next turn.
        until: u64,
        /// Why.
        why: Why,
    },
    /// A revision is remembered as bad.
    MarkBad(Revision),
    /// A revision is what everybody goes back to from now on; said again once nodes that joined since have come through.
    Graduate(Revision),
}

/// Why a node is put off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Its pods could not be evicted in time.
    DrainTimedOut,
    /// A pod of it would be lost, and nobody said that it may be.
    PodsBlock,
    /// Its leave to be interrupted was over before it was through.
    GrantExpired,
    /// Its leave to be interrupted was over before anything was begun under it.
    LeaveUnused {
        /// How often in one order.
        times: u32,
    },
    /// Somebody asked to leave it alone, or works on it.
    Held,
    /// The rollout does not go on.
    Stopped,
    /// It is not Ready, and has had no leave: nothing has begun that could have made it so.
    NotReady,
    /// Its agent does not run, which says nothing of the revision.
    AgentDown,
    /// Its agent has not put the version of the runtime there, which says nothing of the revision.
    NotStaged,
}

impl Action {
    /// The node it is about, if it is about one.
    pub fn node(&self) -> Option<&str> {
        match self {
            Self::Tell { node, .. }
            | Self::Grant { node, .. }
            | Self::Cordon { node }
            | Self::Uncordon { node }
            | Self::Evict { node }
            | Self::Postpone { node, .. } => Some(node),
            Self::MarkBad(_) | Self::Graduate(_) => None,
        }
    }

    /// The node that it tells to have something.
    fn told(&self) -> Option<&str> {
        if let Self::Tell { node, .. } = self { Some(node) } else { None }
    }
}

/// Where a rollout stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// No node is selected.
    NoNodes,
    /// A wave is under way.
    Wave {
        /// Its number, from 0.
        index: usize,
        /// How many there are.
        total: usize,
        /// When the next one may begin, if all of it is through.
        soak_until: Option<u64>,
    },
    /// Somebody paused it.
    Paused,
    /// Too many nodes failed, and it waits for somebody to decide.
    Halted,
    /// Too many nodes failed; so many are not back yet.
    RollingBack {
        /// How many.
        left: usize,
    },
    /// All are back on what they had before.
    RolledBack,
    /// Too many nodes failed, and there is nothing that they could go back to.
    NothingToGoBackTo,
    /// Every node within reach has the target.
    Complete,
}

/// Nodes that are due, and that `max_unavailable` has no room for: others are away, by no doing of this rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Short {
    /// How many could be told now.
    pub due: usize,
    /// Names of the nodes that are away: not Ready, or cordoned by somebody else. At least one.
    pub away: Vec<String>,
}

/// What may be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// In this order.
    pub actions: Vec<Action>,
    /// Where the rollout stands.
    pub stage: Stage,
    /// What the budget lacks.
    pub short: Option<Short>,
    /// When to plan again though nothing has changed, in Unix seconds.
    pub look_again: Option<u64>,
}

/// Plans. Pure: the same arguments give the same plan.
pub fn plan(rollout: &Rollout, nodes: &[Node], now: u64) -> Plan {
    let rollout = &rollout.clone().standing(nodes);
    let judged = judge::judge(rollout, nodes, now);
    let mut actions: Vec<Action> = nodes.iter().filter_map(|node| advance::release(rollout, node, now)).collect();
    // What came through is not judged any more: a node that falls ill weeks later is no reason to take it back from all.
    let breach = !rollout.is_through()
        && judge::too_many(rollout, &judged)
        && rollout.strategy.on_failure != OnFailure::Continue;
    let known_bad = rollout.bad.contains(&rollout.target);
    let wave = waves::stand(rollout, &judged, now);
    let mut short = None;
    let stage = if known_bad || (breach && rollout.strategy.on_failure == OnFailure::Rollback) {
        if !known_bad {
            actions.push(Action::MarkBad(rollout.target.clone()));
        }
        go_back(rollout, nodes, now, &mut actions)
    } else if breach {
        actions.extend(nodes.iter().filter_map(|node| stopped(rollout, node, now)));
        Stage::Halted
    } else if judged.group == 0 {
        Stage::NoNodes
    } else if rollout.paused {
        actions.extend(nodes.iter().filter_map(|node| stopped(rollout, node, now)));
        Stage::Paused
    } else {
        short = start::forward(rollout, nodes, &judged, wave, now, &mut actions);
        let told: Vec<_> = actions.iter().filter_map(Action::told).map(str::to_owned).collect();
        let others = nodes.iter().filter(|node| !told.contains(&node.name));
        actions.extend(others.filter_map(|node| onward(rollout, node, now)));
        let joined = waves::joined(rollout, &judged);
        if joined.is_some_and(|at| at <= now) {
            actions.push(Action::Graduate(rollout.target.clone()));
        }
        forward_stage(rollout, &judged, wave, &mut actions)
    };
    let joined = waves::joined(rollout, &judged).filter(|at| *at > now);
    let again = look_again(rollout, nodes, wave, now).into_iter().chain(joined).min();
    Plan { actions, stage, short, look_again: again }
}

/// Goes on. What was begun for a former target is not carried on: it was in a budget of another kind, or of none.
fn onward(rollout: &Rollout, node: &Node, now: u64) -> Option<Action> {
    let of_now = node.wants(&rollout.target) || returns(rollout, node);
    if of_now { advance::advance(rollout, node, now) } else { advance::halt(rollout, node, now) }
}

/// Begins nothing; what heals goes on.
fn stopped(rollout: &Rollout, node: &Node, now: u64) -> Option<Action> {
    if returns(rollout, node) { advance::advance(rollout, node, now) } else { advance::halt(rollout, node, now) }
}

/// Whether a node is told to have what others go back to.
fn returns(rollout: &Rollout, node: &Node) -> bool {
    rollout.last_known_good.as_ref().is_some_and(|good| node.wants(good) && *good != rollout.target)
}

/// Goes back. A pause does not hold that up: it stops what is new, not what heals.
fn go_back(rollout: &Rollout, nodes: &[Node], now: u64, actions: &mut Vec<Action>) -> Stage {
    let good = rollout.last_known_good.as_ref().filter(|good| !rollout.bad.contains(good) && **good != rollout.target);
    let Some(good) = good else {
        actions.extend(nodes.iter().filter_map(|node| advance::halt(rollout, node, now)));
        return Stage::NothingToGoBackTo;
    };
    let left = start::backward(rollout, good, nodes, now, actions);
    // Those that want the target wait for their turn to be told.
    let others = nodes.iter().filter(|n| !n.wants(&rollout.target));
    actions.extend(others.filter_map(|node| onward(rollout, node, now)));
    if left == 0 { Stage::RolledBack } else { Stage::RollingBack { left } }
}

fn forward_stage(rollout: &Rollout, judged: &Judged<'_>, wave: Wave, actions: &mut Vec<Action>) -> Stage {
    let total = rollout.strategy.waves.len();
    match wave {
        Wave::Open { .. } if rollout.is_through() => all_or_last(judged, total),
        Wave::Open { index, .. } | Wave::Waiting { index } => Stage::Wave { index, total, soak_until: None },
        Wave::Soaking { index, until } => Stage::Wave { index, total, soak_until: Some(until) },
        Wave::Done => {
            // What only a few of many could try is not known to be good.
            if judged.count(Fate::Well) * 2 >= judged.group {
                actions.push(Action::Graduate(rollout.target.clone()));
            }
            all_or_last(judged, total)
        }
    }
}

/// Where a rollout stands of which no wave is left: those that are put off have their turn yet, and newcomers.
fn all_or_last(judged: &Judged<'_>, total: usize) -> Stage {
    let all = judged.count(Fate::Well) + judged.count(Fate::Failed) == judged.members;
    if all { Stage::Complete } else { Stage::Wave { index: total.saturating_sub(1), total, soak_until: None } }
}

fn look_again(rollout: &Rollout, nodes: &[Node], wave: Wave, now: u64) -> Option<u64> {
    let strategy = &rollout.strategy;
    let soak = match wave {
        Wave::Soaking { until, .. } => Some(until),
        _ => None,
    };
    let times = nodes.iter().flat_map(|node| {
        let drain = match node.cordon {
            Cordon::Ours(since) => Some(since.max(node.postponed_until).saturating_add(strategy.drain_timeout)),
            _ => None,
        };
        let ill = node.unready_since.map(|since| since.saturating_add(strategy.node_timeout));
        let put_off = node.unready_since.filter(|_| !node.settled()).map(|since| since.saturating_add(UNREADY));
        let unwell = node.unhealthy_since.map(|since| since.saturating_add(strategy.node_timeout));
        let leave = node.grant_on().map(|grant| grant.expires);
        let deadline = if node.settled() { None } else { node.deadline(strategy.node_timeout).or(leave) };
        let back = back::waited_until(rollout, node).filter(|_| returns(rollout, node));
        [drain, ill, put_off, unwell, deadline, back, Some(node.postponed_until)]
    });
    times.chain([soak]).flatten().filter(|time| *time > now).min()
}
