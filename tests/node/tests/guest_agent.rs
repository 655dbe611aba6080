//! The agent on a node with systemd: it takes the node over and gives it back, as the cluster tells it. On one that was taken over the cluster
//! wants another version of the runtime: one that works comes with the agent's next image, and runs once the node is told to have it, there and
//! back; from one that does not start, the unit is pointed back at the version of before, within seconds. Containers do not notice. Runs in the
//! guest tier.
//!
//! The version that works is the build with the feature `next-version`. The API server is real, and the agent a process of the node; an
//! operator's part is this test's.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

use crate::daemon::crictl::Session;
use crate::guest::agent::{Cluster, PROGRAMS, image_of, list, tail};
use crate::takeover::{self, Layout, Leaver, Node, Seen, systemctl, wait};
use berth_node_tests::{next_programs, programs};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::MutexGuard;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PREFIX: &str = "/opt/berth";
/// A version that is newer than each real one.
const BROKEN: &str = "99.0.0";
/// One that is older.
const OLD: &str = "0.0.1";
/// The agent gives systemd's second start twenty seconds after the first one has failed, and starts the former version then. One that only
/// waited would take two minutes.
const BACK_LIMIT: Duration = Duration::from_secs(110);
/// The cluster's revisions (docs/formats/applied-revisions.md).
const APPLIED: &str = "/var/lib/berth/applied-revisions.json";

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
        let name = version_of(programs);
        Self { image: image_of(programs, &name), revision: cluster.revision(&name), name }
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

/// A node that is on containerd at first, and at its end.
struct Host {
    node: Node,
    version: String,
    before: BTreeMap<PathBuf, (Vec<u8>, u32)>,
    _alone: MutexGuard<'static, ()>,
}

impl Host {
    fn start() -> Self {
        let alone = takeover::alone();
        let node = Node::start(Layout::Kubeadm);
        Self { before: node.files(), node, version: version_of(&programs()), _alone: alone }
    }

    /// A person has taken it over.
    fn taken_over() -> Self {
        let host = Self::start();
        host.node.take_over_as(&host.version);
        host.node.is_on("berth");
        host
    }

    /// A person gives it back.
    fn give_back(self) {
        self.node.give_back();
        self.finish();
    }

