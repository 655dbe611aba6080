//! Fifty nodes: taken over in waves within the budget, a revision that breaks nodes comes back by itself and is remembered, a leader that is
//! killed in mid-rollout is followed by the other replica, which does nothing twice. What then restarts daemons is `restarts.rs`.
use crate::api::{Api, GROUP};
use crate::documents::object;
use crate::reporters::{IMPOSSIBLE, Reporters, timestamp};
use crate::{plugin, policies, restarts, trouble};
use berth_cluster_tests::service::Service;
use serde_json::{Value, json};
use std::sync::atomic::Ordering;
use std::time::Duration;

pub const NODES: usize = 50;
/// Most of them that may be away or at work at a time.
pub const BUDGET: usize = 10;

pub fn fleet(api: &Api) {
    api.kubectl().run(&["create", "namespace", "berth-system"]);
    let names: Vec<String> = (0..NODES).map(|i| format!("sim-{i:02}")).collect();
    names.iter().for_each(|name| node(api, name));
    let mut operators = vec![api.operator("op-a", 8081), api.operator("op-b", 8082)];
    let reporters = Reporters::default();
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| reporters.run(api, &names));
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let first = taken_over(api, &reporters);
            policies::reach_everybody(api, NODES);
            let bad = comes_back(api, &reporters, &first);
            is_tried_again(api, &reporters, &bad, &first);
            let second = survives_its_leader(api, &reporters, &mut operators);
            is_taken_back(api, &second, &first);
            waits_while_paused(api, &reporters);
            trouble::without_agent(api);
            trouble::replaced(api, &reporters);
            trouble::not_understood(api);
            restarts::zone_by_zone(api, &reporters);
            restarts::another_version(api, &reporters, &mut operators);
        }));
        reporters.stop.store(true, Ordering::Relaxed);
        outcome
    });
    let ends: Vec<_> = operators.into_iter().map(|operator| operator.stop(Duration::from_secs(60))).collect();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
    for ended in ends {
        assert!(ended.success(), "the operator ends on SIGTERM with {ended}");
    }
    let lease = api.kubectl().json(&["get", "lease", "berth-operator", "-n", "berth-system"]);
    assert!(lease["spec"]["holderIdentity"].as_str().is_none_or(str::is_empty), "it was given back: {lease}");
}

pub fn node(api: &Api, name: &str) {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"kubernetes.io/os": "linux"}}});
    api.post("/api/v1/nodes", &node).unwrap();
    let ready = json!({"type": "Ready", "status": "True", "reason": "Simulated", "message": "", "lastTransitionTime": timestamp(),
        "lastHeartbeatTime": timestamp()});
    api.patch(&format!("/api/v1/nodes/{name}/status"), &json!({"status": {"conditions": [ready]}})).unwrap();
}

pub fn config(api: &Api) -> Value {
    api.get(&format!("{GROUP}/runtimeconfigs/fleet")).unwrap()
}

pub fn set(api: &Api, spec: &Value) {
    api.patch(&format!("{GROUP}/runtimeconfigs/fleet"), &json!({ "spec": spec })).unwrap();
}

pub fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    object["status"]["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == kind).unwrap_or(&Value::Null)
}

/// Waits until the present generation is on all nodes; its revision.
pub fn complete(api: &Api) -> String {
    api.wait("the rollout is complete", || {
        let config = config(api);
        let ready = condition(&config, "Ready");
        let done = ready["status"] == "True" && ready["observedGeneration"] == config["metadata"]["generation"];
        let good = config["status"]["lastKnownGood"] == config["status"]["targetRevision"]
            && config["status"]["summary"] == format!("{NODES}/{NODES}");
        if done && good {
            Ok(config["status"]["targetRevision"].as_str().unwrap().to_owned())
        } else {
            Err(config["status"].to_string())
        }
    })
}

fn taken_over(api: &Api, reporters: &Reporters) -> String {
    let spec = json!({"nodeSelector": {}, "runtime": {"pidsLimit": 100}, "rollout": {"waves": [1, "20%", "100%"],
        "maxUnavailable": "20%", "maxInFlight": BUDGET, "soak": {"canary": "1s", "wave": "0s"}}});
    api.post(&format!("{GROUP}/runtimeconfigs"), &object("RuntimeConfig", "fleet", &spec)).unwrap();
    let revision = complete(api);
    let seen = reporters.seen.lock().unwrap();
    assert!(seen.cordoned > 1 && seen.cordoned <= BUDGET, "{} nodes were cordoned at once", seen.cordoned);
    assert!(seen.without_cordon.is_empty(), "granted before they were cordoned: {:?}", seen.without_cordon);
    assert_eq!(seen.tried[&revision].len(), NODES);
    restarts::in_waves(&seen.work);
    drop(seen);
    api.wait("every node is schedulable again", || {
        let nodes = api.get("/api/v1/nodes")?;
        let cordoned = nodes["items"].as_array().unwrap().iter().filter(|n| n["spec"]["unschedulable"] == true).count();
        if cordoned == 0 { Ok(()) } else { Err(format!("{cordoned} are cordoned")) }
    });
    revision
}

