//! Bad input of a fleet: an agent's image that does not start; a node that is replaced under the same name, with a pod that a drain would lose and an agent that hangs; an object of a
//! newer version.
use crate::api::{Api, GROUP};
use crate::documents::object;
use crate::reporters::{Reporters, timestamp};
use crate::rollouts::{NODES, complete, condition, config, node, set};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const REPLACED: &str = "sim-00";

/// The node whose agent's image cannot be had.
const WITHOUT_AGENT: &str = "sim-02";
const AGENTS: &str = "/api/v1/namespaces/berth-system/pods";

/// The pod of a DaemonSet's, as the kubelet of its node tells of it: its image cannot be had. The node is told nothing, all others go on; it is
/// said where people look, and over when the pod runs.
pub fn without_agent(api: &Api) {
    let labels = json!({"app.kubernetes.io/name": "berth", "app.kubernetes.io/component": "agent"});
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    let _ = api.post("/api/v1/namespaces/berth-system/serviceaccounts", &account);
    let spec = json!({"nodeName": WITHOUT_AGENT, "automountServiceAccountToken": false,
        "containers": [{"name": "agent", "image": "r.example/berth-agent:none"}]});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "berth-agent-x", "labels": labels}, "spec": spec});
    api.post(AGENTS, &pod).unwrap();
    fares(
        api,
        "False",
        &json!({"waiting": {"reason": "ErrImagePull", "message": "r.example/berth-agent:none: not found"}}),
    );
    let problem = api.wait("the node says so", || {
        let node = runtime_node(api, WITHOUT_AGENT)?;
        let problem = node["spec"]["agentProblem"].clone();
        if problem.is_object() { Ok(problem) } else { Err(node.to_string()) }
    });
    let said = "pod berth-system/berth-agent-x: container agent: ErrImagePull: r.example/berth-agent:none: not found; see that agent.image";
    assert!(problem["message"].as_str().unwrap().starts_with(said), "{problem}");
    // As the kubelet does from here on, each time that it tries.
    fares(api, "False", &json!({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}));
    let before = runtime_node(api, WITHOUT_AGENT).unwrap()["spec"].clone();
    set(api, &json!({"runtime": {"pidsLimit": 350}}));
    let config = api.wait("all other nodes have it, and it is said why this one has not", || {
        let config = config(api);
        let (ready, running) = (condition(&config, "Ready"), condition(&config, "AgentsRunning"));
        let told = ready["reason"] == "AgentsNotRunning"
            && ready["observedGeneration"] == config["metadata"]["generation"]
            && running["status"] == "False"
            && config["status"]["summary"] == format!("{}/{NODES}", NODES - 1);
        if told { Ok(config) } else { Err(config["status"].to_string()) }
    });
    let told = condition(&config, "AgentsRunning")["message"].as_str().unwrap();
    assert!(told.starts_with("1 nodes get nothing new; node sim-02: ") && told.contains(said), "{told}");
    assert_eq!(config["status"]["failingNodes"][0]["name"], WITHOUT_AGENT, "{}", config["status"]);
    assert_eq!(
        runtime_node(api, WITHOUT_AGENT).unwrap()["spec"],
        before,
        "it was told nothing, and its problem is one"
    );
    for (of, reason) in [(WITHOUT_AGENT, "AgentNotRunning"), ("fleet", "AgentNotRunning")] {
        event(api, of, reason, said);
    }
    fares(api, "True", &json!({"running": {"startedAt": timestamp()}}));
    complete(api);
    let after = runtime_node(api, WITHOUT_AGENT).unwrap();
    assert!(after["spec"]["agentProblem"].is_null(), "{after}");
    event(api, WITHOUT_AGENT, "AgentRuns", "its agent runs again");
    api.kubectl().run(&["delete", "pod", "berth-agent-x", "-n", "berth-system", "--force", "--grace-period=0"]);
}

/// What a kubelet says of that pod.
fn fares(api: &Api, ready: &str, state: &Value) {
    let container = json!({"name": "agent", "image": "r.example/berth-agent:none", "imageID": "", "ready": ready == "True",
        "restartCount": 0, "state": state});
    let phase = if ready == "True" { "Running" } else { "Pending" };
    let status =
        json!({"phase": phase, "conditions": [{"type": "Ready", "status": ready}], "containerStatuses": [container]});
    api.patch(&format!("{AGENTS}/berth-agent-x/status"), &json!({ "status": status })).unwrap();
}

fn event(api: &Api, of: &str, reason: &str, says: &str) {
    let that = |e: &&Value| {
        e["regarding"]["name"] == of
            && e["reason"] == reason
            && e["note"].as_str().is_some_and(|note| note.contains(says))
    };
    api.wait("an event says it", || {
        let events = api.get("/apis/events.k8s.io/v1/namespaces/default/events")?;
        events["items"]
            .as_array()
            .unwrap()
            .iter()
            .find(that)
            .map(drop)
            .ok_or_else(|| format!("{of} {reason}: {events}"))
    });
}

fn runtime_node(api: &Api, name: &str) -> Result<Value, String> {
    api.get(&format!("{GROUP}/runtimenodes/{name}"))
}

fn cordoned(api: &Api) -> bool {
    api.get(&format!("/api/v1/nodes/{REPLACED}")).unwrap()["spec"]["unschedulable"] == true
}

/// Another machine of the same name is taken over anew: nothing that was said of the former one counts.
pub fn replaced(api: &Api, reporters: &Reporters) {
    set(api, &json!({"rollout": {"nodeTimeout": "10s", "drain": {"retryAfter": "3s"}}}));
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
