//! What an operator writes: revisions, named by their content, and which one the node is to have.
use crate::node::Node;
use berth_cluster_tests::runtime::POD_NETWORK;
use berth_crds::RuntimeRevisionSpec;
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// A configuration as a revision, on the API server; its name. It takes the place of the node's documents, so it has their network too.
pub fn configuration(node: &Node, config: &Value) -> String {
    let mut config = config.clone();
    if config["network"].is_null() {
        config["network"] = json!({"mode": "Builtin", "subnet": POD_NETWORK});
    }
    let spec = json!({"runtime": {"version": node.version(), "config": config}});
    revision(node, &spec)
}

/// A set of policies as a revision, on the API server; its name.
pub fn policies(node: &Node, policies: &Value) -> String {
    revision(node, &json!({ "policies": policies }))
}

fn revision(node: &Node, spec: &Value) -> String {
    let content: RuntimeRevisionSpec = serde_json::from_value(spec.clone()).unwrap();
    let name = content.name();
    let spec = serde_json::to_value(&content).unwrap();
    match node.create("runtimerevisions", "RuntimeRevision", &name, &spec) {
        Err(e) if !e.starts_with("409") => panic!("{e}"),
        _ => name,
    }
}

/// Tells the node to have it.
pub fn want(node: &Node, revision: &str) {
    node.tell(&json!({"desiredRevision": revision, "desiredSince": timestamp(0), "grant": null}));
}

/// Has it applied, with leave to restart the daemon, and waits until the node says so.
pub fn have(node: &Node, config: &Value) -> String {
    let name = configuration(node, config);
    let grant = json!({"revision": name, "disruption": "DaemonRestart", "expiresAt": timestamp(600)});
    node.tell(&json!({"desiredRevision": name, "desiredSince": timestamp(0), "grant": grant}));
    has(node, &name);
    name
}

/// Waits until the node has it and is at rest.
pub fn has(node: &Node, revision: &str) -> Value {
    node.reports(&format!("{revision} is applied"), |status| {
        status["currentRevision"] == revision
            && status["loadedRevision"] == revision
            && status["phase"] == "Idle"
            && status["healthy"] == true
    })
}

/// So many seconds from now, as RFC 3339 in UTC.
pub fn timestamp(ahead: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let at = format!("@{}.{:09}", now.as_secs() + ahead, now.subsec_nanos());
    let output = std::process::Command::new("date").args(["-u", "-d", &at, "+%Y-%m-%dT%H:%M:%S.%NZ"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
