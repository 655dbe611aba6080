//! Revisions are made when something is to have them, and removed when nothing refers to them any more, but for the last few.
use super::super::Context;
use super::build::Rendered;
use crate::cluster::World;
use berth_crds::{RuntimeRevision, Verdict};
use kube::ResourceExt;
use std::collections::BTreeSet;

/// Revisions that are kept though nothing refers to them: what a user may want to go back to or look at.
const HISTORY: usize = 10;

pub(super) async fn apply(context: &Context, world: &World, rendered: &mut Rendered) -> Result<(), String> {
    let mut result = Ok(());
    for pool in std::mem::take(&mut rendered.pools) {
        if !world.revisions.contains_key(&pool.target())
            && let Err(e) = context.writes.create(&pool.target).await
        {
            rendered.leave_out(&pool, "RevisionNotTaken", &format!("the API server does not take its revision: {e}"));
            result = Err(e);
        } else {
            rendered.pools.push(pool);
        }
    }
    for revision in unused(world, rendered) {
        result = result.and(context.writes.delete(revision).await.map(drop));
    }
    result
}

/// Revisions to remove, of configurations and of policies. While something is frozen nothing is: what its nodes need is not known.
fn unused<'a>(world: &'a World, rendered: &Rendered) -> Vec<&'a RuntimeRevision> {
    let parsed = world.broken_nodes.is_empty() && world.broken_runtime_nodes.is_empty();
    if !rendered.frozen.is_empty() || !parsed {
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
