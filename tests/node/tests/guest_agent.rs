//! The agent on a node with systemd: it was taken over, and the cluster wants another version of the runtime. One that works comes with the
//! agent's next image, and runs once the node is told to have it, there and back. From one that does not start, the unit is pointed back at the
//! version of before, within seconds. Containers do not notice. Runs in the guest tier.
//!
//! The version that works is the build with the feature `next-version`. The API server is real, and the agent a process of the node; an
//! operator's part is this test's.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

use crate::daemon::crictl::Session;
use crate::guest::plane::Plane;
use crate::takeover::{self, Layout, Leaver, Node, Seen, systemctl, wait};
use berth_crds::RuntimeRevisionSpec;
use berth_node_tests::{next_programs, programs};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const NODE: &str = "node1";
const PREFIX: &str = "/opt/berth";
const PROGRAMS: [&str; 3] = ["berth", "berth-monitor", "berth-init"];
/// A version that is newer than each real one.
const BROKEN: &str = "99.0.0";
/// One that is older.
const OLD: &str = "0.0.1";
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
        Self { agent: agent(&plane, version, None), plane }
    }

    /// The DaemonSet has this version's image: its agent takes the former one's place. The node is told once more to have `revision`, with leave
    /// to restart the daemon, so that what is reported is what this agent has found.
    fn rolls_out(&mut self, version: &Version, revision: &str) {
        self.end();
        self.agent = agent(&self.plane, &version.name, Some(version.image.path()));
        self.tell(revision);
        self.has(revision);
    }

    fn end(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }

    /// Makes the revision that wants this version; its name.
    fn revision(&self, version: &str) -> String {
        // It takes the place of the node's documents, so it has their network.
        let config = json!({"network": {"mode": "Builtin", "subnet": takeover::SUBNET}, "runtime": {"pidsLimit": 400}});
        let spec = json!({"runtime": {"version": version, "config": config, "sources": {}}});
        let content: RuntimeRevisionSpec = serde_json::from_value(spec).unwrap();
        let name = content.name();
        create(&self.plane, &object("RuntimeRevision", &name, &serde_json::to_value(&content).unwrap()));
        name
    }

    /// Has the node told to have it, with leave to restart the daemon.
    fn tell(&self, revision: &str) {
        let grant = json!({"revision": revision, "disruption": "DaemonRestart", "expiresAt": timestamp("+10 minutes")});
        let spec = json!({"desiredRevision": revision, "desiredSince": timestamp("now"), "grant": grant});
        self.plane.kubectl(&["patch", "runtimenode", NODE, "--type=merge", "-p", &json!({"spec": spec}).to_string()]);
    }

    /// Has the node told to have this version; the revision's name.
    fn want(&self, version: &str) -> String {
        let name = self.revision(version);
        self.tell(&name);
        name
    }

    /// Waits until the node's status is so, of what it is told now.
    fn reports(&self, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        wait(what, || {
            let node = self.plane.object(&["runtimenode", NODE]).unwrap_or_default();
            let heard = node["status"]["observedGeneration"] == node["metadata"]["generation"];
            if heard && condition(&node["status"]) {
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
        self.end();
    }
}

/// An agent of that version, perhaps of an image that brings the version's programs.
fn agent(plane: &Plane, version: &str, image: Option<&Path>) -> Child {
    let log = File::options().create(true).append(true).open(LOG).unwrap();
    let mut agent = Command::new(programs().join("berth-agent"));
    agent.args(["--node", NODE, "--runtime-version", version, "--listen", "127.0.0.1:9465"]);
    if let Some(image) = image {
        agent.arg("--programs").arg(image);
    }
    agent.args(["--log", "info,berth_agent=debug"]).env("KUBECONFIG", plane.kubeconfig());
    agent.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    agent.spawn().unwrap()
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

/// The version that the programs in this directory are.
fn version_of(directory: &Path) -> String {
    let program = directory.join("berth");
    let said = crate::daemon::host(program.to_str().unwrap(), &["version", "--client", "-o", "json"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    said["client"]["version"].as_str().unwrap().to_owned()
}

/// Where a version's programs are on the node.
fn place(version: &str) -> PathBuf {
    Path::new(PREFIX).join(version)
}

/// A version whose daemon ends at once.
fn stage_broken(version: &str) {
    let place = place(version);
    fs::create_dir(&place).unwrap();
    for program in ["berth-monitor", "berth-init"] {
        fs::copy(programs().join(program), place.join(program)).unwrap();
    }
    fs::write(place.join("berth"), "#!/bin/sh\nexit 1\n").unwrap();
    fs::set_permissions(place.join("berth"), fs::Permissions::from_mode(0o755)).unwrap();
}

/// Gives the programs in a directory their list (docs/formats/staged-programs.md): what has none is no agent's to remove.
fn list(directory: &Path) {
    let sums = Command::new("sha256sum").args(PROGRAMS).current_dir(directory).output().unwrap();
    assert!(sums.status.success(), "{}", String::from_utf8_lossy(&sums.stderr));
    fs::write(directory.join("SHA256SUMS"), sums.stdout).unwrap();
}

/// Asserts that all of a version is on the node.
fn is_staged(version: &str) {
    let mut check = Command::new("sha256sum");
    let checked = check.args(["--check", "--strict", "SHA256SUMS"]).current_dir(place(version)).output().unwrap();
    let said = String::from_utf8_lossy(&checked.stdout);
    let whole = PROGRAMS.iter().all(|program| said.lines().any(|line| line == format!("{program}: OK")));
    assert!(checked.status.success() && whole, "{version}: {said}{}", String::from_utf8_lossy(&checked.stderr));
}

/// A version that works, the agent's image that brings it, and the revision that wants it.
struct Version {
    name: String,
    image: TempDir,
    revision: String,
}

impl Version {
    /// Of the programs in this directory.
    fn of(cluster: &Cluster, programs: &Path) -> Self {
        let (name, image) = (version_of(programs), tempfile::tempdir().unwrap());
        let place = image.path().join(&name);
        fs::create_dir(&place).unwrap();
        // Not copied: the guest's memory is its disk.
        PROGRAMS.iter().for_each(|program| symlink(programs.join(program), place.join(program)).unwrap());
        list(&place);
        let revision = cluster.revision(&name);
        Self { name, image, revision }
    }
}

/// Asserts that the node runs this version, as systemd, the kernel and the daemon itself say; the daemon's process.
fn runs(node: &Node, version: &str) -> String {
    assert_eq!(fs::read_link(place("current")).unwrap(), Path::new(version));
    assert_eq!(systemctl(&["is-active", "berth.service"]), "active");
    let daemon = takeover::main_process("berth.service");
    let program = fs::read_link(format!("/proc/{daemon}/exe")).unwrap();
    assert!(program.starts_with(place(version)), "{}", program.display());
    let told = takeover::done(node.berth(&["version", "-o", "json"]).output().unwrap());
    assert_eq!(told["server"]["version"], version, "{told}");
    daemon
}

/// The node's pod with a session in it: what no version may touch.
struct Work {
    pod: Seen,
    session: Session,
}

impl Work {
    fn of(node: &Node) -> Self {
        let pod = Seen::of(node);
        let mut session = Session::start(node.crictl(&["exec", "-i"]), &pod.id);
        session.say("before");
        Self { pod, session }
    }

    /// Asserts that the process is the same, the session remembers what it knew, and the log has no gap and goes on.
    fn goes_on(&mut self, node: &Node) {
        self.session.say("after");
        assert_eq!(Seen::of(node), self.pod, "the container goes on");
        let lines = takeover::counted();
        wait("its log goes on", || {
            let more = takeover::counted();
            if more > lines { Ok(()) } else { Err(format!("{more} lines, as before")) }
        });
    }
}

/// The DaemonSet's image brings the version `to`, and nothing changes; the node is told to have it, and has it.
fn switch(cluster: &mut Cluster, node: &Node, work: &mut Work, [from, to]: [&Version; 2]) {
    let daemon = runs(node, &from.name);
    cluster.rolls_out(to, &from.revision);
    is_staged(&to.name);
    assert_eq!(runs(node, &from.name), daemon, "an image only stages its version");

    let leaver = Leaver::start(node, &format!("for-{}", to.name.replace('.', "-")));
    let began = Instant::now();
    cluster.tell(&to.revision);
    let status = cluster.has(&to.revision);
    println!("{} after {:.1} s", to.name, began.elapsed().as_secs_f64());
    assert_eq!((&status["state"], &status["runtimeVersion"]), (&json!("Managed"), &json!(to.name)), "{status}");
    assert_eq!((&status["failed"], &status["crashCount"]), (&Value::Null, &json!(0)), "{status}");
    assert_ne!(runs(node, &to.name), daemon);
    leaver.has_left(node);
    work.goes_on(node);
    assert_eq!(fs::read_link(place("previous")).unwrap(), Path::new(&from.name));
    is_staged(&from.name);
}

#[test]
fn guest_agent_switches_to_another_version_and_back() {
    let _alone = takeover::alone();
    let (node, version) = (Node::start(Layout::Kubeadm), version_of(&programs()));
    let before = node.files();
    node.take_over_as(&version);
    node.is_on("berth");
    // As if an agent had staged it.
    list(&place(&version));
    stage_broken(OLD);
    list(&place(OLD));
    let mut cluster = Cluster::start(&version);
    let [former, next] = [programs(), next_programs()].map(|directory| Version::of(&cluster, &directory));
    assert_ne!(former.name, next.name);
    cluster.tell(&former.revision);
    cluster.has(&former.revision);

    let mut work = Work::of(&node);
    switch(&mut cluster, &node, &mut work, [&former, &next]);
    // An agent that starts removes what nobody goes back to any more, and that alone.
    cluster.rolls_out(&next, &next.revision);
    assert!(!place(OLD).exists(), "nobody goes back to that one");
    is_staged(&former.name);
    switch(&mut cluster, &node, &mut work, [&next, &former]);
    work.session.end();

    drop(cluster);
    node.give_back();
    node.is_on("containerd");
    node.is_untouched(&before);
    node.finish();
}

#[test]
fn guest_agent_goes_back_from_a_version_that_does_not_start() {
    let _alone = takeover::alone();
    let (node, version) = (Node::start(Layout::Kubeadm), version_of(&programs()));
    let before = node.files();
    node.take_over_as(&version);
    node.is_on("berth");
    stage_broken(BROKEN);
    let cluster = Cluster::start(&version);
    let good = cluster.want(&version);
    cluster.has(&good);

    let (mut work, daemon) = (Work::of(&node), runs(&node, &version));
    let broken = cluster.want(BROKEN);
    let began = Instant::now();
    let status = cluster.reports("the version is given up", |status| status["failed"]["revision"] == *broken);
    let message = status["failed"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(status["failed"]["reason"] == "Refused" && message.contains("berth.service does not start"), "{status}");
    cluster.has(&good);
    let took = began.elapsed();
    println!("back after {:.1} s: {message}", took.as_secs_f64());
    assert!(took < BACK_LIMIT, "the way back took {took:?}\n{}", tail());

    assert_ne!(runs(&node, &version), daemon);
    work.goes_on(&node);
    work.session.end();

    drop(cluster);
    node.give_back();
    node.is_on("containerd");
    node.is_untouched(&before);
    node.finish();
}
