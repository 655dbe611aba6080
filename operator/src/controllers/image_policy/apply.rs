//! The set is written, then every node is told of it.
use super::super::Context;
use crate::cluster::World;
use berth_crds::{RuntimeNode, RuntimeRevision};
use kube::ResourceExt;
use serde_json::json;

pub(super) async fn apply(context: &Context, world: &World, set: &RuntimeRevision) -> Result<(), String> {
    let name = set.name_any();
    // What this version cannot parse of it is what others said of it: its name is the hash of its content.
    if !world.revisions.contains_key(&name) && !world.broken_revisions.contains_key(&name) {
        context.writes.create(set).await?;
    }
    let mut failed = Ok(());
    for node in world
        .runtime_nodes
        .values()
        .map(AsRef::as_ref)
        .filter(|n: &&RuntimeNode| n.spec.policy_revision.as_ref() != Some(&name))
    {
        if let Err(e) = context.writes.patch(node, json!({"spec": {"policyRevision": name}})).await {
            failed = Err(e);
        }
    }
    failed
}
