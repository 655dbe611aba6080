//! Which policies have room in the set: it is one object, and ends at a number of policies and of bytes. Pure.
//!
//! What nodes were told of a policy keeps its room as long as the policy is there, and an edit that needs more of it, or a new policy,
//! gets what is left, the oldest policy first. So whoever may write one policy takes no other one out of the set, and an edit that
//! does not fit leaves in force what was in force of it.
use super::validate::Refusal;
use berth_crds::{MAX_REVISION, RevisionPolicy};
use std::collections::BTreeMap;

/// Most policies of a set, as the definition of RuntimeRevision has it.
pub(super) const MAX_POLICIES: usize = 200;

/// Policies by name.
pub(super) type Policies = BTreeMap<String, RevisionPolicy>;

/// Those of `fresh` that have no room, with the reason. `kept` is what nodes were told of all policies that there are, `by_age` the names
/// of `fresh`, the oldest first.
pub(super) fn without_room(fresh: &Policies, kept: &Policies, by_age: &[&str]) -> BTreeMap<String, Refusal> {
    let mut room = Room::taken_by(kept);
    let grows = |name: &str| match (fresh.get(name), kept.get(name)) {
        (Some(new), Some(old)) => size(new) > size(old),
        _ => true,
    };
    // What grows nothing makes room for others.
    let (growing, others): (Vec<&str>, Vec<&str>) = by_age.iter().copied().partition(|name| grows(name));
    let mut refused = BTreeMap::new();
    for name in others.into_iter().chain(growing) {
        let Some(new) = fresh.get(name) else { continue };
        if let Err(problem) = room.take(kept.get(name), new) {
            let message = format!(
                "it has no room in the set of all policies: {problem}; what is in force, and older policies, come first; remove policies, or make them smaller or one of several"
            );
            refused.insert(name.to_owned(), Refusal { reason: "SetTooLarge", message });
        }
    }
    refused
}

/// What is taken of a set.
struct Room {
    policies: usize,
    bytes: usize,
}

impl Room {
    fn taken_by(kept: &Policies) -> Self {
        let empty = r#"{"policies":[]}"#.len();
        Self { policies: kept.len(), bytes: empty + kept.values().map(size).sum::<usize>() }
    }

    /// Puts a policy into the place of what was kept of it. Errors: the limit that it would break; nothing has changed then.
    fn take(&mut self, old: Option<&RevisionPolicy>, new: &RevisionPolicy) -> Result<(), String> {
        let policies = self.policies + usize::from(old.is_none());
        let bytes = self.bytes - old.map_or(0, size) + size(new);
        if policies > MAX_POLICIES && policies > self.policies {
            return Err(format!("with it there would be {policies} policies, the limit is {MAX_POLICIES}"));
        }
        if bytes > MAX_REVISION && bytes > self.bytes {
            return Err(format!("with it the set would be {bytes} bytes long, the limit is {MAX_REVISION}"));
        }
        *self = Self { policies, bytes };
        Ok(())
    }
}

/// Bytes of a policy in a set, with a comma.
fn size(policy: &RevisionPolicy) -> usize {
    serde_json::to_vec(policy).map_or(MAX_REVISION, |text| text.len()) + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_crds::RuntimeRevisionSpec;
    use serde_json::json;

    /// Policies of about so many KiB each.
    fn policies(all: &[(&str, usize)]) -> Policies {
        let one = |(name, kib): &(&str, usize)| {
            let spec = json!({"mode": "Enforce", "registries": {"deny": ["x".repeat(kib << 10)]}});
            ((*name).to_owned(), RevisionPolicy { name: (*name).to_owned(), spec })
        };
        all.iter().map(one).collect()
    }

    fn refused(fresh: &[(&str, usize)], kept: &[(&str, usize)], by_age: &[&str]) -> Vec<String> {
        without_room(&policies(fresh), &policies(kept), by_age).into_keys().collect()
    }

    #[test]
    fn the_oldest_come_first() {
        let all = [("a", 600), ("b", 600), ("c", 300)];
        assert_eq!(refused(&all, &[], &["b", "a", "c"]), ["a"], "what is younger and fits is taken");
        assert_eq!(refused(&all, &[], &["a", "c", "b"]), ["b"]);
        assert_eq!(refused(&[("a", 1100)], &[], &["a"]), ["a"], "it alone is too large");
        let refusal = &without_room(&policies(&all), &policies(&[]), &["a", "b", "c"])["b"];
        for word in ["1048576", "remove policies", "in force"] {
            assert!(refusal.reason == "SetTooLarge" && refusal.message.contains(word), "{refusal:?}");
        }
    }

    #[test]
    fn what_is_in_force_keeps_its_room() {
        let kept = [("old", 100), ("young", 500)];
        let all = ["old", "young"];
        assert_eq!(refused(&[("old", 700), ("young", 500)], &kept, &all), ["old"], "an older one pushes nobody out");
        assert_eq!(refused(&[("old", 400), ("young", 500)], &kept, &all), [""; 0]);
        assert_eq!(refused(&[("old", 100), ("young", 950)], &kept, &all), ["young"]);
        assert_eq!(refused(&[("old", 900), ("young", 50)], &kept, &all), [""; 0], "what another one gives up is free");
        // What was refused for another reason is not among the fresh ones, and stays.
        assert_eq!(refused(&[("old", 700)], &kept, &["old"]), ["old"]);
        let too_much = [("old", 600), ("young", 600)];
        assert_eq!(refused(&[("old", 600), ("young", 550)], &too_much, &all), [""; 0], "smaller is always taken");
    }

    #[test]
    fn there_is_a_limit_on_their_number() {
        let names: Vec<String> = (0..=MAX_POLICIES).map(|n| format!("p{n:03}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let all: Vec<(&str, usize)> = names.iter().map(|name| (*name, 0)).collect();
        assert_eq!(refused(&all, &[], &names), ["p200"]);
        assert_eq!(refused(&all, &all[1..], &names), ["p000"], "the others are in force");
        let refusal = &without_room(&policies(&all), &policies(&all[1..]), &names)["p000"];
        assert!(refusal.message.contains("201 policies, the limit is 200"), "{refusal:?}");
    }

    #[test]
    fn sizes_are_those_of_the_object() {
        for all in [vec![("a", 1)], vec![("a", 1), ("b", 2)]] {
            let policies = policies(&all);
            let spec = RuntimeRevisionSpec { policies: Some(policies.values().cloned().collect()), runtime: None };
            // One comma less.
            assert_eq!(Room::taken_by(&policies).bytes, serde_json::to_vec(&spec).unwrap().len() + 1);
        }
    }
}
