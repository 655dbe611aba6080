//! Whole passes: one object's trouble is no other's.
use crate::server::{Answer, Server, lead, lease, status, until};
use berth_crds::{
    ImagePolicyObject, RuntimeConfigObject, RuntimeNode, RuntimeNodeSpec, RuntimeNodeStatus, RuntimeRevision,
};
use berth_operator::cluster::{Broken, Clock, World, Writes};
use berth_operator::controllers::{Context, Events, pass};
use berth_operator::observe::Metrics;
use kube::ResourceExt;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Two nodes, each selected by the RuntimeConfig of its name.
pub fn world() -> World {
    let mut world = World::default();
    for (name, limit) in [("a", 100), ("b", 200)] {
        let ready = json!([{"type": "Ready", "status": "True"}]);
        let node = json!({"metadata": {"name": name, "uid": name, "resourceVersion": "1", "labels": {"pool": name}},
            "status": {"conditions": ready}});
        world.nodes.insert(name.to_owned(), Arc::new(serde_json::from_value(node).unwrap()));
        let spec = RuntimeNodeSpec { node_name: name.to_owned(), node_uid: name.to_owned(), ..Default::default() };
        world.runtime_nodes.insert(name.to_owned(), Arc::new(versioned(RuntimeNode::new(name, spec))));
        let spec = json!({"nodeSelector": {"matchLabels": {"pool": name}}, "runtime": {"pidsLimit": limit}});
        let config = RuntimeConfigObject::new(name, serde_json::from_value(spec).unwrap());
        world.configs.insert(name.to_owned(), Arc::new(versioned(config)));
    }
    world
}

pub fn versioned<K: ResourceExt>(mut object: K) -> K {
    object.meta_mut().resource_version = Some("1".to_owned());
    object
}

pub async fn run(server: &Server, world: &World) -> Result<(), String> {
    let (leadership, _release) = lead(server.client(), 15).await;
    until("it leads", Duration::from_secs(60), || leadership.held()).await;
    let metrics = Metrics::new("0").unwrap();
    let context = Context {
        writes: Writes::new(server.client(), leadership.clone(), metrics.clone()),
        events: Events::new(server.client(), "me".to_owned(), leadership),
        clock: Clock::default(),
        metrics,
        system_namespaces: vec!["kube-system".to_owned()],
        system_images: Default::default(),
        told: Default::default(),
        written: Default::default(),
        runtime_version: "1.0.0".to_owned(),
    };
    pass(&context, world, 2_000_000_000).await.result
}

/// Takes everything, but what `refuses` says.
pub fn server(refuses: impl Fn(&str, &Value) -> bool + Send + Sync + 'static) -> Server {
    refusing((403, "Forbidden"), refuses)
}

