//! What people ask of a rollout by annotations of a RuntimeConfig: to take revisions back, or to try some again that failed. Each is done once
//! and the annotation removed, in this order: the status of the revisions, that of the RuntimeConfig, the annotation. So whoever waits until the
//! annotation is gone reads what came of it. (A pause is a field: `spec.rollout.paused`.)
use super::super::Context;
use super::super::runtime_config::Pool;
use super::build::{is_through_for, through_keys};
use crate::cluster::World;
use crate::cluster::writes;
use crate::time;
use berth_crds::{RuntimeConfigObject, RuntimeRevision, Verdict};
use kube::ResourceExt;
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

/// Names a revision that is to be taken back: from then on it is bad.
const UNDO: &str = "berth.dev/undo";
/// Names a revision that is to be tried again: a bad one by all, another one by the nodes that it failed on.
const RETRY: &str = "berth.dev/retry";
/// Instead of a name: all revisions that nodes of the RuntimeConfig are to have.
const ALL: &str = "all";

/// What was asked for and is done.
#[derive(Debug, Clone, Default)]
pub struct Answers {
    done: Vec<Done>,
    /// What revisions are from now on.
    revisions: BTreeMap<String, Arc<RuntimeRevision>>,
}

/// A request that is done.
#[derive(Debug, Clone)]
struct Done {
    config: String,
    annotation: &'static str,
    value: String,
    /// It was about nothing, and why.
    nothing: Option<String>,
}

/// What was written of revisions and no watch has brought yet: the next pass must not take back what this one said of it.
#[derive(Debug, Clone, Default)]
pub struct Written(Arc<Mutex<BTreeMap<String, Arc<RuntimeRevision>>>>);

impl Written {
    /// Those of which the world has the version yet that was written to.
    fn not_seen(&self, world: &World) -> BTreeMap<String, Arc<RuntimeRevision>> {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let version = |object: &Arc<RuntimeRevision>| object.resource_version();
        written.retain(|name, object| world.revisions.get(name).is_some_and(|seen| version(seen) == version(object)));
        written.clone()
    }

    fn keep(&self, revisions: &BTreeMap<String, Arc<RuntimeRevision>>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone_from(revisions);
    }
}

impl Answers {
    /// The cluster with what was written, which the watches bring only later: who reads the status that this pass writes finds his request in it.
    pub fn seen<'a>(&self, world: &'a World) -> Cow<'a, World> {
        let mut world = Cow::Borrowed(world);
        for (name, revision) in &self.revisions {
            world.to_mut().revisions.insert(name.clone(), Arc::clone(revision));
        }
        world
    }
}

/// Answers requests in the status of revisions. The requests stay ([`close`]). Errors: the last one; all others had their turn.
pub async fn answer(context: &Context, world: &World, pools: &[Pool], now: u64) -> (Answers, Result<(), String>) {
    let revisions = context.written.not_seen(world);
    let (mut answers, mut failed) = (Answers { revisions, ..Default::default() }, Ok(()));
    for (name, config) in &world.configs {
        for annotation in [UNDO, RETRY] {
            let Some(value) = config.annotations().get(annotation) else { continue };
            let targets = targets(world, pools, name, value);
            // One object's trouble is no other's.
            let request = Request { world, annotation, config: name, pools };
            match one(context, world, &request, &targets, &mut answers.revisions, now).await {
                Ok(false) => {}
                Ok(true) => answers.done.push(Done {
                    config: name.clone(),
                    annotation,
                    value: value.clone(),
                    nothing: targets.is_empty().then(|| nothing(world, value)),
                }),
                Err(e) => failed = Err(format!("{annotation} of RuntimeConfig {name}: {e}")),
            }
        }
    }
    context.written.keep(&answers.revisions);
    (answers, failed)
}

/// Removes the requests that are done: once a request is gone, the status of its RuntimeConfig says what came of it. Not of those whose status could
/// not be written (`untold`, by name): they are answered again. Errors: the last one; all others had their turn.
pub async fn close(
    context: &Context,
    world: &World,
    answers: &Answers,
    untold: &BTreeSet<String>,
) -> Result<(), String> {
    let mut failed = Ok(());
    for Done { config, annotation, value, nothing } in answers.done.iter().filter(|d| !untold.contains(&d.config)) {
        let removed = context.writes.unannotate::<RuntimeConfigObject>(config, annotation, value).await;
        if let (Ok(writes::Done::Yes), Some(note), Some(object)) = (&removed, nothing, world.configs.get(config)) {
            context.events.warning(object.as_ref(), "UnknownRevision", note.clone()).await;
        }
        if let Err(e) = removed {
            failed = Err(format!("{annotation} of RuntimeConfig {config}: {e}"));
        }
    }
    failed
}

