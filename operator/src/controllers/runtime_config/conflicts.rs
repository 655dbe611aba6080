//! Fields that RuntimeConfigs of equal priority set differently, and what counts of each, in words. Pure.
use super::build::Pool;
use berth_crds::{FieldConflict, RuntimeConfigSpec, all_fields};
use std::collections::BTreeSet;

/// What only the operator follows; it is no part of a revision, so that nodes keep nothing of it.
const ROLLOUT: &str = "spec.rollout.";

/// All conflicts of a RuntimeConfig as one sentence, if there are any.
pub(super) fn words(conflicts: &[FieldConflict], pools: &[Pool], name: &str) -> Option<String> {
    if conflicts.is_empty() {
        return None;
    }
    let one = |conflict: &FieldConflict| {
        let (field, with) = (&conflict.field, conflict.with.join(", "));
        format!("{field} with {with} ({})", counting(field, pools, name))
    };
    let all: Vec<_> = conflicts.iter().map(one).collect();
    Some(format!("equal priority, different values: {}; give one of them another priority", all.join("; ")))
}

/// Which value of a field counts.
fn counting(field: &str, pools: &[Pool], name: &str) -> String {
    if !field.starts_with(ROLLOUT) {
        return "each node keeps what was last applied, or the default".to_owned();
    }
    let of_it = |pool: &&Pool| pool.conflicts.get(field).is_some_and(|names| names.contains(name));
    let values: BTreeSet<String> = pools.iter().filter(of_it).filter_map(|pool| value(field, pool)).collect();
    match values.is_empty() {
        // Its pools are left out: they have no rollout.
        true => "nothing is rolled out".to_owned(),
        false => format!("it is {}", values.into_iter().collect::<Vec<_>>().join(" or ")),
    }
}

/// The value that a pool's rollout follows.
fn value(field: &str, pool: &Pool) -> Option<String> {
    let spec = RuntimeConfigSpec { rollout: pool.rollout.clone(), ..Default::default() };
    let row = all_fields().find(|row| row.path == field)?;
    let value = row.value(&spec)?;
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Some(if row.set(&spec).is_some() { text } else { format!("{text}, the default") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_crds::{IntOrPercent, Rollout, RuntimeRevision};
    use std::collections::BTreeMap;

    fn pool(rollout: Rollout, fields: &[&str], names: [&str; 2]) -> Pool {
        let names = BTreeSet::from(names.map(str::to_owned));
        Pool {
            configs: names.clone(),
            nodes: BTreeSet::new(),
            frozen: BTreeSet::new(),
            target: RuntimeRevision::new("config-0", Default::default()),
            sources: Default::default(),
            config: RuntimeConfigSpec::default(),
            rollout,
            conflicts: fields.iter().map(|field| ((*field).to_owned(), names.clone())).collect::<BTreeMap<_, _>>(),
        }
    }

    #[test]
    fn the_value_that_counts_is_told() {
        let (paused, flight, timeout) = ("spec.rollout.paused", "spec.rollout.maxInFlight", "spec.rollout.nodeTimeout");
        let rollout = |most: u32| Rollout {
            paused: Some(true),
            max_in_flight: Some(IntOrPercent::Int(most)),
            ..Default::default()
        };
        let pools = [
            pool(rollout(2), &[paused, flight, timeout], ["a", "b"]),
            pool(rollout(3), &[flight], ["a", "c"]),
            pool(rollout(4), &[], ["a", "d"]),
        ];
        let conflict = |field: &str| FieldConflict { field: field.to_owned(), with: vec!["b".to_owned()] };
        let all = [paused, flight, timeout, "spec.runtime.pidsLimit"].map(conflict);
        let told = words(&all, &pools, "a").unwrap();
        for part in [
            "spec.rollout.paused with b (it is true)",
            "spec.rollout.maxInFlight with b (it is 2 or 3)",
            "spec.rollout.nodeTimeout with b (it is 15m, the default)",
            "spec.runtime.pidsLimit with b (each node keeps what was last applied, or the default)",
            "give one of them another priority",
        ] {
            assert!(told.contains(part), "{part:?} is not in: {told}");
        }
        assert!(words(&all[..1], &pools, "d").unwrap().contains("nothing is rolled out"));
        assert_eq!(words(&[], &pools, "a"), None);
    }
}
