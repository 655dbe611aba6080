//! A plan's actions, carried out: each is one change of one object, and can be done again.
//!
//! A node is cordoned and marked as cordoned by us in one change, and made schedulable and unmarked in one: whatever happens in between, no
//! cordon of ours is forgotten, and none of somebody else's is undone.
use super::super::Context;
use super::super::runtime_node::agents::{Agent, agent};
use super::Running;
use super::build::{CORDONED, asks_for_control_plane, came_through, inherited, is_through_for, unused};
use super::changes::to_crd;
use super::drain::Drains;
use crate::cluster::World;
use crate::cluster::writes::Done;
use crate::rollout::{Action, Grant, Node, Revision, UNUSED_LEAVES, Why};
use crate::time;
use berth_crds::{RuntimeConfigObject, RuntimeNode, RuntimeRevision, Verdict};
use k8s_openapi::api::core::v1::Node as ClusterNode;
use kube::ResourceExt;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What actions are carried out with.
pub(super) struct Step<'a> {
    pub context: &'a Context,
    pub world: &'a World,
    pub drains: &'a Drains,
    /// All rollouts.
    pub all: &'a [Running],
    pub now: u64,
}

impl Step<'_> {
    /// All of a plan. Errors: the first one; one node's trouble is no other's. What is to be remembered of a revision before nodes are told to
    /// leave it ends the plan where it could not be written: once they have left, nobody could tell any more, and others would be told to have it.
    /// Not `may_tell`: people could not see yet what the target does, or it is bad for others, and no node is told to have it.
    pub(super) async fn carry_out(&self, running: &Running, may_tell: bool) -> Result<(), String> {
        let target = &running.rollout.target;
        let mut result = Ok(());
        for action in &running.plan.actions {
            if !may_tell && matches!(action, Action::Tell { revision, .. } if revision == target) {
                continue;
            }
            tracing::info!(?action, "acts");
            let done = match action {
                Action::Tell { node, revision } => self.tell(running, node, revision).await,
                Action::MarkBad(revision) => match self.mark_bad(running, revision).await {
                    Ok(Done::Yes) => Ok(()),
                    // Its change comes, and with it the next pass.
                    Ok(Done::Stale) => return result,
                    Err(e) => return result.and(Err(e)),
                },
                Action::Graduate(revision) => self.graduate(running, revision).await,
                on_node => self.on_node(on_node).await,
            };
            result = result.and(done);
        }
        result
    }

    /// What needs no rollout to be done.
    pub(super) async fn on_node(&self, action: &Action) -> Result<(), String> {
        match action {
            Action::Grant { node, grant } => self.grant(node, grant).await,
            Action::Cordon { node } => {
                let mark = json!({"metadata": {"annotations": {CORDONED: time::text(self.now)}}, "spec": {"unschedulable": true}});
                self.schedule(node, mark).await
            }
            Action::Uncordon { node } => {
                self.schedule(
                    node,
                    json!({"metadata": {"annotations": {CORDONED: null}}, "spec": {"unschedulable": null}}),
                )
                .await
            }
            Action::Evict { node } => self.evict(node).await,
            Action::Postpone { node, back_to, until, why } => self.postpone(node, back_to.as_ref(), *until, *why).await,
            Action::Tell { .. } | Action::MarkBad(_) | Action::Graduate(_) => Ok(()),
        }
    }

    /// Marks of ours on nodes that somebody else made schedulable: the next cordon is theirs.
    pub(super) async fn unmark(&self) -> Result<(), String> {
        let mut result = Ok(());
        let stale = |node: &&ClusterNode| {
            let cordoned = node.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false);
            !cordoned && node.annotations().contains_key(CORDONED)
        };
        for node in self.world.nodes.values().map(AsRef::as_ref).filter(stale) {
            let fields = json!({"metadata": {"annotations": {CORDONED: null}}});
            result = result.and(self.context.writes.patch(node, fields).await.map(drop));
        }
        result
    }

    fn object(&self, name: &str) -> Result<&RuntimeNode, String> {
        self.world.runtime_nodes.get(name).map(AsRef::as_ref).ok_or_else(|| format!("RuntimeNode {name} is gone"))
    }

    async fn spec(&self, node: &RuntimeNode, fields: Value) -> Result<(), String> {
        self.context.writes.patch(node, json!({ "spec": fields })).await.map(drop)
    }

    /// Of the version that was seen: a cordon that somebody else makes or takes back meanwhile makes this fail, and it is looked at again.
    async fn schedule(&self, name: &str, fields: Value) -> Result<(), String> {
        let Some(node) = self.world.nodes.get(name) else { return Ok(()) };
        self.context.writes.patch(node.as_ref(), fields).await.map(drop)
    }

    async fn grant(&self, node: &str, grant: &Grant) -> Result<(), String> {
        let expires = time::text(grant.expires);
        let grant = json!({"revision": grant.revision.0, "disruption": to_crd(grant.disruption), "expiresAt": expires});
        let of_it = self.all.iter().find(|running| running.pool.nodes.contains(node));
        let control_plane = of_it.is_some_and(|running| asks_for_control_plane(&running.rollout));
        self.spec(self.object(node)?, json!({"grant": grant, "controlPlane": control_plane})).await
    }

    async fn evict(&self, node: &str) -> Result<(), String> {
        let mut result = Ok(());
        let pods = self.drains.get(node).into_iter().flat_map(|drain| &drain.evict);
        for pod in pods.filter(|p| p.metadata.deletion_timestamp.is_none()) {
            // What is refused is told when its time is over, and holds up no other pod.
            result = result.and(self.context.writes.evict(pod).await.map(drop));
        }
        result
    }

    async fn postpone(&self, name: &str, back_to: Option<&Revision>, until: u64, why: Why) -> Result<(), String> {
        let node = self.object(name)?;
        let drain = self.drains.get(name);
        let (reason, because) = match why {
            Why::DrainTimedOut => (
                "DrainTimedOut",
                format!(
                    "could not be evicted in time: {}",
                    drain.map(|d| d.rest(|pod| self.context.writes.refusal(pod))).unwrap_or_default()
                ),
            ),
            Why::PodsBlock => ("DrainBlocked", drain.map(|d| d.blocks.join("; ")).unwrap_or_default()),
            Why::GrantExpired => ("GrantExpired", "its agent did not use its leave to be interrupted".to_owned()),
            Why::LeaveUnused { times } => (
                "GrantExpired",
                format!("its agent began nothing under its leave to be interrupted, {times} of {UNUSED_LEAVES} times"),
            ),
            Why::Held => ("Held", "somebody asked to leave it alone, or works on it".to_owned()),
            Why::NotReady => ("NodeNotReady", "it is not Ready, and nothing was begun there".to_owned()),
            Why::AgentDown => ("AgentNotRunning", self.agent_of(name)),
            Why::NotStaged => (
                "NotStaged",
                "its agent has not put that version of the runtime there yet; it is told again once it has".to_owned(),
            ),
            Why::Stopped => ("Stopped", "the rollout does not go on; it keeps what it has".to_owned()),
        };
        let later = until > self.now;
        let because: String = because.chars().take(900).collect();
        let unused = if let Why::LeaveUnused { times } = why { Some(times) } else { None };
        let trouble = later || unused.is_some();
        let mut fields = json!({"grant": null, "postponedUntil": later.then(|| time::text(until)),
            "postponedBecause": trouble.then_some(&because)});
        if let Some(times) = unused {
            let revision = &node.spec.desired_revision;
            fields["unusedLeave"] = json!({"revision": revision, "times": times, "at": time::text(self.now)});
        }
        if node.spec.desired_revision.as_ref() != back_to.map(|r| &r.0) {
            fields["desiredRevision"] = json!(back_to.map(|r| &r.0));
            fields["desiredSince"] = json!(time::text(self.now));
        }
        self.spec(node, fields).await?;
        let note = if later { format!("{because}; it gets another turn at {}", time::text(until)) } else { because };
        let events = &self.context.events;
        if trouble {
            events.warning(node, reason, note).await
        } else {
            events.normal(node, reason, note).await
        }
        Ok(())
    }

    /// What keeps a node's agent from running.
    fn agent_of(&self, node: &str) -> String {
        match self.world.agents.get(node).map(|pod| agent(pod)) {
            Some(Agent::Down(trouble)) => format!("its agent does not run: {}", trouble.message),
            _ => "its agent does not run".to_owned(),
        }
    }

    async fn tell(&self, running: &Running, name: &str, revision: &Revision) -> Result<(), String> {
        let node = self.object(name)?;
        let good = running.rollout.last_known_good.as_ref().filter(|good| *good != revision);
        // What it goes back to stays known while it has nothing better.
        let before = || node.spec.fallback_revision.clone().filter(|name| *name != revision.0);
        let fallback = good.map(|good| good.0.clone()).or_else(before);
        // A retry may be of the next second (`requests::after_orders`), and this is what it asks for.
        let status = self.world.revisions.get(&revision.0).and_then(|r| r.status.as_ref());
        let since = status.and_then(|s| time::of(s.retried_at.as_ref())).map_or(self.now, |again| again.max(self.now));
        let mut fields = json!({"desiredRevision": revision.0, "desiredSince": time::text(since), "fallbackRevision": fallback,
            "controlPlane": asks_for_control_plane(&running.rollout), "grant": null, "postponedUntil": null, "postponedBecause": null});
        // Leave that it did not use stays known where it goes back for that.
        let counts = unused(self.world, &node.spec).is_some_and(|unused| unused.revision == revision.0);
        if *revision == running.rollout.target && !counts {
            fields["unusedLeave"] = Value::Null;
        }
        self.spec(node, fields).await
    }

    async fn graduate(&self, running: &Running, revision: &Revision) -> Result<(), String> {
        let have: Vec<_> = running.nodes.iter().filter(|n| n.has(revision)).collect();
        // Not before any of them was told, whatever the clock of whoever told them showed: they are the ones that it came through on.
        let since = have.iter().filter_map(|n| n.desired.as_ref()).map(|(_, told)| *told).fold(self.now, u64::max);
        let message = format!("{} nodes have come through", have.len());
        let Some(object) = self.world.revisions.get(&revision.0) else { return Ok(()) };
        let pools = self.all.iter().filter(|r| r.rollout.target == *revision).map(|r| &r.pool);
        let inherited = inherited(self.world, object, pools);
        let status = came_through(self.world, object, (&running.pool.key(), since), inherited, &message);
        if self.context.writes.patch_status::<RuntimeRevision>(object.as_ref(), status).await? == Done::Stale {
            return Ok(());
        }
        // Of nodes that joined since, nobody waits to be told.
        if running.rollout.last_known_good.as_ref() == Some(revision) {
            return Ok(());
        }
        let note = format!("{revision}: {message}");
        for config in self.configs([running]) {
            self.context.events.normal(config, "RolloutComplete", note.clone()).await;
        }
        Ok(())
    }

    /// Writes that a revision is bad, and says so of the RuntimeConfigs whose nodes leave it: all that are to have it, but those for which it came
    /// through.
    async fn mark_bad(&self, running: &Running, revision: &Revision) -> Result<Done, String> {
        let failed = running.nodes.iter().filter(|n| n.failed.as_ref() == Some(revision));
        let first = failed.min_by_key(|n: &&Node| n.desired.clone());
        let message = match first.map(|n| (&n.name, self.world.runtime_nodes.get(&n.name))) {
            Some((name, Some(node))) => {
                let failed = node.status.as_ref().and_then(|s| s.failed.as_ref());
                match failed.filter(|f| f.revision == revision.0) {
                    Some(failed) => format!("node {name} gave it up: {}", failed.message),
                    None => format!("node {name} was given leave {UNUSED_LEAVES} times, and its agent began nothing"),
                }
            }
            _ => "nodes that were told to have it took too long, or were not well".to_owned(),
        };
        let Some(object) = self.world.revisions.get(&revision.0) else { return Ok(Done::Yes) };
        let status = json!({"verdict": Verdict::Bad, "since": time::text(self.now), "message": message,
            "throughFor": {running.pool.key(): null}});
        if self.context.writes.patch_status::<RuntimeRevision>(object.as_ref(), status).await? == Done::Stale {
            return Ok(Done::Stale);
        }
        let of_it = self.all.iter().filter(|r| r.rollout.target == *revision);
        let others = of_it.filter(|r| !is_through_for(self.world, object, &r.pool.key()));
        let note = format!("{revision}: {message}");
        for config in self.configs(others.chain([running])) {
            self.context.events.warning(config, "RolledBack", note.clone()).await;
        }
        Ok(Done::Yes)
    }

    /// The RuntimeConfigs of rollouts, each once.
    fn configs<'r>(&self, of: impl IntoIterator<Item = &'r Running>) -> Vec<&RuntimeConfigObject> {
        let names: BTreeSet<&String> = of.into_iter().flat_map(|running| &running.pool.configs).collect();
        names.into_iter().filter_map(|name| self.world.configs.get(name)).map(AsRef::as_ref).collect()
    }
}

/// How many nodes are told to have each revision, in its status.
pub(super) async fn counts(context: &Context, world: &World) -> Result<(), String> {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for node in world.runtime_nodes.values() {
        for name in [&node.spec.desired_revision, &node.spec.policy_revision].into_iter().flatten() {
            *counts.entry(name).or_default() += 1;
        }
    }
    let bad = |r: &&Arc<RuntimeRevision>| r.status.as_ref().and_then(|s| s.verdict) == Some(Verdict::Bad);
    context.metrics.bad_revisions(world.revisions.values().filter(bad).count());
    let mut result = Ok(());
    for (name, revision) in &world.revisions {
        let count = counts.get(name.as_str()).copied().unwrap_or(0);
        if revision.status.as_ref().map_or(0, |s| s.nodes) != count {
            result =
                result.and(context.writes.patch_status(revision.as_ref(), json!({ "nodes": count })).await.map(drop));
        }
    }
    result
}
