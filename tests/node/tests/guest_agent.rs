//! The agent on a node with systemd: it was taken over, and the cluster wants a version of the runtime that does not start. The unit is pointed
//! back at the version of before, within seconds, and containers do not notice. Runs in the guest tier.
//!
//! The API server is real, and the agent a process of the node; an operator's part is this test's.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

use crate::daemon::crictl::Session;
use crate::guest::plane::Plane;
use crate::takeover::{self, Layout, Node, Seen, wait};
use berth_crds::RuntimeRevisionSpec;
use berth_node_tests::programs;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const NODE: &str = "node1";
const PREFIX: &str = "/opt/berth";
/// A version that is newer than each real one.
const BROKEN: &str = "99.0.0";
/// The agent gives systemd's second start twenty seconds after the first one has failed, and starts the former version then.
const BACK_LIMIT: Duration = Duration::from_secs(75);
const LOG: &str = "/tmp/agent.log";

/// An API server with this node's objects, and an agent. Both are gone when it is dropped.
struct Cluster {
    agent: Child,
    plane: Plane,
}

impl Cluster {
    fn start(version: &str) -> Self {
        let plane = Plane::start();
        let there = |words: &[&str]| plane.object(words).ok_or_else(|| format!("no {words:?}"));
        wait("the API server answers", || there(&["namespace", "default"]));
        let definitions = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crds/generated");
        plane.kubectl(&["apply", "--server-side", "-f", definitions.to_str().unwrap()]);
        wait("the kinds are served", || there(&["runtimenodes"]));
        create(&plane, &json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}));
        let node = there(&["node", NODE]).unwrap();
        let spec = json!({"nodeName": NODE, "nodeUID": node["metadata"]["uid"]});
        create(&plane, &object("RuntimeNode", NODE, &spec));
        let log = File::create(LOG).unwrap();
        let mut agent = Command::new(programs().join("berth-agent"));
        agent.args(["--node", NODE, "--runtime-version", version, "--listen", "127.0.0.1:9465"]);
        agent.args(["--log", "info,berth_agent=debug"]).env("KUBECONFIG", plane.kubeconfig());
        agent.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Self { agent: agent.spawn().unwrap(), plane }
    }

    /// Has the node told to have this version, with leave to restart the daemon; the revision's name.
    fn want(&self, version: &str) -> String {
        // It takes the place of the node's documents, so it has their network.
        let config = json!({"network": {"mode": "Builtin", "subnet": takeover::SUBNET}, "runtime": {"pidsLimit": 400}});
        let spec = json!({"runtime": {"version": version, "config": config, "sources": {}}});
        let content: RuntimeRevisionSpec = serde_json::from_value(spec).unwrap();
        let name = content.name();
        create(&self.plane, &object("RuntimeRevision", &name, &serde_json::to_value(&content).unwrap()));
        let grant = json!({"revision": name, "disruption": "DaemonRestart", "expiresAt": timestamp("+10 minutes")});
        let spec = json!({"desiredRevision": name, "desiredSince": timestamp("now"), "grant": grant});
        self.plane.kubectl(&["patch", "runtimenode", NODE, "--type=merge", "-p", &json!({"spec": spec}).to_string()]);
        name
    }

    /// Waits until the node's status is so.
    fn reports(&self, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        wait(what, || {
            let node = self.plane.object(&["runtimenode", NODE]).unwrap_or_default();
            if condition(&node["status"]) {
                Ok(node["status"].clone())
            } else {
                Err(format!("{:#}\n{}", node["status"], tail()))
            }
        })
    }

    /// Waits until the node has the revision, and is well and at rest.
    fn has(&self, revision: &str) -> Value {
        self.reports(&format!("{revision} is applied"), |status| {
            status["currentRevision"] == revision
                && status["loadedRevision"] == revision
                && status["phase"] == "Idle"
                && status["healthy"] == true
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "berth.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn create(plane: &Plane, object: &Value) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), object.to_string()).unwrap();
    plane.kubectl(&["create", "-f", file.path().to_str().unwrap()]);
}

/// As RFC 3339 in UTC.
fn timestamp(when: &str) -> String {
    crate::daemon::host("date", &["-u", "-d", when, "+%Y-%m-%dT%H:%M:%S.%NZ"]).trim().to_owned()
}

/// The end of what the agent has logged.
fn tail() -> String {
    let text = fs::read_to_string(LOG).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// The version that these programs are.
fn own_version() -> String {
    let said = crate::daemon::host(programs().join("berth").to_str().unwrap(), &["--version"]);
    said.split_whitespace().nth(1).unwrap().to_owned()
}

/// A version whose daemon ends at once.
fn stage_broken() {
    let place = PathBuf::from(PREFIX).join(BROKEN);
    fs::create_dir(&place).unwrap();
    for program in ["berth-monitor", "berth-init"] {
        fs::copy(programs().join(program), place.join(program)).unwrap();
    }
    fs::write(place.join("berth"), "#!/bin/sh\nexit 1\n").unwrap();
    fs::set_permissions(place.join("berth"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn guest_agent_goes_back_from_a_version_that_does_not_start() {
    let (node, version) = (Node::start(Layout::Kubeadm), own_version());
    let before = node.files();
    node.take_over_as(&version);
    node.is_on("berth");
    stage_broken();
    let cluster = Cluster::start(&version);
    let good = cluster.want(&version);
    cluster.has(&good);

    let (pod, lines) = (Seen::of(&node), takeover::counted());
    let mut session = Session::start(node.crictl(&["exec", "-i"]), &pod.id);
    session.say("before");
    let daemon = takeover::main_process("berth.service");
    let broken = cluster.want(BROKEN);
    let began = Instant::now();
    let status = cluster.reports("the version is given up", |status| status["failed"]["revision"] == *broken);
    let message = status["failed"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(status["failed"]["reason"] == "Refused" && message.contains("berth.service does not start"), "{status}");
    cluster.has(&good);
    let took = began.elapsed();
    println!("back after {:.1} s: {message}", took.as_secs_f64());
    assert!(took < BACK_LIMIT, "the way back took {took:?}\n{}", tail());

    assert_eq!(fs::read_link(format!("{PREFIX}/current")).unwrap(), Path::new(&version));
    let now = takeover::main_process("berth.service");
    let program = fs::read_link(format!("/proc/{now}/exe")).unwrap();
    assert!(now != daemon && program.starts_with(Path::new(PREFIX).join(&version)), "{}", program.display());
    session.say("after");
    session.end();
    assert_eq!(Seen::of(&node), pod, "the container goes on");
    wait("its log goes on", || {
        let more = takeover::counted();
        if more > lines { Ok(()) } else { Err(format!("{more} lines, as before")) }
    });

    drop(cluster);
    node.give_back();
    node.is_on("containerd");
    node.is_untouched(&before);
    node.finish();
}