pub fn refusing(
    (code, reason): (u16, &'static str),
    refuses: impl Fn(&str, &Value) -> bool + Send + Sync + 'static,
) -> Server {
    Server::start(move |request| match lease(request) {
        Some(answer) => answer,
        None if refuses(&request.line, &request.body) => status(code, reason),
        None if request.line.starts_with("GET") && request.line.contains("/pods") => {
            Answer::Json(200, json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": []}))
        }
        None => {
            // A JSON patch is a list.
            let mut body = if request.body.is_array() { json!({}) } else { request.body.clone() };
            // What comes back of a patch is read as the whole object.
            body["metadata"] = json!({"name": "x"});
            body["status"] = Value::Null;
            // As is what comes back of an object that this version does not know.
            if ["/newer/", "/tighter/"].iter().any(|name| request.line.contains(name)) {
                body["spec"] = json!({"turbo": true});
            } else if request.line.contains("/imagepolicies") {
                body["spec"]["mode"] = json!("Audit");
            } else if request.line.contains("/runtimenodes") {
                body["spec"]["nodeName"] = json!("x");
            } else if !body["spec"].is_object() {
                body["spec"] = json!({});
            }
            Answer::Json(200, body)
        }
    })
}

pub fn told(server: &Server, node: &str) -> bool {
    let of = format!("/runtimenodes/{node}?");
    server.asked(&of).iter().any(|r| r.body["spec"]["desiredRevision"].is_string())
}

#[tokio::test]
async fn a_revision_that_is_not_taken_leaves_out_its_nodes_alone() {
    let limit = |body: &Value| body["spec"]["runtime"]["config"]["runtime"]["pidsLimit"].clone();
    let server =
        server(move |line, body| line.starts_with("POST") && line.contains("/runtimerevisions") && limit(body) == 100);
    let failed = run(&server, &world()).await.unwrap_err();
    assert!(failed.contains("Forbidden"), "{failed}");
    assert!(!told(&server, "a") && told(&server, "b"), "{:?}", server.asked("PATCH"));
    let of_a = server.asked("/runtimeconfigs/a/status").pop().unwrap();
    let accepted =
        of_a.body["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Accepted").cloned();
    assert_eq!(accepted.unwrap()["reason"], "RevisionNotTaken", "{of_a:?}");
    assert_eq!(server.asked("/runtimeconfigs/b/status").len(), 1, "the others have their status");
}

#[tokio::test]
async fn a_request_by_annotation_that_fails_holds_up_no_rollout() {
    let mut world = world();
    let config = Arc::make_mut(world.configs.get_mut("a").unwrap());
    config.annotations_mut().insert("berth.dev/retry".to_owned(), "config-0".to_owned());
    let server = server(|line, _| line.contains("/runtimeconfigs/a?"));
    run(&server, &world).await.unwrap_err();
    assert!(told(&server, "a") && told(&server, "b"));
}

/// The same world, with the revision that node `a` is to have, one that was good before, and both nodes told. `a` has given the new one up.
pub async fn failed_on_a() -> (World, String) {
    let mut world = world();
    let server = server(|_, _| false);
    run(&server, &world).await.unwrap();
    let name = server
        .asked("/runtimenodes/a?")
        .iter()
        .find_map(|r| r.body["spec"]["desiredRevision"].as_str().map(str::to_owned))
        .unwrap();
    let made =
        server.asked("/runtimerevisions").into_iter().find(|r| r.body["metadata"]["name"] == name.as_str()).unwrap();
    for (of, verdict) in [(name.as_str(), Value::Null), ("config-old", json!("Good"))] {
        let mut object = RuntimeRevision::new(of, serde_json::from_value(made.body["spec"].clone()).unwrap());
        object.status = serde_json::from_value(json!({ "verdict": verdict })).unwrap();
        world.revisions.insert(of.to_owned(), Arc::new(versioned(object)));
    }
    let object = Arc::make_mut(world.runtime_nodes.get_mut("a").unwrap());
    object.spec.desired_revision = Some(name.clone());
    object.spec.desired_since = Some("2026-01-01T00:00:00Z".to_owned());
    let failed = json!({"revision": name, "reason": "Refused", "message": "", "at": "2026-01-01T00:00:01Z"});
    object.status = serde_json::from_value(json!({"currentRevision": "config-old", "failed": failed})).unwrap();
    (world, name)
}

/// Whoever waits for the end of the way back is not told of it before the last node is there.
#[tokio::test]
async fn a_rollout_is_rolled_back_when_its_nodes_are() {
    let (mut world, bad) = failed_on_a().await;
    for (back, reason) in [(false, "RollingBack"), (true, "RolledBack")] {
        if back {
            Arc::make_mut(world.runtime_nodes.get_mut("a").unwrap()).spec.desired_revision =
                Some("config-old".to_owned());
            let revision = Arc::make_mut(world.revisions.get_mut(&bad).unwrap());
            revision.status = serde_json::from_value(json!({"verdict": "Bad"})).unwrap();
        }
        let server = server(|_, _| false);
        run(&server, &world).await.unwrap();
        let status = server.asked("/runtimeconfigs/a/status").pop().unwrap().body["status"].clone();
        let conditions = status["conditions"].as_array().unwrap();
        let of = |kind: &str| conditions.iter().find(|c| c["type"] == kind).unwrap().clone();
        assert_eq!(of("Ready")["reason"], reason, "{status}");
        let told = of("Ready")["message"].as_str().unwrap().starts_with("1 nodes still go back; ");
        assert_eq!(told, !back, "{status}");
        let word = |holds: bool| if holds { "True" } else { "False" };
        assert_eq!(
            (&of("RolledBack")["status"], &of("Progressing")["status"]),
            (&json!(word(back)), &json!(word(!back)))
        );
    }
}

/// What is bad is not known yet: another node would be told to have it as soon as the one that it failed on is told to leave it.
#[tokio::test]
async fn nobody_leaves_a_bad_revision_before_it_is_written_that_it_is_bad() {
    let (world, bad) = failed_on_a().await;
    for (code, reason) in [(409, "Conflict"), (500, "InternalError"), (0, "")] {
        let of = format!("/runtimerevisions/{bad}/status");
        let server = refusing((code, reason), move |line, body| {
            code != 0 && line.contains(&of) && body["status"]["verdict"] == "Bad"
        });
        let result = run(&server, &world).await;
        assert_eq!(result.is_ok(), code != 500, "{result:?}");
        let left = server.asked("/runtimenodes/a?").iter().any(|r| r.body["spec"]["desiredRevision"] == "config-old");
        assert_eq!(left, code == 0, "{code}: {:?}", server.asked("PATCH"));
    }
}

#[tokio::test]
async fn a_request_by_annotation_stays_until_it_is_answered() {
    let (mut world, bad) = failed_on_a().await;
    let config = Arc::make_mut(world.configs.get_mut("a").unwrap());
    config.annotations_mut().insert("berth.dev/retry".to_owned(), bad.clone());
    for taken in [false, true] {
        let of = format!("/runtimerevisions/{bad}/status");
        let server = refusing((409, "Conflict"), move |line, _| !taken && line.contains(&of));
        run(&server, &world).await.unwrap();
        let removed = removed(&server, "a", "retry", &bad);
        assert_eq!(removed.is_some(), taken, "{:?}", server.asked("PATCH"));
    }
}

/// Whereabouts among all requests one took that annotation of a RuntimeConfig away, provided that it had that value.
fn removed(server: &Server, config: &str, annotation: &str, value: &str) -> Option<usize> {
    let path = format!("/metadata/annotations/berth.dev~1{annotation}");
    let steps = json!([{"op": "test", "path": path, "value": value}, {"op": "remove", "path": path}]);
    let of = format!("/runtimeconfigs/{config}?");
    server.asked("").iter().position(|r| r.line.contains(&of) && r.body == steps)
}

/// Two nodes of one RuntimeConfig that are to have different things. Whoever waits for the answer reads a status that knows of it.
#[tokio::test]
async fn an_undo_of_all_is_in_the_status_of_each_before_the_request_is_gone() {
    let mut world = world();
    let all = serde_json::from_value(json!({"nodeSelector": {}})).unwrap();
    world.configs.insert("fleet".to_owned(), Arc::new(versioned(RuntimeConfigObject::new("fleet", all))));
    let first = server(|_, _| false);
    run(&first, &world).await.unwrap();
    let created = |r: crate::server::Request| serde_json::from_value::<RuntimeRevision>(r.body).unwrap();
    let revisions = first.asked("POST").into_iter().filter(|r| r.line.contains("/runtimerevisions")).map(created);
    for revision in revisions.filter(|r| r.spec.runtime.is_some()) {
        world.revisions.insert(revision.name_any(), Arc::new(versioned(revision)));
    }
    let status = first.asked("/runtimeconfigs/fleet/status").pop().unwrap().body["status"].clone();
    let told = [status["targetRevision"].clone(), status["otherTargetRevisions"][0].clone()]
        .map(|t| t.as_str().unwrap().to_owned());
    assert_eq!(world.revisions.keys().collect::<BTreeSet<_>>(), told.iter().collect(), "{status}");
    let config = Arc::make_mut(world.configs.get_mut("fleet").unwrap());
    config.annotations_mut().insert("berth.dev/undo".to_owned(), "all".to_owned());
    for taken in [false, true] {
        let server =
            refusing((409, "Conflict"), move |line, _| !taken && line.contains("/runtimeconfigs/fleet/status"));
        run(&server, &world).await.unwrap();
        for revision in &told {
            let of_it = server.asked(&format!("/runtimerevisions/{revision}/status"));
            assert!(of_it.iter().any(|r| r.body["status"]["verdict"] == "Bad"), "{revision}: {of_it:?}");
        }
        let requests = server.asked("");
        let at = requests.iter().position(|r| r.line.contains("/runtimeconfigs/fleet/status")).unwrap();
        let conditions = requests[at].body["status"]["conditions"].as_array().unwrap();
        let back = conditions.iter().find(|c| c["type"] == "RolledBack").unwrap();
        assert_eq!(back["status"], "True", "{conditions:?}");
        match removed(&server, "fleet", "undo", "all") {
            Some(removed) => assert!(taken && at < removed, "{requests:?}"),
            None => assert!(!taken, "it is answered: {requests:?}"),
        }
    }
}

#[tokio::test]
async fn a_policy_that_has_no_room_is_refused_and_the_others_are_told() {
    let mut world = world();
    for n in 0..=200 {
        let name = format!("p{n}");
        let mut policy = ImagePolicyObject::new(&name, serde_json::from_value(json!({"mode": "Audit"})).unwrap());
        // One of those in the middle is the youngest.
        let created = if n == 7 { "2026-01-02T00:00:00Z" } else { "2026-01-01T00:00:00Z" };
        policy.metadata.creation_timestamp = serde_json::from_value(json!(created)).unwrap();
        world.policies.insert(name, Arc::new(versioned(policy)));
    }
    let server = server(|_, _| false);
    run(&server, &world).await.unwrap();
    for node in ["a", "b"] {
        let asked = server.asked(&format!("/runtimenodes/{node}?"));
        assert!(asked.iter().any(|r| r.body["spec"]["policyRevision"].is_string()), "{asked:?}");
    }
    let is_set = |r: &&crate::server::Request| r.body["spec"]["policies"].is_array();
    let written = server.asked("/runtimerevisions");
    let list = written.iter().find(is_set).unwrap().body["spec"]["policies"].as_array().unwrap().clone();
    assert!(list.len() == 200 && list.iter().all(|policy| policy["name"] != "p7"), "{}", list.len());
    let accepted = |name: &str| {
        let status = server.asked(&format!("/imagepolicies/{name}/status")).pop().unwrap().body["status"].clone();
        status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Accepted").unwrap().clone()
    };
    assert_eq!(accepted("p200")["status"], "True");
    let refused = accepted("p7");
    assert!(refused["status"] == "False" && refused["reason"] == "SetTooLarge", "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("the limit is 200"), "{refused}");
    let events = server.asked("/events");
    let of_it = |r: &crate::server::Request| r.body["regarding"]["name"] == "p7" && r.body["reason"] == "SetTooLarge";
    assert!(events.iter().any(of_it), "{events:?}");
}

/// A node that was cordoned for a rollout, with what its RuntimeNode says.
fn cordoned(world: &mut World, annotation: bool, spec: Value, current: &str) {
    let annotations = if annotation { json!({"berth.dev/cordoned-since": "2026-01-01T00:00:00Z"}) } else { json!({}) };
    let node = json!({"metadata": {"name": "a", "uid": "a", "resourceVersion": "1", "annotations": annotations},
        "spec": {"unschedulable": true}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    world.nodes.insert("a".to_owned(), Arc::new(serde_json::from_value(node).unwrap()));
    let object = Arc::make_mut(world.runtime_nodes.get_mut("a").unwrap());
    object.spec = serde_json::from_value(spec).unwrap();
    object.status = Some(RuntimeNodeStatus { current_revision: Some(current.to_owned()), ..Default::default() });
}

#[tokio::test]
async fn a_node_in_mid_drain_whose_config_was_deleted_is_given_back() {
    for (ours, on_its_way) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut world = world();
        world.configs.clear();
        let desired = if on_its_way { "config-new" } else { "config-old" };
        cordoned(&mut world, ours, json!({"nodeName": "a", "nodeUID": "a", "desiredRevision": desired}), "config-old");
        let server = server(|_, _| false);
        run(&server, &world).await.unwrap();
        let back = server.asked("/runtimenodes/a?").iter().any(|r| r.body["spec"]["desiredRevision"] == "config-old");
        let freed = server.asked("/nodes/a?").iter().any(|r| r.body["spec"].get("unschedulable") == Some(&Value::Null));
        assert_eq!((back, freed), (on_its_way, ours && !on_its_way), "ours: {ours}, on its way: {on_its_way}");
    }
}

#[tokio::test]
async fn a_mark_of_ours_on_a_node_that_somebody_made_schedulable_goes() {
    let mut world = world();
    cordoned(&mut world, true, json!({"nodeName": "a", "nodeUID": "a"}), "config-old");
    Arc::make_mut(world.nodes.get_mut("a").unwrap()).spec = None;
    let server = server(|_, _| false);
    run(&server, &world).await.unwrap();
    let gone = |r: &crate::server::Request| {
        r.body["metadata"]["annotations"].get("berth.dev/cordoned-since") == Some(&Value::Null)
    };
    assert!(server.asked("/nodes/a?").iter().any(gone), "or his next cordon would count as ours");
}

/// The status of that RuntimeConfig, and whether it was written before that node was told something.
fn shown(server: &Server, config: &str, node: &str) -> (Value, bool) {
    let all = server.asked("");
    let status = all.iter().position(|r| r.line.contains(&format!("/runtimeconfigs/{config}/status"))).unwrap();
    let of = format!("/runtimenodes/{node}?");
    let told = all.iter().position(|r| r.line.contains(&of) && r.body["spec"]["desiredRevision"].is_string()).unwrap();
    (all[status].body["status"].clone(), status < told)
}

#[tokio::test]
async fn what_a_takeover_does_is_shown_before_the_first_node_is_told() {
    let server = server(|_, _| false);
    run(&server, &world()).await.unwrap();
    for name in ["a", "b"] {
        let (status, before) = shown(&server, name, name);
        assert!(before, "{:?}", server.asked(""));
        assert_eq!(status["disruption"]["class"], "Drain", "{status}");
    }
}

/// Back to what came through before: a change like any other.
#[tokio::test]
async fn what_a_change_that_is_taken_back_does_is_shown_too() {
    let (mut world, first) = failed_on_a().await;
    let object = Arc::make_mut(world.revisions.get_mut(&first).unwrap());
    object.status = serde_json::from_value(json!({"verdict": "Good", "since": "2026-01-02T00:00:00Z"})).unwrap();
    let old = Arc::make_mut(world.revisions.get_mut("config-old").unwrap());
    old.spec.runtime.as_mut().unwrap().config["runtime"]["pidsLimit"] = json!(77);
    let node = Arc::make_mut(world.runtime_nodes.get_mut("a").unwrap());
    node.spec.desired_revision = Some("config-old".to_owned());
    node.status.as_mut().unwrap().failed = None;
    let server = server(|_, _| false);
    run(&server, &world).await.unwrap();
    let (status, before) = shown(&server, "a", "a");
    assert!(before && status["lastKnownGood"] == "config-old", "{status}");
    let fields = status["disruption"]["fields"].as_array().unwrap();
    assert!(fields.len() == 1 && fields[0].as_str().unwrap().starts_with("spec.runtime.pidsLimit ("), "{status}");
}

#[tokio::test]
async fn nobody_is_told_what_could_not_be_shown() {
    for (code, reason) in [(409, "Conflict"), (500, "InternalError")] {
        let server = refusing((code, reason), |line, _| line.contains("/runtimeconfigs/a/status"));
        assert_eq!(run(&server, &world()).await.is_ok(), code == 409);
        assert!(!told(&server, "a") && told(&server, "b"), "{code}: {:?}", server.asked("PATCH"));
    }
}

#[tokio::test]
async fn whoever_is_frozen_by_another_object_is_told_by_which_and_why() {
    let mut world = world();
    let all = serde_json::from_value(json!({"nodeSelector": {}})).unwrap();
    world.configs.insert("fleet".to_owned(), Arc::new(versioned(RuntimeConfigObject::new("fleet", all))));
    let broken = |name: &str, spec: Value| Broken {
        name: name.to_owned(),
        error: "unknown field `turbo`".to_owned(),
        object: json!({"metadata": {"name": name, "uid": format!("uid-{name}"), "resourceVersion": "1"}, "spec": spec}),
    };
    let selector = json!({"turbo": true, "nodeSelector": {"matchLabels": {"pool": "b"}}});
    world.broken_configs.push(broken("newer", selector));
    world.broken_policies.push(broken("tighter", json!({"turbo": true})));
    let server = server(|_, _| false);
    run(&server, &world).await.unwrap();
    let message = |config: &str| {
        let status = server.asked(&format!("/runtimeconfigs/{config}/status")).pop().unwrap().body["status"].clone();
        let ready = status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Ready").unwrap().clone();
        ready["message"].as_str().unwrap().to_owned()
    };
    for config in ["fleet", "b"] {
        let message = message(config);
        for word in ["1 nodes", "node b", "RuntimeConfig newer", "NotUnderstood", "turbo"] {
            assert!(message.contains(word), "{config}: {message}");
        }
    }
    assert!(!message("a").contains("newer"), "{}", message("a"));
    for (kind, name) in [("RuntimeConfig", "newer"), ("ImagePolicy", "tighter")] {
        let of_it = |r: &crate::server::Request| {
            let of = &r.body["regarding"];
            of["kind"] == kind
                && of["name"] == name
                && of["uid"] == format!("uid-{name}")
                && r.body["reason"] == "NotUnderstood"
        };
        assert_eq!(server.asked("/events").iter().filter(|r| of_it(r)).count(), 1, "{:?}", server.asked("/events"));
    }
}

#[tokio::test]
async fn two_that_contradict_each_other_say_so_and_their_nodes_are_told_nothing() {
    let mut world = world();
    let gc =
        |fields: Value| json!({"nodeSelector": {"matchLabels": {"pool": "a"}}, "runtime": {"storage": {"gc": fields}}});
    for (name, spec) in [("high", gc(json!({"high": 70}))), ("low", gc(json!({"low": 80})))] {
        let config = RuntimeConfigObject::new(name, serde_json::from_value(spec).unwrap());
        world.configs.insert(name.to_owned(), Arc::new(versioned(config)));
    }
    let server = server(|_, _| false);
    run(&server, &world).await.unwrap();
    assert!(!told(&server, "a") && told(&server, "b"), "{:?}", server.asked("PATCH"));
    let condition = |config: &str, kind: &str| {
        let status = server.asked(&format!("/runtimeconfigs/{config}/status")).pop().unwrap().body["status"].clone();
        status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == kind).unwrap().clone()
    };
    for config in ["high", "low"] {
        let accepted = condition(config, "Accepted");
        assert!(accepted["status"] == "False" && accepted["reason"] == "Contradicts", "{accepted}");
        let message = accepted["message"].as_str().unwrap();
        for word in ["gc.low: is 80, must be below gc.high, which is 70", "RuntimeConfigs high, low"] {
            assert!(message.contains(word), "{message}");
        }
        assert_eq!(condition(config, "Ready")["reason"], "NotAccepted");
        let of_it =
            |r: &crate::server::Request| r.body["regarding"]["name"] == config && r.body["reason"] == "Contradicts";
        assert!(server.asked("/events").iter().any(of_it), "{:?}", server.asked("/events"));
    }
    let ready = condition("a", "Ready");
    assert!(ready["reason"] == "NodesFrozen" && ready["message"].as_str().unwrap().contains("gc.low"), "{ready}");
    assert_eq!(condition("a", "Accepted")["status"], "True");
}

/// A verdict and a phase that a newer version wrote. Neither object may vanish: the nodes keep what they have, and it is told once.
#[tokio::test]
async fn what_a_newer_version_wrote_freezes_its_nodes_and_is_told() {
    let mut world = world();
    let first = server(|_, _| false);
    run(&first, &world).await.unwrap();
    let desired = |r: &crate::server::Request| r.body["spec"]["desiredRevision"].as_str().map(str::to_owned);
    let target = first.asked("/runtimenodes/a?").iter().find_map(desired).unwrap();
    let broken = |name: &str| Broken {
        name: name.to_owned(),
        error: "unknown variant `Dreaming`".to_owned(),
        object: json!({"metadata": {"name": name, "uid": format!("uid-{name}"), "resourceVersion": "1"}}),
    };
    world.broken_revisions.insert(target.clone(), broken(&target));
    world.runtime_nodes.remove("b");
    world.broken_runtime_nodes.insert("b".to_owned(), broken("b"));
    let server = server(|_, _| false);
    run(&server, &world).await.unwrap();
    assert!(!told(&server, "a") && !told(&server, "b"), "{:?}", server.asked("PATCH"));
    assert!(server.asked("POST").iter().all(|r| !r.line.contains("/runtimenodes")), "it is there");
    for (config, word) in [("a", format!("RuntimeRevision {target}")), ("b", "RuntimeNode b".to_owned())] {
        let status = server.asked(&format!("/runtimeconfigs/{config}/status")).pop().unwrap().body["status"].clone();
        let ready = status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Ready").unwrap().clone();
        assert_eq!((&ready["reason"], &status["summary"]), (&json!("NodesFrozen"), &json!("0/1")), "{status}");
        let message = ready["message"].as_str().unwrap();
        assert!(message.contains(&word) && message.contains("Dreaming"), "{message}");
    }
    for (kind, name) in [("RuntimeRevision", target.as_str()), ("RuntimeNode", "b")] {
        let of_it = |r: &crate::server::Request| {
            let of = &r.body["regarding"];
            of["kind"] == kind && of["uid"] == format!("uid-{name}") && r.body["reason"] == "NotUnderstood"
        };
        assert_eq!(server.asked("/events").iter().filter(|r| of_it(r)).count(), 1, "{:?}", server.asked("/events"));
    }
}
