//! What nodes wait for that are told nothing yet, or do not get on, in words: of each kind the first node, with what helps. Pure. Must not: say times,
//! which would be another status at each look.
use super::super::rollout::{Rollouts, Running, control_plane_by_its_word, said};
use crate::cluster::World;
use crate::rollout::{ControlPlane, Cordon, Node};
use berth_crds::Phase;

/// All of it, a clause each.
pub(super) fn words(world: &World, rollouts: &Rollouts, mine: &[&Running]) -> Vec<String> {
    let short = short(mine);
    // What has all of the budget is named by that.
    let alone = if short.is_some() { None } else { left_alone(mine) };
    let all =
        [unstaged(world, mine), short, alone, drained(rollouts, mine), unfinished(world, mine), left_out(world, mine)];
    all.into_iter().flatten().collect()
}

fn group<'a>(mine: &'a [&Running]) -> impl Iterator<Item = (&'a Node, &'a Running)> {
    mine.iter().flat_map(|running| running.rollout.group(&running.nodes).map(|node| (node, *running)))
}

/// The nodes that are told nothing because of what somebody else does with them.
fn left_alone(mine: &[&Running]) -> Option<String> {
    let why = |node: &Node| match node {
        Node { hold: true, .. } => Some("is held; take spec.hold of its RuntimeNode back"),
        Node { cordon: Cordon::Foreign, .. } => Some("was cordoned by somebody else; uncordon it"),
        Node { unready_since: Some(_), .. } => Some("is not Ready"),
        _ => None,
    };
    let away = |(node, running): &(&Node, &Running)| {
        let target = &running.rollout.target;
        !node.has(target) && !node.wants(target) && why(node).is_some()
    };
    let mut nodes = group(mine).filter(away);
    let (first, _) = nodes.next()?;
    Some(format!("{} nodes are not told now: node {} {}", 1 + nodes.count(), first.name, why(first)?))
}

/// The nodes that are in no rollout because they run a part of the control plane, and have no label that says so.
fn left_out(world: &World, mine: &[&Running]) -> Option<String> {
    let excluded = mine.iter().filter(|running| running.rollout.strategy.control_plane == ControlPlane::Exclude);
    let nodes = excluded.flat_map(|running| running.nodes.iter().filter(|node| node.control_plane));
    let mut said = nodes.filter_map(|node| Some((&node.name, control_plane_by_its_word(world, &node.name)?)));
    let (first, why) = said.next()?;
    Some(format!("{} nodes are left out, as nobody asked for them: node {first}: {why}", 1 + said.count()))
}

/// The first node whose drain does not get on, and what the API server says of its pods.
fn drained(rollouts: &Rollouts, mine: &[&Running]) -> Option<String> {
    let (node, why) = group(mine).find_map(|(node, _)| Some((node, rollouts.refused.get(&node.name)?)))?;
    Some(format!("node {} is drained, and that does not get on: {why}", node.name))
}

/// The first node that has it, and is not done with it.
fn unfinished(world: &World, mine: &[&Running]) -> Option<String> {
    group(mine).filter(|(node, running)| node.settled() && node.has(&running.rollout.target)).find_map(|(node, _)| {
        let status = said(world.runtime_nodes.get(&node.name)?);
        let message = status.message.filter(|_| status.phase == Phase::Verifying)?;
        Some(format!("node {} is not done with it: {message}", node.name))
    })
}

/// The nodes that have not got the target's version of the runtime yet: how many, and the first one with what its agent says.
fn unstaged(world: &World, mine: &[&Running]) -> Option<String> {
    let mut nodes = group(mine).filter(|(node, running)| node.unstaged.contains(&running.rollout.target));
    let (first, _) = nodes.next()?;
    let count = 1 + nodes.count();
    let status = world.runtime_nodes.get(&first.name).map(|object| said(object)).unwrap_or_default();
    let problem = status.conditions.iter().find(|c| c.kind == "Staged" && c.status == "False");
    let why = match (problem, status.newest_version) {
        (Some(problem), _) => format!("{}: {}", problem.reason, problem.message),
        (None, newest) => format!(
            "its agent's image is older and brought {}, see the DaemonSet berth-agent",
            newest.as_deref().unwrap_or("none")
        ),
    };
    Some(format!("{count} nodes lack its version of the runtime and wait for it: node {}: {why}", first.name))
}

/// What the budget lacks for the next nodes: the first node that is away by somebody else's doing, and why. Without times: they change.
fn short(mine: &[&Running]) -> Option<String> {
    let running = mine.iter().find(|r| r.plan.short.is_some())?;
    let short = running.plan.short.as_ref()?;
    let first = running.nodes.iter().find(|n| short.away.contains(&n.name))?;
    let why = if first.unready_since.is_some() { "is not Ready" } else { "was cordoned by somebody else" };
    let others = match short.away.len() - 1 {
        0 => String::new(),
        others => format!(", and {others} others are away"),
    };
    let remedy = "mend it, have spec.nodeSelector leave it out, or raise spec.rollout.maxUnavailable";
    Some(format!(
        "maxUnavailable has no room for the next {} nodes: node {} {why}{others}; {remedy}",
        short.due, first.name
    ))
}
