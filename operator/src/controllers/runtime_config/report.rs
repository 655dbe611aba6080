//! Status of each RuntimeConfig: its nodes counted, where its rollout stands, what is wrong. Counts and a few samples, never lists of nodes.
use super::super::Context;
use super::super::rollout::{Rollouts, Running, change_between, to_crd};
use super::super::runtime_node::agents::{Agent, agent};
use super::super::status::{Conditions, count, holds, not_understood};
use super::build::Rendered;
use super::frozen;
use super::validate::Judgement;
use super::waits;
use crate::cluster::World;
use crate::cluster::writes::Done;
use crate::rollout::{AgentState, Back, Node, Revision, Stage, back};
use crate::time;
use berth_crds::{
    Condition, DisruptionStatus, FailingNode, FieldConflict, NodeCounts, Phase, RuntimeConfigObject,
    RuntimeConfigStatus, WaveStatus,
};
use kube::ResourceExt;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Most samples of anything.
const SAMPLES: usize = 10;
/// Most fields of a change that are named.
const FIELDS: usize = 32;
/// Most revisions that are named beside the one of most nodes.
const OTHER_TARGETS: usize = 32;

pub(super) async fn report(
    context: &Context,
    world: &World,
    rendered: &Rendered,
    rollouts: &Rollouts,
    now: u64,
) -> (BTreeSet<String>, Result<(), String>) {
    let frozen = rendered.judged.values().filter(|j| matches!(j, Judgement::Frozen { .. })).count();
    context.metrics.frozen("RuntimeConfig", frozen);
    gauges(context, rollouts, now);
    let (mut untold, mut result) = (BTreeSet::new(), Ok(()));
    for (name, judgement) in &rendered.judged {
        let told = match (world.configs.get(name), judgement) {
            (Some(object), _) => one(context, object, of(object, judgement, world, rendered, rollouts, now)).await,
            (None, Judgement::Frozen { reason, message, .. }) => {
                let Some(broken) = world.broken_configs.iter().find(|b| b.name == *name) else { continue };
                not_understood::<RuntimeConfigObject>(context, broken, (reason, message), now).await
            }
            (None, Judgement::Good(_)) => Ok(Done::Yes),
        };
        if told != Ok(Done::Yes) {
            untold.insert(name.clone());
        }
        result = result.and(told.map(drop));
    }
    (untold, result)
}

async fn one(context: &Context, object: &RuntimeConfigObject, status: RuntimeConfigStatus) -> Result<Done, String> {
    if object.status.as_ref() == Some(&status) {
        return Ok(Done::Yes);
    }
    let before = object.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    for (kind, wrong) in [("Accepted", false), ("Conflicted", true), ("AgentsRunning", false)] {
        let now_wrong = status.conditions.iter().find(|c| c.kind == kind && (c.status == "True") == wrong);
        if let Some(condition) = now_wrong.filter(|_| holds(before, kind) != wrong || before.is_empty()) {
            context.events.warning(object, &condition.reason, condition.message.clone()).await;
        }
    }
    context.writes.patch_status(object, cleared(&status)).await
}

/// As a merge patch: what is unset is removed.
fn cleared(status: &RuntimeConfigStatus) -> Value {
    let mut value = json!(status);
    let unset = ["targetRevision", "otherTargetRevisions", "lastKnownGood", "wave", "disruption"];
    for field in unset.into_iter().chain(["failingNodes", "conflicts"]) {
        if value[field].is_null() {
            value[field] = Value::Null;
        }
    }
    if let Some(wave) = value["wave"].as_object_mut() {
        wave.entry("soakUntil").or_insert(Value::Null);
    }
    if let Some(disruption) = value["disruption"].as_object_mut() {
        disruption.entry("fields").or_insert(Value::Null);
    }
    value
}

