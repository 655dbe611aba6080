//! What goes wrong around an agent: the API server, its own object, its token, and people who edit files.
use crate::node::{AGENT, Node};
use crate::wishes::{configuration, has, have, timestamp, want};
use berth_cluster_tests::{Diagnose, http, wait_for};
use serde_json::{Value, json};
use std::fs;
use std::process::Command;
use std::time::Duration;

/// Longer than a token is read from its file for, and a watch lasts.
const RENEWED: Duration = Duration::from_secs(180);

pub fn api_server_away(node: &Node) {
    let good = have(node, &json!({"runtime": {"pidsLimit": 400}}));
    let next = configuration(node, &json!({"runtime": {"pidsLimit": 401}}));
    let crashes = node.object().unwrap()["status"]["crashCount"].as_u64().unwrap();
    node.plane().kill_api_server();
    // The daemon is nobody's: it goes on, and starts again, with what it has.
    let former = node.daemon();
    kill(former);
    node.wait("another daemon answers", || {
        let info = node.berth(&["info"])?;
        if [former, 0].contains(&node.daemon()) { Err(info) } else { Ok(()) }
    });
    assert!(node.pids_limit().contains("400"));
    // A fresh agent has nobody to ask: it lives, is not ready, and changes nothing.
    node.kill_agent();
    node.start_agent();
    node.wait("the agent says that it is not ready", || match http::get(node.space(), AGENT, "/readyz") {
        Ok((503, text)) if text.contains("API server") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(http::get(node.space(), AGENT, "/livez").unwrap().0, 200);
    assert!(fs::read_to_string(node.applied_file()).unwrap().contains(&good));
    node.plane().start_api_server_again(node.space(), node);
    node.wait("the proxy answers, and the kind is served", || node.object().map(drop));
    want(node, &next);
    let status = has(node, &next);
    assert_eq!(status["crashCount"], crashes + 1, "somebody ended the daemon: {status}");
}

pub fn deleted(node: &Node) {
    let good = have(node, &json!({"runtime": {"pidsLimit": 410}}));
    let (daemon, applied) = (node.daemon(), fs::read(node.applied_file()).unwrap());
    node.kubectl().run(&["delete", "runtimenode", berth_cluster_tests::kubelet::NODE_NAME]);
    node.wait("the agent has noticed", || {
        if node.agent_log().contains("there is no RuntimeNode") { Ok(()) } else { Err("not yet".to_owned()) }
    });
    // Another agent, which has seen nothing but that there is none.
    node.kill_agent();
    node.start_agent();
    std::thread::sleep(Duration::from_secs(20));
    assert!(node.object().unwrap_err().starts_with("404"), "an agent makes no object");
    assert!(node.daemon() == daemon && fs::read(node.applied_file()).unwrap() == applied, "nothing was undone");
    assert!(node.pids_limit().contains("410"));
    assert_eq!(http::get(node.space(), AGENT, "/readyz").unwrap().0, 200);
    node.make_object();
    want(node, &good);
    has(node, &good);
}

/// Somebody edits the daemon's file: it is told. The daemon ends: it boots from what was in force before, and is given what it should have.
pub fn drift(node: &Node) {
    have(node, &json!({"runtime": {"pidsLimit": 420}}));
    let good = have(node, &json!({"runtime": {"pidsLimit": 421}}));
    let crashes = node.object().unwrap()["status"]["crashCount"].as_u64().unwrap();
    let text = fs::read_to_string(node.applied_file()).unwrap();
    assert!(text.contains("421"));
    fs::write(node.applied_file(), text.replace("421", "999")).unwrap();
    let path = node.applied_file().display().to_string();
    let status =
        node.reports("the change is seen", |status| status["drift"] == json!([{"path": path, "kind": "Changed"}]));
    let drifted = status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "Drifted").unwrap();
    assert!(drifted["status"] == "True" && drifted["message"].as_str().unwrap().contains(&path), "{status}");
    let former = node.daemon();
    kill(former);
    let status = node.reports("the node has what it should have", |status: &Value| {
        status["drift"].is_null() && status["crashCount"] == crashes + 1 && status["loadedRevision"] == good
    });
    assert_ne!(status["failed"]["revision"], good, "{status}");
    assert_ne!(node.daemon(), former);
    assert!(node.pids_limit().contains("421"), "{}", node.pids_limit());
    fs::remove_file(node.applied_file()).unwrap();
    node.reports("its absence is seen", |status| status["drift"] == json!([{"path": path, "kind": "Missing"}]));
    have(node, &json!({"runtime": {"pidsLimit": 422}}));
    node.reports("it is written anew", |status| status["drift"].is_null());
}

/// A token counts for as long as its pod is there: the API server answers 401 then. The kubelet writes another one into the same file.
pub fn token(node: &Node) {
    have(node, &json!({"runtime": {"pidsLimit": 430}}));
    node.kubectl().run(&["delete", "pod", "agent-0", "--force", "--grace-period=0"]);
    let errors = |node: &Node| {
        let text = http::get(node.space(), AGENT, "/metrics").map(|(_, text)| text).unwrap_or_default();
        let failed = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            let failures =
                name.starts_with("berth_agent_watch_errors") || name.contains("reports_total{result=\"error\"}");
            failures.then(|| value.parse::<f64>().ok())?
        };
        text.lines().filter_map(failed).sum::<f64>()
    };
    let before = errors(node);
    let next = configuration(node, &json!({"runtime": {"pidsLimit": 431}}));
    // What the API server has just judged counts for some seconds more.
    std::thread::sleep(Duration::from_secs(15));
    want(node, &next);
    wait_for(node, "the agent is turned away", RENEWED, || {
        if errors(node) > before { Ok(()) } else { Err("not yet".to_owned()) }
    });
    node.issue_token("agent-1");
    wait_for(node, "the agent goes on with another token", RENEWED, || {
        let status = node.object()?["status"].clone();
        if status["currentRevision"] == next { Ok(()) } else { Err(status.to_string()) }
    });
    assert!(!node.diagnosis().contains("panicked"));
}

