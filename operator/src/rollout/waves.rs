//! Waves: who is due, in which order, and whether the wave before has been well for long enough.
use super::fleet::{Node, Rollout};
use super::judge::{Fate, Judged};
use super::strategy::{ControlPlane, Share};

/// Where a rollout stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wave {
    /// Wave `index` may have `size` nodes that were told of the target, all waves before it included.
    Open { index: usize, size: usize },
    /// All of wave `index` are told; the next one waits until then.
    Soaking { index: usize, until: u64 },
    /// All of wave `index` are told, and not all have come through.
    Waiting { index: usize },
    /// Every wave is through.
    Done,
}

impl Rollout {
    /// Nodes that belong to it at all: not those of the control plane, unless they were asked for.
    pub fn group<'a>(&self, nodes: &'a [Node]) -> impl Iterator<Item = &'a Node> + use<'a> {
        let exclude = self.strategy.control_plane == ControlPlane::Exclude;
        nodes.iter().filter(move |n| !(n.control_plane && exclude))
    }
}

/// The same as a list.
pub(super) fn group<'a>(rollout: &Rollout, nodes: &'a [Node]) -> Vec<&'a Node> {
    rollout.group(nodes).collect()
}

/// The order in which nodes have their turn: the control plane last, zone by zone, those that crashed last of their zone.
pub(super) fn order<'a>(mut nodes: Vec<&'a Node>) -> Vec<&'a Node> {
    nodes.sort_by(|a, b| {
        let key = |n: &'a Node| (n.control_plane, &n.zone, n.crashes, n.created, &n.name);
        key(a).cmp(&key(b))
    });
    nodes
}

/// The state of the waves, from who was told of the target and how they are.
pub(super) fn stand(rollout: &Rollout, judged: &Judged<'_>, now: u64) -> Wave {
    // Once everybody had it, newcomers and returners have nobody to protect: only budgets hold.
    if rollout.is_through() {
        return Wave::Open { index: rollout.strategy.waves.len(), size: judged.members };
    }
    let (mut passed, mut before) = (0, 0);
    for (index, share) in rollout.strategy.waves.iter().chain([&Share::Percent(100)]).enumerate() {
        // One that is put off again and again would keep the last wave open for ever, and all of them judged.
        let size = share.at_least(judged.members).min(judged.members - judged.put_off);
        if size <= before {
            continue;
        }
        if before > 0
            && let Some(wait) = gate(rollout, judged, passed, before, now)
        {
            return wait;
        }
        if judged.told.len() < size {
            return Wave::Open { index, size };
        }
        (passed, before) = (index, size);
    }
    gate(rollout, judged, passed, judged.told.len(), now).unwrap_or(Wave::Done)
}

/// When the first of the nodes that came after the target was through has been well for the time to soak: from then on it has come through there
/// as well, or the old ones would be too few some day, and the target be judged anew by what happens to any.
pub(super) fn joined(rollout: &Rollout, judged: &Judged<'_>) -> Option<u64> {
    let new = judged.of(Fate::Well).filter(|node| rollout.is_through() && !rollout.proven(node));
    let since = new.filter_map(|node| node.current.as_ref().map(|(_, had)| node.well_since.max(*had)));
    since.min().map(|since| since.saturating_add(rollout.strategy.soak_wave))
}

/// What keeps closed the wave after wave `index`, which ends with the `size`th node that was told: all up to it must have the
/// target, well for the time to soak: one that is well only now and then begins anew each time. Failed ones are counted elsewhere and hold up nobody; at least one must have come
/// through, because silence is not success. Counting from the first one told, not by marks on nodes, keeps this true when
/// nodes come, go, or change their zone meanwhile.
fn gate(rollout: &Rollout, judged: &Judged<'_>, index: usize, size: usize, now: u64) -> Option<Wave> {
    let cohort = judged.told.get(..size).unwrap_or(&judged.told);
    if cohort.iter().any(|(_, fate)| *fate == Fate::Underway) {
        return Some(Wave::Waiting { index });
    }
    let well = cohort.iter().filter(|(_, fate)| *fate == Fate::Well);
    let since = |node: &Node, had: u64| if rollout.proven(node) { had } else { had.max(node.well_since) };
    let last = well.filter_map(|(node, _)| node.current.as_ref().map(|(_, had)| since(node, *had))).max();
    let soak = if index == 0 { rollout.strategy.soak_canary } else { rollout.strategy.soak_wave };
    match last.map(|last| last.saturating_add(soak)) {
        None => Some(Wave::Waiting { index }),
        Some(until) if now < until => Some(Wave::Soaking { index, until }),
        Some(_) => None,
    }
}
