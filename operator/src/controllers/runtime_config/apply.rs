//! Revisions are made when something is to have them, and removed when nothing refers to them any more, but for the last few. Each says where its fields
//! come from.
use super::super::Context;
use super::build::Rendered;
use super::sources;
use crate::cluster::World;
use berth_crds::{RuntimeRevision, Verdict};
use kube::ResourceExt;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// Revisions that are kept though nothing refers to them: what a user may want to go back to or look at.
const HISTORY: usize = 10;

pub(super) async fn apply(context: &Context, world: &World, rendered: &mut Rendered) -> Result<(), String> {
    let (refused, mut result) = write(context, world, rendered).await;
    for pool in std::mem::take(&mut rendered.pools) {
        match refused.get(&pool.target()) {
            Some(e) => {
                let message = format!("the API server does not take its revision: {e}");
                rendered.leave_out(&pool, "RevisionNotTaken", &message);
            }
            None => rendered.pools.push(pool),
        }
    }
    for revision in unused(world, rendered) {
        result = result.and(context.writes.delete(revision).await.map(drop));
    }
    result
}

/// Makes the revisions that are not there, and says of all that pools are to have where they come from, right after they are made: before any node
/// is told to have one. Returns those that the API server does not take, and the first error.
async fn write(
    context: &Context,
    world: &World,
    rendered: &Rendered,
) -> (BTreeMap<String, String>, Result<(), String>) {
    let (mut refused, mut result) = (BTreeMap::new(), Ok(()));
    // A node that keeps what it has may have it of a RuntimeConfig that no pool names now.
    let keep = !all_is_known(world, rendered);
    for (name, (target, sources)) in sources::of_targets(&rendered.pools) {
        let there = match world.revisions.get(&name) {
            Some(there) => Ok(Some(Cow::Borrowed(there.as_ref()))),
            None => context.writes.make(target).await.map(|made| made.map(Cow::Owned)),
        };
        let told = match there {
            Ok(Some(revision)) => tell(context, (&name, &revision), sources::change(&revision, &sources, keep)).await,
            // Made by somebody else a moment ago: the next pass sees it.
            Ok(None) => Ok(()),
            Err(e) => {
                refused.insert(name, e.clone());
                Err(e)
            }
        };
        result = result.and(told);
    }
    (refused, result)
}

async fn tell(
    context: &Context,
    (name, revision): (&str, &RuntimeRevision),
    change: Option<Value>,
) -> Result<(), String> {
    let Some(change) = change else { return Ok(()) };
    let version = json!(revision.resource_version());
    let status = json!({ "sources": change });
    // Changed meanwhile: its change comes, and with it the next pass.
    context.writes.patch_status_at::<RuntimeRevision>(name, version, status).await.map(drop)
}

/// Whether it is known of each node what it is to have.
fn all_is_known(world: &World, rendered: &Rendered) -> bool {
    rendered.frozen.is_empty() && world.broken_nodes.is_empty() && world.broken_runtime_nodes.is_empty()
}

/// Revisions to remove, of configurations and of policies. While something is frozen nothing is: what its nodes need is not known.
fn unused<'a>(world: &'a World, rendered: &Rendered) -> Vec<&'a RuntimeRevision> {
    if !all_is_known(world, rendered) {
        return Vec::new();
    }
    let mut used: BTreeSet<String> = rendered.pools.iter().map(|pool| pool.target()).collect();
    for node in world.runtime_nodes.values() {
        let spec = &node.spec;
        used.extend(
            [&spec.desired_revision, &spec.fallback_revision, &spec.policy_revision].into_iter().flatten().cloned(),
        );
        let Some(status) = &node.status else { continue };
        let names =
            [&status.current_revision, &status.loaded_revision, &status.last_known_good, &status.policy_revision];
        used.extend(names.into_iter().flatten().cloned());
    }
    let mut idle: Vec<&RuntimeRevision> =
        world.revisions.iter().filter(|(name, _)| !used.contains(*name)).map(|(_, r)| r.as_ref()).collect();
    // The youngest are kept, and those that are known to be bad before others: forgetting one would hand it out again.
    let bad = |r: &RuntimeRevision| r.status.as_ref().and_then(|s| s.verdict) == Some(Verdict::Bad);
    idle.sort_by_key(|r| std::cmp::Reverse((bad(r), r.creation_timestamp().map(|t| t.0))));
    idle.split_off(idle.len().min(HISTORY))
}