fn of(
    object: &RuntimeConfigObject,
    judgement: &Judgement,
    world: &World,
    rendered: &Rendered,
    rollouts: &Rollouts,
    now: u64,
) -> RuntimeConfigStatus {
    let name = object.name_any();
    let mine: Vec<&Running> = rollouts.all.iter().filter(|r| r.pool.configs.contains(&name)).collect();
    // Where it has several pools, the largest speaks for it.
    let main = mine.iter().max_by_key(|r| r.nodes.len()).copied();
    // Nodes that its rollout leaves alone, as of the control plane, are not waited for.
    let apart: usize = mine.iter().map(|r| r.nodes.len() - r.rollout.group(&r.nodes).count()).sum();
    let selected = rendered.selected.get(&name).map_or(0, |s| s.len());
    let mut nodes = NodeCounts { matched: count(selected.saturating_sub(apart)), ..Default::default() };
    let mut failing_nodes = Vec::new();
    for running in &mine {
        let group = || running.rollout.group(&running.nodes);
        group().for_each(|node| add(&mut nodes, node, running, now));
        failing_nodes.extend(group().filter_map(|node| failing(world, node, &running.rollout.target)));
    }
    failing_nodes.truncate(SAMPLES);
    let conflicts =
        rendered.conflicts.iter().filter(|(_, names)| names.contains(&name)).map(|(field, names)| FieldConflict {
            field: field.clone(),
            with: names.iter().filter(|other| **other != name).take(SAMPLES).cloned().collect(),
        });
    let mut status = RuntimeConfigStatus {
        observed_generation: object.metadata.generation,
        target_revision: main.map(|r| r.rollout.target.0.clone()),
        other_target_revisions: other_targets(&mine, main),
        last_known_good: main.and_then(|r| r.rollout.last_known_good.as_ref()).map(|r| r.0.clone()),
        summary: format!("{}/{}", nodes.updated, nodes.matched),
        wave: main.and_then(|r| wave(&r.plan.stage)),
        disruption: main.and_then(|r| disruption(world, r)),
        conflicts: conflicts.take(SAMPLES).collect(),
        nodes,
        failing_nodes,
        conditions: Vec::new(),
    };
    let before = object.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    let made = Conditions::after(before, object.metadata.generation, now);
    let left_out = rendered.left_out.get(&name);
    let conflicts = super::conflicts::words(&status.conflicts, &rendered.pools, &name);
    let keep = frozen::told(rendered, &name).into_iter().chain(waits::words(world, rollouts, &mine)).collect();
    let troubles = Troubles {
        agents: agents_down(world, &mine),
        frozen: frozen::told(rendered, &name).is_some(),
        keep,
        conflicts,
    };
    let way_back: Back = mine.iter().map(|r| back(&r.rollout, &r.nodes, &r.plan, now)).sum();
    status.conditions = conditions(made, (judgement, left_out), &status, &mine, (&way_back, troubles));
    status
}

fn other_targets(mine: &[&Running], main: Option<&Running>) -> Vec<String> {
    let main = main.map(|r| &r.rollout.target);
    let others: BTreeSet<_> = mine.iter().map(|r| &r.rollout.target).filter(|target| Some(*target) != main).collect();
    others.into_iter().take(OTHER_TARGETS).map(|target| target.0.clone()).collect()
}

fn add(counts: &mut NodeCounts, node: &Node, running: &Running, now: u64) {
    let (target, timeout) = (&running.rollout.target, running.rollout.strategy.node_timeout);
    let lapsed = node.wants(target) && node.lapsed(timeout, now);
    let well = node.unhealthy_since.is_none();
    let has = node.has(target);
    let gave_up = node.failed.as_ref() == Some(target);
    counts.updated += u32::from(has);
    counts.updating += u32::from(!node.settled() && !node.gave_up() && !lapsed);
    counts.ready += u32::from(has && well && node.unready_since.is_none());
    counts.degraded += u32::from(gave_up || lapsed || !well);
    counts.rolled_back += u32::from(gave_up && !has && node.current.is_some());
    counts.unreachable += u32::from(node.unready_since.is_some() || node.agent != AgentState::Runs);
    counts.held += u32::from(node.hold);
}

fn failing(world: &World, node: &Node, target: &Revision) -> Option<FailingNode> {
    // An agent that never ran has said nothing.
    let object = world.runtime_nodes.get(&node.name)?;
    let status = object.status.clone().unwrap_or_default();
    // What it has after all, or is asked again, failed before that.
    let failed = status.failed.as_ref().filter(|f| f.revision == target.0 && node.failed.as_ref() == Some(target));
    let ill = node.unhealthy_since.is_some().then(|| status.message.clone().unwrap_or_else(|| "not well".to_owned()));
    let agent = agent_trouble(world, node).map(|message| format!("AgentNotRunning: {message}"));
    let unused =
        object.spec.unused_leave.as_ref().filter(|u| node.failed.as_ref() == Some(target) && u.revision == target.0);
    let unused = unused.map(|u| {
        let says = status.message.as_ref().filter(|_| status.phase == Phase::AwaitingGrant);
        let says = says.map(|message| format!("; it says: {message}")).unwrap_or_default();
        format!("LeaveUnused: its agent began nothing under its leave to be interrupted, {} times{says}", u.times)
    });
    let failed = failed.map(|f| format!("{}: {}", f.reason, f.message));
    let reason = failed.or(agent).or(unused).or(ill)?;
    Some(FailingNode { name: node.name.clone(), reason: reason.chars().take(500).collect() })
}

