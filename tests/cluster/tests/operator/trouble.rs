//! Bad input of a fleet: a node that is replaced under the same name, with a pod that a drain would lose and an agent that hangs; an object of a
//! newer version.
use crate::api::{Api, GROUP};
use crate::documents::object;
use crate::reporters::Reporters;
use crate::rollouts::{NODES, complete, condition, config, node, set};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const REPLACED: &str = "sim-00";

fn runtime_node(api: &Api, name: &str) -> Result<Value, String> {
    api.get(&format!("{GROUP}/runtimenodes/{name}"))
}

fn cordoned(api: &Api) -> bool {
    api.get(&format!("/api/v1/nodes/{REPLACED}")).unwrap()["spec"]["unschedulable"] == true
}

/// Another machine of the same name is taken over anew: nothing that was said of the former one counts.
pub fn replaced(api: &Api, reporters: &Reporters) {
    set(api, &json!({"rollout": {"nodeTimeout": "5s", "drain": {"retryAfter": "3s"}}}));
    reporters.hang.lock().unwrap().insert(REPLACED.to_owned());
    let before = runtime_node(api, REPLACED).unwrap();
    let target = before["status"]["currentRevision"].clone();
    api.kubectl().run(&["delete", "node", REPLACED]);
    reporters.replace(REPLACED);
    pod(api);
    node(api, REPLACED);
    let uid = api.get(&format!("/api/v1/nodes/{REPLACED}")).unwrap()["metadata"]["uid"].clone();
    assert_ne!(uid, before["spec"]["nodeUID"]);
    would_lose_a_pod(api, &uid);
    api.kubectl().run(&["delete", "pod", "alone", "--force", "--grace-period=0"]);
    let grant = api.wait("it is cordoned and granted", || {
        let node = runtime_node(api, REPLACED)?;
        if cordoned(api) && node["spec"]["grant"].is_object() {
            Ok(node["spec"]["grant"].clone())
        } else {
            Err(node.to_string())
        }
    });
    assert_eq!((&grant["revision"], &grant["disruption"]), (&target, &json!("Drain")));
    api.wait("its grant is over: it is schedulable again, and counted as one that failed", || {
        let status = config(api)["status"].clone();
        let aside =
            !cordoned(api) && status["nodes"]["degraded"] == 1 && status["summary"] == format!("{}/{NODES}", NODES - 1);
        if aside { Ok(()) } else { Err(format!("{status} {}", runtime_node(api, REPLACED)?["spec"])) }
    });
    assert_eq!(runtime_node(api, REPLACED).unwrap()["spec"]["desiredRevision"], target, "it is remembered");
    reporters.hang.lock().unwrap().clear();
    // From here on every node may take its time.
    set(api, &json!({"rollout": {"nodeTimeout": "15m"}}));
    let retry = json!({"metadata": {"annotations": {"berth.dev/retry": target}}});
    api.patch(&format!("{GROUP}/runtimeconfigs/fleet"), &retry).unwrap();
    assert_eq!(complete(api), target.as_str().unwrap());
    let now = runtime_node(api, REPLACED).unwrap();
    assert_eq!((&now["spec"]["nodeUID"], &now["status"]["nodeUID"]), (&uid, &uid));
    api.wait("it is schedulable", || if cordoned(api) { Err("it is cordoned".to_owned()) } else { Ok(()) });
    let marked =
        api.get(&format!("/api/v1/nodes/{REPLACED}")).unwrap()["metadata"]["annotations"]["berth.dev/cordoned-since"]
            .clone();
    assert!(marked.is_null(), "{marked}");
}

/// A pod without a controller, on the node that comes.
fn pod(api: &Api) {
    let spec = json!({"nodeName": REPLACED, "automountServiceAccountToken": false, "containers": [{"name": "c", "image": "a.example/b:1"}]});
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    let _ = api.post("/api/v1/namespaces/default/serviceaccounts", &account);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "alone"}, "spec": spec});
    api.post("/api/v1/namespaces/default/pods", &pod).unwrap();
}

fn would_lose_a_pod(api: &Api, uid: &Value) {
    api.wait("the pod keeps its node from being drained", || {
        let node = runtime_node(api, REPLACED)?;
        let because = node["spec"]["postponedBecause"].as_str().unwrap_or_default();
        if node["spec"]["nodeUID"] == *uid && because.contains("pod default/alone") {
            Ok(())
        } else {
            Err(node.to_string())
        }
    });
    let of_it = |e: &&Value| e["regarding"]["name"] == REPLACED && e["reason"] == "DrainBlocked";
    let told = api.wait("an event names it", || {
        let events = api.get("/apis/events.k8s.io/v1/namespaces/default/events")?;
        let found =
            events["items"].as_array().unwrap().iter().find(of_it).map(|e| e["note"].as_str().unwrap().to_owned());
        found.ok_or_else(|| events.to_string())
    });
    assert!(told.contains("pod default/alone") && told.contains("spec.rollout.drain.force"), "{told}");
    assert!(
        api.get("/api/v1/namespaces/default/pods/alone").unwrap()["metadata"]["deletionTimestamp"].is_null(),
        "it lives"
    );
    assert!(!cordoned(api));
}

/// What a newer version has in its definition and this one does not know freezes the nodes that it is about, and nothing else.
pub fn not_understood(api: &Api) {
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/runtimeconfigs.berth.dev";
    let mut definition = api.get(path).unwrap();
    let schema =
        &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    schema["turbo"] = json!({"type": "boolean"});
    let versions = definition["spec"]["versions"].clone();
    api.patch(path, &json!({"spec": {"versions": versions}})).unwrap();
    api.patch("/api/v1/nodes/sim-01", &json!({"metadata": {"labels": {"newer": "yes"}}})).unwrap();
    let newer =
        object("RuntimeConfig", "newer", &json!({"turbo": true, "nodeSelector": {"matchLabels": {"newer": "yes"}}}));
    // Until all of the API server has the new definition, it refuses what it would else drop.
    api.wait("the definition takes it", || {
        api.post(&format!("{GROUP}/runtimeconfigs?fieldValidation=Strict"), &newer).map(drop)
    });
    let accepted = api.wait("it is said of it", || {
        let newer = api.get(&format!("{GROUP}/runtimeconfigs/newer"))?;
        let accepted = condition(&newer, "Accepted").clone();
        if accepted["status"] == "False" {
            return Ok(accepted);
        }
        // What the API server sent before its own watches followed the new definition lacks the field; the next change has it.
        let now = json!({"metadata": {"annotations": {"test.berth.dev/touched": format!("{:?}", Instant::now())}}});
        api.patch(&format!("{GROUP}/runtimeconfigs/newer"), &now)?;
        std::thread::sleep(Duration::from_millis(500));
        Err(newer.to_string())
    });
    assert!(
        accepted["reason"] == "NotUnderstood" && accepted["message"].as_str().unwrap().contains("turbo"),
        "{accepted}"
    );
    let before = runtime_node(api, "sim-01").unwrap()["status"]["currentRevision"].clone();
    set(api, &json!({"runtime": {"pidsLimit": 400}}));
    api.wait("all other nodes have it", || {
        let status = config(api)["status"].clone();
        if status["summary"] == format!("{}/{NODES}", NODES - 1) { Ok(()) } else { Err(status.to_string()) }
    });
    assert_eq!(runtime_node(api, "sim-01").unwrap()["status"]["currentRevision"], before, "it keeps what it has");
    api.kubectl().run(&["delete", "runtimeconfig", "newer"]);
    complete(api);
}