    /// It was given back: everything is as it was.
    fn finish(self) {
        self.node.is_on("containerd");
        self.node.is_untouched(&self.before);
        self.node.finish();
    }
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
    cluster.rolls_out(&to.name, to.image.path(), &from.revision);
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

/// Has the node told to have it, under leave for all of its pods to end; the phase that `berth adopt` has come to by that.
fn operated(cluster: &Cluster, node: &Node, revision: &str) -> String {
    let last = node.status()["operation"].clone();
    cluster.tell_with(revision, "Drain");
    wait("the agent has berth adopt begin", || {
        let status = node.status();
        if status["operation"] == last { Err(format!("{status}\n{}", tail())) } else { Ok(()) }
    });
    node.settled()
}

/// Where the main process of the node's pod is in the tree of control groups.
fn group_of_the_pod(node: &Node) -> String {
    let pid = node.inspected(&Seen::of(node).id)["info"]["pid"].to_string();
    fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap()
}

/// Another driver of control groups, and the one of before: not without leave for all of the node's pods to end. The daemon goes by it, the kubelet is
/// started anew and goes by it too, and makes its pod again where that driver has it.
fn changes_its_driver(cluster: &Cluster, host: &Host, good: &str) {
    let node = &host.node;
    let (mut work, daemon, kubelet) =
        (Work::of(node), runs(node, &host.version), takeover::main_process("kubelet.service"));
    assert!(group_of_the_pod(node).contains("kubepods.slice"), "{}", group_of_the_pod(node));
    let other = cluster.revision_with(&host.version, &json!({"cgroupManager": "Cgroupfs"}));
    cluster.tell_with(&other, "KubeletRestart");
    cluster.reports("it asks for more", |status| {
        let asks = status["message"].as_str().unwrap_or_default().contains("needs leave for Drain");
        status["phase"] == "AwaitingGrant" && asks && status["capabilities"]["cgroupDriver"] == "systemd"
    });
    assert_eq!(runs(node, &host.version), daemon, "nothing is begun without it");
    work.goes_on(node);
    work.session.end();

    let drivers = [
        (other.as_str(), "cgroupfs", "/kubepods/", "/sys/fs/cgroup/kubepods.slice"),
        (good, "systemd", "/kubepods.slice/", "/sys/fs/cgroup/kubepods"),
    ];
    for (revision, driver, group, former) in drivers {
        cluster.tell_with(revision, "Drain");
        let status = cluster.has(revision);
        assert_eq!(
            (&status["failed"], &status["capabilities"]["cgroupDriver"]),
            (&Value::Null, &json!(driver)),
            "{status}"
        );
        wait("the pod is made anew where the driver has it", || {
            node.is_on("berth");
            let is = group_of_the_pod(node);
            if is.contains(group) { Ok(()) } else { Err(is) }
        });
        let info = takeover::done(node.berth(&["info", "-o", "json"]).output().unwrap());
        assert_eq!(info["cgroupDriver"], driver, "{info}");
        // The kubelet is proven by it, and has ended what it found there.
        assert!(!Path::new(former).exists(), "{former}");
    }
    assert_ne!(takeover::main_process("kubelet.service"), kubelet);
    assert_ne!(runs(node, &host.version), daemon);
}

#[test]
fn guest_agent_takes_a_node_over_and_gives_it_back() {
    let host = Host::start();
    let (node, version) = (&host.node, &host.version);
    let image = image_of(&programs(), version);
    let cluster = Cluster::start(version, Some(image.path()));
    cluster
        .reports("the node is another runtime's", |status| status["state"] == "Foreign" && status["phase"] == "Idle");
    is_staged(version);

    let good = cluster.revision(version);
    assert_eq!(operated(&cluster, node, &good), "adopted", "{}", tail());
    let status = cluster.has(&good);
    assert_eq!((&status["state"], &status["runtimeVersion"]), (&json!("Managed"), &json!(version)), "{status}");
    assert_eq!((&status["failed"], &status["crashCount"]), (&Value::Null, &json!(0)), "{status}");
    node.is_on("berth");
    runs(node, version);
    assert_eq!(systemctl(&["is-enabled", "berth.service"]), "enabled");
    changes_its_driver(&cluster, &host, &good);

    let absent = cluster.revision_of(version, &json!({"state": "Absent"}));
    assert_eq!(operated(&cluster, node, &absent), "returned", "{}", tail());
    cluster.reports("the node is the other runtime's again, and well", |status| {
        let there = status["currentRevision"] == *absent && status["state"] == "Absent";
        there && status["phase"] == "Idle" && status["healthy"] == true
    });
    wait("the cluster's revisions are forgotten", || if fs::exists(APPLIED).unwrap() { Err(tail()) } else { Ok(()) });
    node.is_on("containerd");

    drop(cluster);
    // What an agent has staged stays there, and nothing runs it.
    is_staged(version);
    assert!(fs::symlink_metadata(place("current")).is_err());
    fs::remove_dir_all(PREFIX).unwrap();
    host.finish();
}

#[test]
fn guest_agent_switches_to_another_version_and_back() {
    let host = Host::taken_over();
    let (node, version) = (&host.node, &host.version);
    // As if an agent had staged it.
    list(&place(version));
    stage_broken(OLD);
    list(&place(OLD));
    let mut cluster = Cluster::start(version, None);
    let [former, next] = [programs(), next_programs()].map(|directory| Version::of(&cluster, &directory));
    assert_ne!(former.name, next.name);
    cluster.tell(&former.revision);
    cluster.has(&former.revision);

    let mut work = Work::of(node);
    switch(&mut cluster, node, &mut work, [&former, &next]);
    // An agent that starts removes what nobody goes back to any more, and that alone.
    cluster.rolls_out(&next.name, next.image.path(), &next.revision);
    assert!(!place(OLD).exists(), "nobody goes back to that one");
    is_staged(&former.name);
    switch(&mut cluster, node, &mut work, [&next, &former]);
    work.session.end();

    drop(cluster);
    host.give_back();
}

#[test]
fn guest_agent_goes_back_from_a_version_that_does_not_start() {
    let host = Host::taken_over();
    let (node, version) = (&host.node, &host.version);
    stage_broken(BROKEN);
    let cluster = Cluster::start(version, None);
    let good = cluster.want(version);
    cluster.has(&good);

    let (mut work, daemon) = (Work::of(node), runs(node, version));
    let broken = cluster.want(BROKEN);
    let began = Instant::now();
    let status = cluster.reports("the version is given up", |status| status["failed"]["revision"] == *broken);
    let message = status["failed"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(status["failed"]["reason"] == "Refused" && message.contains("berth.service does not start"), "{status}");
    cluster.has(&good);
    let took = began.elapsed();
    println!("back after {:.1} s: {message}", took.as_secs_f64());
    assert!(took < BACK_LIMIT, "the way back took {took:?}\n{}", tail());

    assert_ne!(runs(node, version), daemon);
    work.goes_on(node);
    work.session.end();

    drop(cluster);
    host.give_back();
}
