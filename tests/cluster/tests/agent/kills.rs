//! SIGKILL to the agent wherever it has begun something: the next one ends where it would have ended.
use crate::node::Node;
use crate::wishes::{configuration, has, have, policies, timestamp, want};
use serde_json::json;

/// Live changes: before and after the daemon was asked, and before the agent remembers that it is done.
pub fn at_each_step(node: &Node) {
    have(node, &json!({"runtime": {"pidsLimit": 300}}));
    let daemon = node.daemon();
    for (i, place) in ["apply/begun", "apply/done", "commit"].into_iter().enumerate() {
        let wish = configuration(node, &json!({"runtime": {"pidsLimit": 301 + i}}));
        node.killed_at(place, || want(node, &wish));
        node.start_agent();
        let status = has(node, &wish);
        assert!(status["failed"]["revision"] != wish && status["attempts"] == 0, "{place}: {status}");
        assert!(node.pids_limit().contains(&(301 + i).to_string()), "{place}");
    }
    for (i, place) in ["policies/begun", "policies/done"].into_iter().enumerate() {
        let set = json!([{"name": "set", "spec": {"mode": "Warn", "registries": {"deny": [format!("r{i}.example")]}}}]);
        let set = policies(node, &set);
        node.killed_at(place, || node.tell(&json!({"policyRevision": set})));
        node.start_agent();
        node.reports(&format!("{place}: the policies are in force"), |status| status["policyRevision"] == set);
    }
    assert_eq!(node.daemon(), daemon, "the daemon never noticed");
}

/// With leave that ends meanwhile: what has begun is finished.
pub fn at_a_restart(node: &Node) {
    have(node, &json!({"runtime": {"pidsLimit": 310}}));
    let crashes = node.object().unwrap()["status"]["crashCount"].clone();
    for (i, place) in ["restart/begun", "restart/done"].into_iter().enumerate() {
        let network = json!({"mode": "Builtin", "subnet": "10.88.0.0/24", "rangeEnd": format!("10.88.0.{}", 190 + i)});
        let wish = configuration(node, &json!({"runtime": {"pidsLimit": 310}, "network": network}));
        let former = node.daemon();
        node.killed_at(place, || {
            want(node, &wish);
            let grant = json!({"revision": wish, "disruption": "DaemonRestart", "expiresAt": timestamp(600)});
            node.tell(&json!({ "grant": grant }));
        });
        node.tell(&json!({"grant": null}));
        node.start_agent();
        let status = has(node, &wish);
        assert_ne!(node.daemon(), former, "{place}");
        assert_eq!(status["crashCount"], crashes, "{place}: the restart was asked for: {status}");
    }
}