fn comes_back(api: &Api, reporters: &Reporters, good: &str) -> String {
    set(api, &json!({"runtime": {"pidsLimit": IMPOSSIBLE}}));
    let config = api.wait("the rollout came back", || {
        let config = config(api);
        let back = condition(&config, "RolledBack")["status"] == "True"
            && condition(&config, "Progressing")["status"] == "False";
        if back { Ok(config) } else { Err(config["status"].to_string()) }
    });
    let bad = config["status"]["targetRevision"].as_str().unwrap();
    assert_eq!(config["status"]["lastKnownGood"], good);
    let why = condition(&config, "Ready")["message"].as_str().unwrap();
    assert!(why.contains("sim-") && why.contains("pids.max"), "{why}");
    assert_eq!(reporters.seen.lock().unwrap().tried[bad].len(), 1, "the canary alone met it");
    let revision = api.get(&format!("{GROUP}/runtimerevisions/{bad}")).unwrap();
    assert_eq!(revision["status"]["verdict"], "Bad");
    let nodes = api.get(&format!("{GROUP}/runtimenodes")).unwrap();
    for node in nodes["items"].as_array().unwrap() {
        assert_eq!(
            (&node["spec"]["desiredRevision"], &node["status"]["currentRevision"]),
            (&json!(good), &json!(good))
        );
    }
    bad.to_owned()
}

/// Of a bad revision, once the nodes are mended: what they said of it before counts for nothing. Then back to the first one.
fn is_tried_again(api: &Api, reporters: &Reporters, bad: &str, first: &str) {
    reporters.mended.store(true, Ordering::Relaxed);
    let retry = json!({"metadata": {"annotations": {"berth.dev/retry": bad}}});
    api.patch(&format!("{GROUP}/runtimeconfigs/fleet"), &retry).unwrap();
    assert_eq!(complete(api), bad);
    let revision = api.get(&format!("{GROUP}/runtimerevisions/{bad}")).unwrap();
    assert_eq!(revision["status"]["verdict"], "Good");
    answered(api, "berth.dev/retry");
    set(api, &json!({"runtime": {"pidsLimit": 100}}));
    assert_eq!(complete(api), first);
}

/// A request is answered once: it goes when the status says what came of it, which nodes need not wait for.
fn answered(api: &Api, request: &str) {
    api.wait("the request is gone", || {
        let config = config(api);
        if config["metadata"]["annotations"][request].is_null() { Ok(()) } else { Err(config.to_string()) }
    });
}

fn survives_its_leader(api: &Api, reporters: &Reporters, operators: &mut Vec<Service>) -> String {
    reporters.held_back.store(true, Ordering::Relaxed);
    set(api, &json!({"runtime": {"pidsLimit": 200}}));
    let target = api.wait("some nodes have it, and some do not", || {
        let status = config(api)["status"].clone();
        let updated = status["nodes"]["updated"].as_u64().unwrap_or(0);
        if (1..NODES as u64).contains(&updated) {
            Ok(status["targetRevision"].as_str().unwrap().to_owned())
        } else {
            Err(status.to_string())
        }
    });
    let lease = api.kubectl().json(&["get", "lease", "berth-operator", "-n", "berth-system"]);
    let leader = lease["spec"]["holderIdentity"].as_str().unwrap();
    let index = operators.iter().position(|operator| operator.recipe().name == leader).unwrap();
    operators.remove(index).kill();
    reporters.held_back.store(false, Ordering::Relaxed);
    assert_eq!(complete(api), target);
    let seen = reporters.seen.lock().unwrap();
    assert_eq!(seen.tried[&target].len(), NODES);
    let twice: Vec<_> = seen.tried[&target].iter().filter(|(_, times)| **times != 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    target
}

/// By an annotation, though it had come through everywhere.
fn is_taken_back(api: &Api, bad: &str, good: &str) {
    let told = plugin::run(api, &["rollout", "undo", "fleet"]).unwrap();
    assert_eq!(told, format!("runtimeconfig.berth.dev/fleet: {bad} is taken back\n"));
    let stuck = plugin::run(api, &["rollout", "status", "fleet", "--timeout=240"]).unwrap_err();
    assert!(stuck.contains("does not get further: RolledBack"), "not the end of what was before: {stuck}");
    let nodes = api.get(&format!("{GROUP}/runtimenodes")).unwrap();
    let back = nodes["items"].as_array().unwrap().iter().filter(|n| n["status"]["currentRevision"] == good).count();
    assert_eq!(back, NODES, "the end is told before the last node is back: {stuck}");
    answered(api, "berth.dev/undo");
    assert_eq!(api.get(&format!("{GROUP}/runtimerevisions/{bad}")).unwrap()["status"]["verdict"], "Bad");
}

fn waits_while_paused(api: &Api, reporters: &Reporters) {
    plugin::run(api, &["rollout", "pause", "fleet"]).unwrap();
    set(api, &json!({"runtime": {"pidsLimit": 300}}));
    let target = api.wait("the pause is told", || {
        let config = config(api);
        let paused = condition(&config, "Paused");
        let told = paused["status"] == "True" && paused["observedGeneration"] == config["metadata"]["generation"];
        if told {
            Ok(config["status"]["targetRevision"].as_str().unwrap().to_owned())
        } else {
            Err(config["status"].to_string())
        }
    });
    // Several passes long.
    std::thread::sleep(Duration::from_secs(3));
    assert!(!reporters.seen.lock().unwrap().tried.contains_key(&target), "a node was told of it");
    let stuck = plugin::run(api, &["rollout", "status", "fleet"]).unwrap_err();
    assert!(stuck.contains("does not get further: Paused"), "{stuck}");
    plugin::run(api, &["rollout", "resume", "fleet"]).unwrap();
    // It waits for the end.
    let told = plugin::run(api, &["rollout", "status", "fleet", "--timeout=240"]).unwrap();
    assert!(told.ends_with(&format!("successfully rolled out: {NODES}/{NODES} nodes have {target}\n")), "{told}");
    assert_eq!(complete(api), target);
    plugin::tells(api, &target);
}