/// An agent whose own clock is two hours off knows all the same which grant is good: the API server's clock decides.
pub fn clock(node: &Node) {
    have(node, &json!({"runtime": {"pidsLimit": 440}}));
    let mut range = 180;
    for (hours, seconds, good) in [(2, 300, true), (-2, 0, false)] {
        node.kill_agent();
        node.start_agent_with(Some(("BERTH_AGENT_CLOCK", (hours * 3600).to_string())));
        range += 1;
        let network = json!({"mode": "Builtin", "subnet": "10.88.0.0/24", "rangeEnd": format!("10.88.0.{range}")});
        let wish = configuration(node, &json!({"runtime": {"pidsLimit": 440}, "network": network}));
        let daemon = node.daemon();
        want(node, &wish);
        node.reports("it waits for leave", |status| status["phase"] == "AwaitingGrant");
        let ahead = http::get(node.space(), AGENT, "/metrics").unwrap().1;
        let ahead = ahead.lines().find_map(|l| l.strip_prefix("berth_agent_clock_ahead_seconds ")).unwrap();
        let ahead: f64 = ahead.parse().unwrap();
        assert!((ahead - f64::from(hours) * 3600.0).abs() < 10.0, "its clock is {ahead} s off, not {hours} h");
        let grant = json!({"revision": wish, "disruption": "DaemonRestart", "expiresAt": timestamp(seconds)});
        node.tell(&json!({ "grant": grant }));
        if good {
            has(node, &wish);
        } else {
            std::thread::sleep(Duration::from_secs(10));
            assert_eq!(node.object().unwrap()["status"]["phase"], "AwaitingGrant", "that grant is over");
            assert_eq!(node.daemon(), daemon);
        }
    }
    node.kill_agent();
    node.start_agent();
    have(node, &json!({"runtime": {"pidsLimit": 441}}));
}

fn kill(process: i32) {
    // 0, which is said while there is none, is everybody of this test's to kill(1).
    assert!(process > 1, "no daemon runs");
    let done = Command::new("kill").args(["-9", &process.to_string()]).status().unwrap();
    assert!(done.success());
}