/// The revisions that a request is about. Of one that is none of its own an object may not decide; one that is not understood is not written to, and
/// keeps no other one from its answer.
fn targets(world: &World, pools: &[Pool], config: &str, value: &str) -> BTreeSet<String> {
    let own = pools.iter().filter(|pool| pool.configs.contains(config)).map(Pool::target);
    let understood = own.filter(|target| !world.broken_revisions.contains_key(target));
    understood.filter(|target| value == ALL || target == value).collect()
}

/// Returns whether it is done.
async fn one(
    context: &Context,
    world: &World,
    request: &Request<'_>,
    targets: &BTreeSet<String>,
    revisions: &mut BTreeMap<String, Arc<RuntimeRevision>>,
    now: u64,
) -> Result<bool, String> {
    for name in targets {
        // One that was made a moment ago is not seen yet.
        let Some(object) = revisions.get(name).or_else(|| world.revisions.get(name)) else { return Ok(false) };
        let at = after_orders(world, name, now);
        let Some(status) = request.makes_of(object, at) else { continue };
        if context.writes.patch_status(object.as_ref(), status.clone()).await? == writes::Done::Stale {
            return Ok(false);
        }
        let after = with_status(object, &status)?;
        revisions.insert(name.clone(), Arc::new(after));
    }
    Ok(true)
}

/// An object as it is after a merge patch (RFC 7396) of fields of its status. Its version stays the one that was seen: whoever writes to it in
/// this pass finds it changed.
fn with_status(object: &RuntimeRevision, fields: &Value) -> Result<RuntimeRevision, String> {
    let mut status = json!(object.status.clone().unwrap_or_default());
    merge(&mut status, fields);
    let status = serde_json::from_value(status).map_err(|e| e.to_string())?;
    Ok(RuntimeRevision { status: Some(status), ..object.clone() })
}

fn merge(into: &mut Value, patch: &Value) {
    match (&mut *into, patch) {
        (Value::Object(fields), Value::Object(patch)) => {
            for (name, value) in patch {
                if value.is_null() {
                    fields.remove(name);
                } else {
                    merge(fields.entry(name.as_str()).or_insert_with(|| json!({})), value);
                }
            }
        }
        // Whatever was there makes way; of an object, its nulls too.
        (_, Value::Object(_)) => {
            *into = json!({});
            merge(into, patch);
        }
        _ => *into = patch.clone(),
    }
}

/// Why a request is about nothing.
fn nothing(world: &World, value: &str) -> String {
    match world.broken_revisions.get(value) {
        Some(broken) => format!("this version does not understand {value}: {}", broken.error),
        None if value == ALL => {
            "no node of this RuntimeConfig is to have a revision that this version understands".to_owned()
        }
        None => format!("{value} is not what nodes of this RuntimeConfig are to have"),
    }
}

/// A time that no order to have a revision is of, and no failure to have it answers: times are in seconds, and a node that was told, failed and is
/// to try again within one of them would be taken for one that failed again.
fn after_orders(world: &World, revision: &str, now: u64) -> u64 {
    let orders = world.runtime_nodes.values().flat_map(|node| {
        let told = node.spec.desired_since.as_ref().filter(|_| node.spec.desired_revision.as_deref() == Some(revision));
        let failed = node.status.as_ref().and_then(|s| s.failed.as_ref()).filter(|f| f.revision == revision);
        [time::of(told), failed.and_then(|f| time::of(f.desired_since.as_ref()).or_else(|| time::seconds(&f.at)))]
    });
    orders.flatten().map(|at| at.saturating_add(1)).fold(now, u64::max)
}

/// What somebody asks by an annotation of a RuntimeConfig.
struct Request<'a> {
    world: &'a World,
    annotation: &'a str,
    config: &'a str,
    pools: &'a [Pool],
}

