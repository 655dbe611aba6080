//! What people ask of a rollout by annotations of a RuntimeConfig: to take revisions back, or to try some again that failed. Each is done once
//! and the annotation removed. (A pause is a field: `spec.rollout.paused`.)
use super::super::Context;
use super::super::runtime_config::Pool;
use crate::cluster::World;
use crate::cluster::writes::Done;
use crate::time;
use berth_crds::{RuntimeConfigObject, RuntimeRevision, Verdict};
use kube::ResourceExt;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Names a revision that is to be taken back: from then on it is bad.
const UNDO: &str = "berth.dev/undo";
/// Names a revision that is to be tried again: a bad one by all, another one by the nodes that it failed on.
const RETRY: &str = "berth.dev/retry";
/// Instead of a name: all revisions that nodes of the RuntimeConfig are to have.
const ALL: &str = "all";

pub(super) async fn answer(context: &Context, world: &World, pools: &[Pool], now: u64) -> Result<(), String> {
    let mut failed = Ok(());
    for (name, config) in &world.configs {
        for annotation in [UNDO, RETRY] {
            let Some(value) = config.annotations().get(annotation) else { continue };
            let targets = targets(pools, name, value);
            // One object's trouble is no other's.
            if let Err(e) = one(context, (world, config.as_ref()), annotation, &targets, now).await {
                failed = Err(format!("{annotation} of RuntimeConfig {name}: {e}"));
            }
        }
    }
    failed
}

/// The revisions that a request is about. Of one that is none of its own an object may not decide.
fn targets(pools: &[Pool], config: &str, value: &str) -> BTreeSet<String> {
    let own = pools.iter().filter(|pool| pool.configs.contains(config)).map(Pool::target);
    own.filter(|target| value == ALL || target == value).collect()
}

async fn one(
    context: &Context,
    (world, config): (&World, &RuntimeConfigObject),
    annotation: &str,
    targets: &BTreeSet<String>,
    now: u64,
) -> Result<(), String> {
    for name in targets {
        // The request stays until it is answered: one that was made a moment ago is not seen yet.
        let Some(object) = world.revisions.get(name) else { return Ok(()) };
        let Some(status) = asked(annotation, &config.name_any(), object, now) else { continue };
        if context.writes.patch_status(object.as_ref(), status).await? == Done::Stale {
            return Ok(());
        }
    }
    if targets.is_empty() {
        let value = config.annotations().get(annotation).cloned().unwrap_or_default();
        context.events.warning(config, "UnknownRevision", nothing(world, &value)).await;
    }
    context.writes.patch(config, json!({"metadata": {"annotations": {annotation: null}}})).await.map(drop)
}

/// Why a request is about nothing.
fn nothing(world: &World, value: &str) -> String {
    match world.broken_revisions.get(value) {
        Some(broken) => format!("this version does not understand {value}: {}", broken.error),
        None if value == ALL => "no node of this RuntimeConfig is to have a revision".to_owned(),
        None => format!("{value} is not what nodes of this RuntimeConfig are to have"),
    }
}

/// What an annotation makes of a revision's status; `None`: nothing.
fn asked(annotation: &str, config: &str, object: &RuntimeRevision, now: u64) -> Option<Value> {
    let message = format!("by the annotation {annotation} of RuntimeConfig {config}");
    let verdict = object.status.as_ref().and_then(|s| s.verdict);
    if annotation == UNDO {
        // Why it is bad already, stays known.
        let bad = json!({"verdict": Verdict::Bad, "since": time::text(now), "message": message});
        return (verdict != Some(Verdict::Bad)).then_some(bad);
    }
    Some(match verdict {
        // It came through: only those that it failed on try it again.
        Some(Verdict::Good) => json!({"retriedAt": time::text(now), "message": message}),
        _ => json!({"verdict": null, "since": time::text(now), "retriedAt": time::text(now), "message": message}),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_crds::{Rollout, RuntimeConfigSpec, RuntimeRevisionSpec};

    fn pool(configs: &[&str], pids: u32) -> Pool {
        let config: RuntimeConfigSpec = serde_json::from_value(json!({"runtime": {"pidsLimit": pids}})).unwrap();
        let spec = RuntimeRevisionSpec::of_runtime("1", &config, Default::default());
        Pool {
            configs: configs.iter().map(|&name| name.to_owned()).collect(),
            nodes: BTreeSet::new(),
            frozen: BTreeSet::new(),
            target: RuntimeRevision::new(&spec.name(), spec),
            config,
            rollout: Rollout::default(),
        }
    }

    #[test]
    fn all_is_all_of_its_own_and_a_name_is_one() {
        let pools = [pool(&["fleet"], 100), pool(&["fleet", "blue"], 200), pool(&["green"], 300)];
        let of = |config: &str, value: &str| targets(&pools, config, value).into_iter().collect::<Vec<_>>();
        let mut both = vec![pools[0].target(), pools[1].target()];
        both.sort();
        assert_eq!(of("fleet", ALL), both);
        assert_eq!(of("blue", ALL), [pools[1].target()]);
        assert_eq!(of("fleet", &pools[1].target()), [pools[1].target()]);
        assert!(of("fleet", &pools[2].target()).is_empty(), "another one's");
        assert!(of("nobody", ALL).is_empty());
    }

    #[test]
    fn what_is_bad_already_keeps_its_reason() {
        let mut object = pool(&["fleet"], 100).target;
        assert_eq!(asked(UNDO, "fleet", &object, 7).unwrap()["verdict"], "Bad");
        object.status = serde_json::from_value(json!({"verdict": "Bad", "message": "node n gave it up"})).unwrap();
        assert_eq!(asked(UNDO, "fleet", &object, 7), None);
        assert!(asked(RETRY, "fleet", &object, 7).unwrap()["verdict"].is_null());
    }
}