fn agent_trouble(world: &World, node: &Node) -> Option<String> {
    let pod = world.agents.get(&node.name).filter(|_| node.agent != AgentState::Runs)?;
    // As it was told: the kubelet's words for the same take turns.
    let told = world.runtime_nodes.get(&node.name).and_then(|object| object.spec.agent_problem.as_ref());
    match (told, agent(pod)) {
        (Some(told), Agent::Down(trouble)) if told.pod == trouble.pod => Some(told.message.clone()),
        (_, Agent::Down(trouble)) => Some(trouble.message),
        _ => None,
    }
}

/// The nodes whose agents do not run: how many, and the first one with its reason.
fn agents_down(world: &World, mine: &[&Running]) -> Option<String> {
    let nodes = mine.iter().flat_map(|r| r.rollout.group(&r.nodes)).filter(|node| node.agent != AgentState::Runs);
    let (mut count, mut first) = (0, None);
    for node in nodes {
        count += 1;
        first = first.or_else(|| Some((node.name.clone(), agent_trouble(world, node)?)));
    }
    let (name, message) = first?;
    Some(format!("{count} nodes get nothing new; node {name}: {message}"))
}

/// What keeps nodes from having it, or from having all of it, in words.
struct Troubles {
    /// Agents that do not run.
    agents: Option<String>,
    /// Other objects freeze some of them.
    frozen: bool,
    /// Whatever else does, each as a clause.
    keep: Vec<String>,
    /// Equals that set fields differently.
    conflicts: Option<String>,
}

fn wave(stage: &Stage) -> Option<WaveStatus> {
    let Stage::Wave { index, total, soak_until } = stage else { return None };
    let total = count(*total);
    Some(WaveStatus { index: (count(*index) + 1).min(total.max(1)), total, soak_until: soak_until.map(time::text) })
}

/// What it takes to bring the target to the nodes that do not have it, told as soon as it is known, before the first of them is touched: the
/// heaviest of their ways (of a node that has nothing yet, that of taking it over), and the fields of all.
fn disruption(world: &World, running: &Running) -> Option<DisruptionStatus> {
    let target = &running.rollout.target;
    let due = || running.rollout.group(&running.nodes).filter(|node| !node.has(target));
    let class = due().map(|node| node.way(target)).max()?;
    let from: BTreeSet<_> = due().filter_map(|node| node.current.as_ref()).map(|(current, _)| current).collect();
    let changes = from.into_iter().filter_map(|current| change_between(world, &current.0, &running.pool));
    let fields: BTreeSet<_> = changes.flat_map(|(_, fields)| fields).collect();
    let fields = fields.into_iter().take(FIELDS).collect();
    Some(DisruptionStatus { class: to_crd(class), fields })
}

