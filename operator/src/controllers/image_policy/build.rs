//! The set of policies that nodes are to enforce. Pure.
use super::validate::Refusal;
use crate::cluster::World;
use berth_crds::{ImagePolicy, RevisionPolicy, RuntimeRevision, RuntimeRevisionSpec};
use std::collections::BTreeMap;

/// The set, with its name. Of a policy that is refused, what nodes were told of it before stays in it.
pub(super) fn set(world: &World, judged: &BTreeMap<String, Result<ImagePolicy, Refusal>>) -> RuntimeRevision {
    let before = in_force(world).map(|revision| revision.spec.policies.clone().unwrap_or_default()).unwrap_or_default();
    let accepted = judged.iter().filter_map(|(name, policy)| policy.as_ref().ok().map(|p| (name.as_str(), &p.spec)));
    let mut spec = RuntimeRevisionSpec::of_policies(accepted);
    let kept = before.into_iter().filter(|policy| judged.get(&policy.name).is_some_and(Result::is_err));
    let list: &mut Vec<RevisionPolicy> = spec.policies.get_or_insert_default();
    list.extend(kept);
    list.sort_by(|a, b| a.name.cmp(&b.name));
    RuntimeRevision::new(&spec.name(), spec)
}

/// The set that most nodes were told of.
fn in_force(world: &World) -> Option<&RuntimeRevision> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for node in world.runtime_nodes.values() {
        if let Some(name) = &node.spec.policy_revision {
            *counts.entry(name).or_default() += 1;
        }
    }
    let (name, _) = counts.into_iter().max_by_key(|(name, count)| (*count, *name))?;
    world.revisions.get(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_crds::{RuntimeNode, RuntimeNodeSpec};
    use kube::ResourceExt;

    #[test]
    fn what_is_refused_stays_as_it_was() {
        let policy = |mode: &str| {
            let text = format!(
                "apiVersion: berth.dev/v1alpha1\nkind: ImagePolicy\nmetadata: {{name: p}}\nspec: {{mode: {mode}}}\n"
            );
            let Some(berth_crds::Document::ImagePolicy(policy)) = berth_crds::parse_documents(&text).unwrap().pop()
            else {
                panic!()
            };
            *policy
        };
        let mut world = World::default();
        let first = set(&world, &BTreeMap::from([("p".to_owned(), Ok(policy("Enforce")))]));
        world.revisions.insert(first.name_any(), first.clone());
        let spec = RuntimeNodeSpec { policy_revision: Some(first.name_any()), ..Default::default() };
        world.runtime_nodes.insert("n".to_owned(), RuntimeNode::new("n", spec));
        let refused = Refusal { reason: "Invalid", message: String::new() };
        let second = set(&world, &BTreeMap::from([("p".to_owned(), Err(refused))]));
        assert_eq!(second.name_any(), first.name_any(), "refused: as before");
        let gone = set(&world, &BTreeMap::new());
        assert_eq!(gone.spec.policies, Some(Vec::new()), "removed: gone");
    }
}
