//! What a cluster tells a node, and what becomes of it.
use crate::node::{AGENT, Node};
use crate::wishes::{configuration, has, have, policies as policy_set, timestamp, want};
use berth_cluster_tests::{http, programs};
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What cannot be applied is known at once.
const AT_ONCE: Duration = Duration::from_secs(30);

pub fn applied_and_reported(node: &Node) {
    let daemon = node.daemon();
    let name = have(node, &json!({"runtime": {"pidsLimit": 200}}));
    assert!(node.pids_limit().contains("200"), "{}", node.pids_limit());
    let object = node.object().unwrap();
    let status = &object["status"];
    assert_eq!(status["observedGeneration"], object["metadata"]["generation"]);
    assert_eq!(status["nodeUID"], object["spec"]["nodeUID"]);
    assert_eq!((&status["state"], &status["runtimeVersion"]), (&json!("Managed"), &json!(node.version())));
    assert_eq!((&status["failed"], &status["crashCount"]), (&Value::Null, &json!(0)), "{status}");
    assert_eq!(status["capabilities"]["handlers"], json!([""]), "the handlers that a kubelet is told");
    assert!(status["capabilities"]["kernel"].as_str().is_some_and(|kernel| !kernel.is_empty()), "{status}");
    let next = have(node, &json!({"runtime": {"pidsLimit": 210}}));
    let status = node.object().unwrap()["status"].clone();
    assert_eq!(status["lastKnownGood"], name, "what the node goes back to by itself");
    assert!(std::fs::read_to_string(node.applied_file()).unwrap().contains(&next));
    assert_eq!(node.daemon(), daemon, "a live change restarts nothing");
    // Nothing is written for nothing.
    let version = |node: &Node| node.object().unwrap()["metadata"]["resourceVersion"].clone();
    let before = version(node);
    std::thread::sleep(Duration::from_secs(20));
    assert_eq!(version(node), before, "a status was written though nothing changed");
}

pub fn policies(node: &Node) {
    let deny =
        json!([{"name": "no-evil", "spec": {"mode": "Enforce", "registries": {"deny": ["registry.evil.example"]}}}]);
    let name = policy_set(node, &deny);
    node.tell(&json!({"policyRevision": name}));
    let enforcing = |status: &Value| status["policyRevision"] == name && status["enforcement"]["result"] == "Enforcing";
    node.reports("the policies are in force", enforcing);
    let refused = node.berth(&["pull", "registry.evil.example/app:1"]).unwrap_err();
    assert!(refused.contains("denied") && refused.contains("no-evil"), "{refused}");
    node.reports("the denial is counted", |status| {
        status["enforcement"]["decisions"] == json!([{"policy": "no-evil", "denied": 1, "warned": 0}])
    });
    // A set that the node cannot have leaves the one before in force.
    let bad = policy_set(
        node,
        &json!([{"name": "bad", "spec": {"mode": "Enforce", "match": {"images": [{"pattern": "a//b"}]}}}]),
    );
    node.tell(&json!({"policyRevision": bad}));
    let began = Instant::now();
    let status = node.reports("the set is refused", |status| status["enforcement"]["result"] == "Refused");
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    assert_eq!(status["policyRevision"], name, "the one before is in force");
    assert!(status["enforcement"]["message"].as_str().is_some_and(|m| m.contains("pattern")), "{status}");
    assert!(node.berth(&["pull", "registry.evil.example/app:1"]).unwrap_err().contains("no-evil"));
    node.tell(&json!({"policyRevision": name}));
    node.reports("the policies are in force", enforcing);
}