fn conditions(
    mut made: Conditions<'_>,
    (judgement, left_out): (&Judgement, Option<&(&'static str, String)>),
    status: &RuntimeConfigStatus,
    mine: &[&Running],
    (way_back, Troubles { agents, frozen, keep: kept, conflicts }): (&Back, Troubles),
) -> Vec<Condition> {
    let accepted = match (judgement, left_out) {
        // Others of its nodes may well be told what it says.
        (Judgement::Good(_), Some((reason, message))) => {
            made.set("Accepted", false, reason, format!("{message}; nodes that this is about keep what they have"));
            false
        }
        (Judgement::Good(_), None) => {
            made.set("Accepted", true, "Valid", "");
            true
        }
        (Judgement::Frozen { reason, message, .. }, _) => {
            made.set("Accepted", false, reason, format!("{message}; its nodes keep what they have"));
            false
        }
    };
    let is = |wanted: fn(&Stage) -> bool| mine.iter().any(|r| wanted(&r.plan.stage));
    let back = is(|s| matches!(s, Stage::RollingBack { .. } | Stage::RolledBack | Stage::NothingToGoBackTo));
    let keep: usize = mine.iter().map(|r| keep(r)).sum();
    let halted = is(|s| matches!(s, Stage::Halted));
    let paused = is(|s| matches!(s, Stage::Paused));
    let (forward, going_back) = (is(|s| matches!(s, Stage::Wave { .. })), way_back.going() > 0);
    let done = mine.iter().all(|r| matches!(r.plan.stage, Stage::Complete | Stage::NoNodes));
    let with_all = |said: String| kept.iter().fold(said, |said, why| format!("{said}; {why}"));
    let counted = with_all(format!("{} of {} nodes have it and are well", status.nodes.ready, status.nodes.matched));
    let (ready, reason, message) = match () {
        () if left_out.is_some() => (false, "NotAccepted", "some of its nodes keep what they have".to_owned()),
        () if !accepted => (false, "NotAccepted", "its nodes keep what they have".to_owned()),
        () if status.nodes.matched == 0 => (true, "NoMatchingNodes", with_all("it selects no node".to_owned())),
        () if going_back => (false, "RollingBack", returning(status, way_back)),
        () if keep > 0 => {
            (false, "NothingToGoBackTo", format!("{keep} nodes keep it; {}", returning(status, way_back)))
        }
        () if back => (false, "RolledBack", returning(status, way_back)),
        () if halted => (false, "Halted", failure(status)),
        () if paused && !done => (false, "Paused", counted),
        () if done && status.nodes.ready == status.nodes.matched => (true, "Complete", counted),
        () if done && frozen => (false, "NodesFrozen", counted),
        () if done && agents.is_some() => (false, "AgentsNotRunning", counted),
        () if done => (false, "NodesMissing", counted),
        () => (false, "RollingOut", counted),
    };
    made.set("Ready", ready, reason, message);
    let progress = if going_back { "RollingBack" } else { "RollingOut" };
    made.set("Progressing", forward || going_back, if forward || going_back { progress } else { "Idle" }, "");
    let degraded = back || halted || status.nodes.degraded > 0;
    made.set(
        "Degraded",
        degraded,
        if degraded { "NodesFailed" } else { "AsExpected" },
        if degraded { failure(status) } else { String::new() },
    );
    let (reason, message) = match back {
        true if going_back => ("RollingBack", returning(status, way_back)),
        true if keep > 0 => ("NothingToGoBackTo", format!("{keep} nodes keep it: none of them had a good one before")),
        true => ("TooManyFailed", String::new()),
        false => ("AsExpected", String::new()),
    };
    made.set("RolledBack", back && !going_back && keep == 0, reason, message);
    made.set("Paused", paused, if paused { "Asked" } else { "AsExpected" }, "");
    let running = agents.is_none();
    made.set(
        "AgentsRunning",
        running,
        if running { "AsExpected" } else { "AgentNotRunning" },
        agents.unwrap_or_default(),
    );
    let conflicted = conflicts.is_some();
    let reason = if conflicted { "EqualPriority" } else { "AsExpected" };
    made.set("Conflicted", conflicted, reason, conflicts.unwrap_or_default());
    made.finish()
}

/// Nodes that keep what is bad, or get it under a leave that they have, because there is nothing that they could go back to.
fn keep(running: &Running) -> usize {
    let Running { rollout, nodes, plan, .. } = running;
    let keeps = |n: &&Node| n.has(&rollout.target) || (n.wants(&rollout.target) && !n.gave_up());
    if plan.stage == Stage::NothingToGoBackTo { rollout.group(nodes).filter(keeps).count() } else { 0 }
}

/// How far the way back is, and what for.
fn returning(status: &RuntimeConfigStatus, back: &Back) -> String {
    let why = failure(status);
    let some = |number: usize, what: &str| if number > 0 { format!(", {number} {what}") } else { String::new() };
    match (back.going(), back.left()) {
        (0, 0) => why,
        (0, left) => {
            let put_off = some(back.put_off, "of them put off and tried again");
            format!(
                "{left} nodes are not back{put_off}, and nobody waits for them (kubectl berth nodes says why); {why}"
            )
        }
        (going, _) => {
            let (put_off, stuck) = (some(back.put_off, "more are put off"), some(back.stuck, "more cannot"));
            format!("{going} nodes still go back{put_off}{stuck}; {why}")
        }
    }
}

fn failure(status: &RuntimeConfigStatus) -> String {
    match status.failing_nodes.first() {
        Some(node) => format!("{} nodes failed; node {}: {}", status.nodes.degraded, node.name, node.reason),
        None => "nodes took too long, or the revision is bad: somebody took it back, or nodes of another RuntimeConfig gave it up".to_owned(),
    }
}

/// Nodes of all rollouts by state.
fn gauges(context: &Context, rollouts: &Rollouts, now: u64) {
    let mut counts = NodeCounts::default();
    for running in &rollouts.all {
        counts.matched += count(running.rollout.group(&running.nodes).count());
        running.rollout.group(&running.nodes).for_each(|node| add(&mut counts, node, running, now));
    }
    let due = |r: &Running| r.plan.short.as_ref().map_or(0, |short| short.due);
    let states = [
        ("waiting", count(rollouts.all.iter().map(due).sum())),
        ("selected", counts.matched),
        ("updated", counts.updated),
        ("updating", counts.updating),
        ("ready", counts.ready),
        ("degraded", counts.degraded),
        ("unreachable", counts.unreachable),
    ];
    states.into_iter().for_each(|(state, count)| context.metrics.nodes(state, count));
}
