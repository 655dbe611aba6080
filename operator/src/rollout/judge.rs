//! Failures: which nodes the target did not do well, and whether they are too many.
use super::fleet::{Node, Rollout};
use super::waves;

/// How a node fares that was told of the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// On its way.
    Underway,
    /// Has it and is well.
    Well,
    /// Gave it up, took too long, or was not well for too long.
    Failed,
}

/// The nodes of a rollout by how they fare with its target.
#[derive(Debug)]
pub(super) struct Judged<'a> {
    /// How many nodes belong to it, those that are out of reach included.
    pub group: usize,
    /// How many of them were told of the target or could be.
    pub members: usize,
    /// How many of those were put off: they are told later, and nobody waits for them.
    pub put_off: usize,
    /// Those that were told, the first one first.
    pub told: Vec<(&'a Node, Fate)>,
}

impl<'a> Judged<'a> {
    /// The nodes of one fate.
    pub(super) fn of(&self, fate: Fate) -> impl Iterator<Item = &'a Node> + '_ {
        self.told.iter().filter(move |(_, f)| *f == fate).map(|(node, _)| *node)
    }

    /// How many have one fate.
    pub(super) fn count(&self, fate: Fate) -> usize {
        self.of(fate).count()
    }
}

/// Sorts the nodes.
pub(super) fn judge<'a>(rollout: &Rollout, nodes: &'a [Node], now: u64) -> Judged<'a> {
    let group = waves::group(rollout, nodes);
    // One that had it for long and fell ill since is as one out of reach: no reason to take the target from others.
    let ill = |n: &Node| n.unready_since.is_some() || n.unhealthy_since.is_some();
    let there: Vec<_> = group.iter().copied().filter(|n| !(rollout.proven(n) && ill(n))).collect();
    let could = |n: &&&Node| !n.wants(&rollout.target) && n.within_reach(&rollout.target);
    let put_off = there.iter().filter(could).filter(|n| n.postponed_until > now).count();
    let members = there.iter().filter(could).count() + there.iter().filter(|n| n.wants(&rollout.target)).count();
    let fate = |node: &'a Node| {
        let fate = match (failed(rollout, node, now), well(rollout, node)) {
            (true, _) => Fate::Failed,
            (false, true) => Fate::Well,
            (false, false) => Fate::Underway,
        };
        (node, fate)
    };
    let mut told: Vec<_> = there.into_iter().filter(|n| n.wants(&rollout.target)).map(fate).collect();
    told.sort_by_key(|(node, _)| (node.desired.as_ref().map(|(_, since)| *since), &node.name));
    Judged { group: group.len(), members, put_off, told }
}

fn well(rollout: &Rollout, node: &Node) -> bool {
    node.has(&rollout.target) && node.unhealthy_since.is_none() && node.unready_since.is_none()
}

/// Whether the target did a node no good: its agent gave up, its time is over, or it has been ill for too long.
fn failed(rollout: &Rollout, node: &Node, now: u64) -> bool {
    let timeout = rollout.strategy.node_timeout;
    if node.failed.as_ref() == Some(&rollout.target) {
        return true;
    }
    if node.has(&rollout.target) {
        let ill_since = node.unready_since.or(node.unhealthy_since);
        return ill_since.is_some_and(|since| now >= since.saturating_add(timeout));
    }
    node.lapsed(timeout, now)
}

/// Whether so many failed that the rollout must not go on.
pub(super) fn too_many(rollout: &Rollout, judged: &Judged<'_>) -> bool {
    let canaries = rollout.strategy.waves.first().map_or(1, |w| w.at_least(judged.members));
    let allowed = if judged.told.len() <= canaries { 0 } else { rollout.strategy.failures.at_most(judged.told.len()) };
    judged.count(Fate::Failed) > allowed
}