/// Whatever is wrong with it: it is told within seconds, and the node has what it had.
pub fn refused(node: &Node) {
    let good = have(node, &json!({"runtime": {"pidsLimit": 220}}));
    let daemon = node.daemon();
    let profile = json!({"defaultAction": "SCMP_ACT_SING"}).to_string();
    let impossible = json!({"profiles": [{"name": "broken", "type": "Seccomp", "source": {"inline": profile}}]});
    let impossible = configuration(node, &impossible);
    // A name that is no hash of the content: somebody has written it by hand, or changed what was stored.
    let forged = format!("config-{:024}", 7);
    let spec = json!({"runtime": {"version": node.version(), "config": {"runtime": {"pidsLimit": 99}}}});
    node.create("runtimerevisions", "RuntimeRevision", &forged, &spec).unwrap();
    for (revision, reason, words) in [(&impossible, "Refused", "broken"), (&forged, "BrokenRevision", "was changed")] {
        let began = Instant::now();
        want(node, revision);
        let status = node.reports(&format!("{revision} is refused"), |status| {
            status["failed"]["revision"] == **revision && status["phase"] == "Idle"
        });
        assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
        assert_eq!(status["failed"]["reason"], reason, "{status}");
        assert!(status["failed"]["message"].as_str().is_some_and(|m| m.contains(words)), "{status}");
        assert_eq!((&status["currentRevision"], &status["loadedRevision"]), (&json!(good), &json!(good)));
    }
    // What a later version means, this one leaves alone, and says so.
    let unknown = configuration(node, &json!({"runtime": {"turbo": true}}));
    want(node, &unknown);
    let status = node.reports("it is not known", |status| status["phase"] == "Unsupported");
    assert!(status["message"].as_str().is_some_and(|m| m.contains("turbo")), "{status}");
    assert_eq!(status["loadedRevision"], good);
    assert!(node.pids_limit().contains("220") && node.daemon() == daemon);
    // There is none of that name: it waits, and takes it when it comes.
    want(node, "config-ffffffffffffffffffffffff");
    node.reports("it cannot be had", |status| {
        status["phase"] == "Preparing" && status["message"].as_str().is_some_and(|m| m.contains("not found"))
    });
    want(node, &good);
    has(node, &good);
}

/// A daemon is restarted with leave for that revision and that much only, and pods do not notice.
pub fn restart_with_leave(node: &Node) {
    have(node, &json!({"runtime": {"pidsLimit": 230}}));
    let (daemon, crashes) = (node.daemon(), node.object().unwrap()["status"]["crashCount"].clone());
    let wish = configuration(
        node,
        &json!({"runtime": {"pidsLimit": 230}, "network": {"mode": "Builtin", "rangeEnd": "10.88.0.200", "subnet": "10.88.0.0/24"}}),
    );
    want(node, &wish);
    node.reports("it waits for leave", |status| status["phase"] == "AwaitingGrant");
    let leave = |revision: &str, disruption: &str, seconds: u64| {
        node.tell(&json!({"grant": {"revision": revision, "disruption": disruption, "expiresAt": timestamp(seconds)}}));
    };
    leave(&wish, "NewPods", 600);
    leave("config-000000000000000000000000", "Drain", 600);
    leave(&wish, "DaemonRestart", 0);
    std::thread::sleep(Duration::from_secs(8));
    assert_eq!(node.object().unwrap()["status"]["phase"], "AwaitingGrant", "for less, for another one, and over");
    assert_eq!(node.daemon(), daemon);
    leave(&wish, "DaemonRestart", 600);
    let status = has(node, &wish);
    assert_ne!(node.daemon(), daemon, "it was restarted");
    assert_eq!(status["crashCount"], crashes, "that was asked for: {status}");
}

pub fn native(node: &Node) {
    let good = have(node, &json!({"runtime": {"pidsLimit": 240}}));
    let absent = configuration(node, &json!({"state": "Absent"}));
    want(node, &absent);
    let status = node.reports("it is refused", |status| status["failed"]["revision"] == absent);
    assert!(status["failed"]["message"].as_str().is_some_and(|m| m.contains("from the beginning")), "{status}");
    assert_eq!((&status["state"], &status["loadedRevision"]), (&json!("Managed"), &json!(good)));
    want(node, &good);
    has(node, &good);
}

/// The agent's port has the daemon's series too, and promtool finds nothing to say of them.
pub fn metrics(node: &Node) {
    let name = have(node, &json!({"runtime": {"pidsLimit": 250}}));
    for path in ["/livez", "/readyz", "/healthz"] {
        assert_eq!(http::get(node.space(), AGENT, path).unwrap(), (200, "ok\n".to_owned()), "{path}");
    }
    let (status, text) = http::get(node.space(), AGENT, "/metrics").unwrap();
    assert_eq!(status, 200);
    let mut promtool = Command::new(programs::path_from_env("BERTH_PROMETHEUS").join("promtool"));
    let pipes = promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
    let revision = format!("berth_agent_revision_info{{kind=\"configuration\",revision=\"{name}\"}} 1");
    for line in
        ["berth_agent_daemon_up 1", "berth_agent_phase{phase=\"Idle\"} 1", "berth_agent_node_healthy 1", &revision]
    {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    assert!(text.contains("\nberth_build_info{") && text.contains("\nprocess_resident_memory_bytes "), "the daemon's");
}