impl Request<'_> {
    /// What it makes of a revision's status, as a merge patch; `None`: nothing.
    fn makes_of(&self, object: &RuntimeRevision, now: u64) -> Option<Value> {
        let message = format!("by the annotation {} of RuntimeConfig {}", self.annotation, self.config);
        let verdict = object.status.as_ref().and_then(|s| s.verdict);
        if self.annotation == UNDO {
            let with = object.status.iter().flat_map(|s| s.through_with(self.config));
            let own = self.own(object);
            let had = own.iter().flat_map(|pool| through_keys(self.world, object, &pool.key()));
            let none: Map<String, Value> = with.chain(had).map(|key| (key.clone(), Value::Null)).collect();
            // Why it is bad already, stays known.
            if verdict == Some(Verdict::Bad) {
                return (!none.is_empty()).then(|| json!({ "throughFor": none }));
            }
            let (bad, since) = (Verdict::Bad, time::text(now));
            return Some(json!({"verdict": bad, "since": since, "message": message, "throughFor": none}));
        }
        Some(match verdict {
            // It came through: only those that it failed on try it again.
            Some(Verdict::Good) => json!({"retriedAt": time::text(now), "message": message}),
            // For these; why it is bad for others stays known.
            Some(Verdict::Bad) if self.is_through(object) => json!({"retriedAt": time::text(now)}),
            _ => json!({"verdict": null, "since": time::text(now), "retriedAt": time::text(now), "message": message}),
        })
    }

    /// Whether a revision came through for all nodes of the RuntimeConfig that are to have it.
    fn is_through(&self, object: &RuntimeRevision) -> bool {
        let own = self.own(object);
        !own.is_empty() && own.iter().all(|pool| is_through_for(self.world, object, &pool.key()))
    }

    /// The pools of the RuntimeConfig that are to have a revision.
    fn own(&self, object: &RuntimeRevision) -> Vec<&Pool> {
        let name = object.name_any();
        self.pools.iter().filter(|pool| pool.configs.contains(self.config) && pool.target() == name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Broken;
    use berth_crds::{Rollout, RuntimeConfigObject, RuntimeConfigSpec, RuntimeRevisionSpec};
    use std::sync::LazyLock;

    fn pool(configs: &[&str], pids: u32) -> Pool {
        let config: RuntimeConfigSpec = serde_json::from_value(json!({"runtime": {"pidsLimit": pids}})).unwrap();
        let spec = RuntimeRevisionSpec::of_runtime("1", &config);
        Pool {
            configs: configs.iter().map(|&name| name.to_owned()).collect(),
            nodes: BTreeSet::new(),
            frozen: BTreeSet::new(),
            target: RuntimeRevision::new(&spec.name(), spec),
            sources: Default::default(),
            config,
            rollout: Rollout::default(),
            conflicts: Default::default(),
        }
    }

    /// With the RuntimeConfigs that are there.
    static WORLD: LazyLock<World> = LazyLock::new(|| {
        let mut world = World::default();
        for name in ["fleet", "blue", "green"] {
            let config = RuntimeConfigObject::new(name, RuntimeConfigSpec::default());
            world.configs.insert(name.to_owned(), Arc::new(config));
        }
        world
    });

    fn request<'a>(annotation: &'a str, config: &'a str, pools: &'a [Pool]) -> Request<'a> {
        Request { world: &WORLD, annotation, config, pools }
    }

    /// What it has from a name that is gone is taken back as well.
    #[test]
    fn who_was_renamed_takes_it_back_all_the_same() {
        let pools = [pool(&["fleet"], 100)];
        let mut object = pools[0].target.clone();
        let before = json!({"verdict": "Good", "throughFor": {"workers": "1", "blue": "2"}});
        object.status = serde_json::from_value(before).unwrap();
        let change = request(UNDO, "fleet", &pools).makes_of(&object, 7).unwrap();
        assert_eq!(change["throughFor"], json!({"workers": null}));
    }

    #[test]
    fn all_is_all_of_its_own_and_a_name_is_one() {
        let pools = [pool(&["fleet"], 100), pool(&["fleet", "blue"], 200), pool(&["green"], 300)];
        let mut world = World::default();
        let of = |world: &World, config: &str, value: &str| {
            targets(world, &pools, config, value).into_iter().collect::<Vec<_>>()
        };
        let mut both = vec![pools[0].target(), pools[1].target()];
        both.sort();
        assert_eq!(of(&world, "fleet", ALL), both);
        assert_eq!(of(&world, "blue", ALL), [pools[1].target()]);
        assert_eq!(of(&world, "fleet", &pools[1].target()), [pools[1].target()]);
        assert!(of(&world, "fleet", &pools[2].target()).is_empty(), "another one's");
        assert!(of(&world, "nobody", ALL).is_empty());
        let (name, error) = (pools[0].target(), "no verdict of this version".to_owned());
        world.broken_revisions.insert(name.clone(), Broken { name: name.clone(), error, object: Value::Null });
        assert_eq!(of(&world, "fleet", ALL), [pools[1].target()], "the other one is answered all the same");
        assert!(of(&world, "fleet", &name).is_empty() && nothing(&world, &name).contains("no verdict of this version"));
    }

    #[test]
    fn what_was_written_is_seen_in_the_same_pass() {
        let mut world = World::default();
        let mut object = pool(&["fleet"], 100).target;
        let before = json!({"verdict": "Bad", "since": "x", "message": "node n gave it up", "nodes": 3});
        object.status = serde_json::from_value(before).unwrap();
        let name = object.name_any();
        let after = with_status(&object, &request(RETRY, "fleet", &[]).makes_of(&object, 7).unwrap()).unwrap();
        world.revisions.insert(name.clone(), Arc::new(object));
        let answers = Answers { done: Vec::new(), revisions: [(name.clone(), Arc::new(after))].into() };
        let seen = answers.seen(&world);
        let status = seen.revisions[&name].status.as_ref().unwrap();
        assert_eq!((status.verdict, status.nodes), (None, 3));
        assert_eq!(status.retried_at, Some(time::text(7)));
        // And in the next one, until a watch brings it.
        let written = Written::default();
        written.keep(&answers.revisions);
        assert!(written.not_seen(&world).contains_key(&name));
        Arc::make_mut(world.revisions.get_mut(&name).unwrap()).metadata.resource_version = Some("2".to_owned());
        assert!(written.not_seen(&world).is_empty(), "what came since counts");
    }

    #[test]
    fn a_retry_is_later_than_what_failed_in_the_same_second() {
        let mut world = World::default();
        let node = |name: &str, fields: Value| {
            let mut object = json!({"apiVersion": "berth.dev/v1alpha1", "kind": "RuntimeNode", "metadata": {"name": name},
                "spec": {"nodeName": name}});
            object.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            (name.to_owned(), Arc::new(serde_json::from_value(object).unwrap()))
        };
        let failed =
            json!({"revision": "r", "reason": "", "message": "", "at": time::text(9), "desiredSince": time::text(7)});
        world.runtime_nodes.extend([node("failed", json!({"status": {"failed": failed}}))]);
        assert_eq!(
            (after_orders(&world, "r", 7), after_orders(&world, "r", 20), after_orders(&world, "q", 7)),
            (8, 20, 7)
        );
        let told = json!({"nodeName": "told", "desiredRevision": "r", "desiredSince": time::text(8)});
        world.runtime_nodes.extend([node("told", json!({ "spec": told }))]);
        assert_eq!(after_orders(&world, "r", 8), 9);
    }

    #[test]
    fn what_is_bad_already_keeps_its_reason() {
        let mut object = pool(&["fleet"], 100).target;
        let asked = |annotation, object: &RuntimeRevision| request(annotation, "fleet", &[]).makes_of(object, 7);
        assert_eq!(asked(UNDO, &object).unwrap()["verdict"], "Bad");
        object.status = serde_json::from_value(json!({"verdict": "Bad", "message": "node n gave it up"})).unwrap();
        assert_eq!(asked(UNDO, &object), None);
        assert!(asked(RETRY, &object).unwrap()["verdict"].is_null());
    }

    #[test]
    fn who_asks_takes_it_back_from_his_own_nodes_where_it_came_through_for_others() {
        let mut object = pool(&["fleet"], 100).target;
        for (verdict, told) in [(json!("Good"), true), (Value::Null, true), (json!("Bad"), false)] {
            let through = json!({"fleet": "1", "blue,fleet": "2", "blue": "3"});
            let before = json!({"verdict": verdict, "message": "before", "throughFor": through});
            object.status = serde_json::from_value(before).unwrap();
            let change = request(UNDO, "fleet", &[]).makes_of(&object, 7).unwrap();
            let status = with_status(&object, &change).unwrap().status.unwrap();
            assert_eq!(status.verdict, Some(Verdict::Bad));
            assert_eq!(status.message.unwrap() != "before", told, "why it is bad stays known");
            assert_eq!(status.through_for, BTreeMap::from([("blue".to_owned(), "3".to_owned())]));
        }
    }

    /// Nodes of his that failed are to try it again, not those of somebody else.
    #[test]
    fn what_is_bad_for_others_stays_that_when_one_retries_for_whom_it_came_through() {
        let pools = [pool(&["fleet"], 100), pool(&["blue"], 100), pool(&["blue", "fleet"], 100), pool(&["fleet"], 200)];
        let mut object = pools[0].target.clone();
        let before = json!({"verdict": "Bad", "throughFor": {"fleet": "1", "blue,fleet": "2"}});
        object.status = serde_json::from_value(before).unwrap();
        for (config, verdict) in [("fleet", Some(Verdict::Bad)), ("blue", None), ("nobody", None)] {
            let change = request(RETRY, config, &pools).makes_of(&object, 7).unwrap();
            let status = with_status(&object, &change).unwrap().status.unwrap();
            assert_eq!((status.verdict, status.through_for.len()), (verdict, 2), "{config}");
            assert_eq!(status.retried_at, Some(time::text(7)));
        }
    }
}
