//! A revision that Berth is handed before it has the node. Each case leaves the node as it found it.
use crate::node::{Node, told};
use berth_cluster_tests::images;
use berth_cluster_tests::runtime::Kind;
use berth_cluster_tests::standalone::LIMIT;
use berth_crds::RuntimeRevisionSpec;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// What is applied, what was before it, and what became of starts.
const FILES: [&str; 4] =
    ["applied-revisions.json", "applied-revisions.former.json", "started-configuration.json", "failed-start.json"];
/// Pods' addresses on the built-in network: containerd's bridge has another one.
const SUBNET: &str = "10.87.0.0/24";

/// Which of them are there.
fn left(node: &Node) -> Vec<&'static str> {
    FILES.into_iter().filter(|name| node.root().join("lib").join(name).exists()).collect()
}

/// The name of the configuration that is applied, as the disk has it.
fn applied(node: &Node) -> Value {
    let text = fs::read(node.root().join("lib").join(FILES[0])).unwrap();
    serde_json::from_slice::<Value>(&text).unwrap()["configuration"]["name"].clone()
}

/// The same of the image policies.
fn applied_policies(node: &Node) -> Value {
    let text = fs::read(node.root().join("lib").join(FILES[0])).unwrap();
    serde_json::from_slice::<Value>(&text).unwrap()["policies"]["name"].clone()
}

fn forget(node: &Node) {
    left(node).into_iter().for_each(|name| fs::remove_file(node.root().join("lib").join(name)).unwrap());
}

/// The built-in network, for that many processes a container.
fn builtin(pids: u64) -> Value {
    json!({"network": {"mode": "Builtin", "subnet": SUBNET}, "runtime": {"pidsLimit": pids}})
}

/// A RuntimeRevision with that configuration, and its name.
fn object(config: &Value) -> (String, Value) {
    let mut spec = RuntimeRevisionSpec::of_runtime("0.1.0", &Default::default());
    // As it stands there: also what no version knows.
    spec.runtime.as_mut().unwrap().config = config.clone();
    let name = spec.name();
    let object = json!({"apiVersion": "berth.dev/v1alpha1", "kind": "RuntimeRevision", "metadata": {"name": name}, "spec": spec});
    (name, object)
}

/// The words that take the node over with it, and its name.
fn start_words(node: &Node, (name, object): (String, Value)) -> (Vec<String>, String) {
    let file = node.base().join("revision.json");
    fs::write(&file, object.to_string()).unwrap();
    let words = node.start_words().into_iter().chain([format!("--revision={}", file.display())]);
    (words.collect(), name)
}

fn strs(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

/// The node's documents are taken away; where they are kept.
fn without_documents(node: &Node) -> (PathBuf, PathBuf) {
    let (document, aside) = (node.root().join("etc/50-node.yaml"), node.base().join("50-node.yaml"));
    fs::rename(&document, &aside).unwrap();
    (document, aside)
}

/// Nothing on the node says what its network is. Only the revision does: without it the adoption fails, with it the node is taken over.
pub fn needed(node: &Node) {
    let before = node.files();
    let (document, aside) = without_documents(node);
    let output = node.adopt(&strs(&node.start_words())).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", told(&output));
    assert!(told(&output).contains("NetworkReady is false"), "{}", told(&output));
    node.is_on(Kind::Containerd);

    let (words, name) = start_words(node, object(&builtin(4000)));
    let output = node.adopt(&[&strs(&words)[..], &["--dry-run"]].concat()).output().unwrap();
    assert!(output.status.success() && told(&output).contains(&name), "{}", told(&output));
    assert!(left(node).is_empty(), "a plan changes nothing");
    let output = node.adopt(&strs(&words)).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    node.is_on(Kind::Berth);
    assert_eq!(applied(node), name);
    let told_limit = node.berth(&["config", "explain", "spec.runtime.pidsLimit"]).output().unwrap();
    assert!(told(&told_limit).contains("4000"), "{}", told(&told_limit));
    assert!(node.addresses().iter().all(|ip| ip.starts_with("10.87.0.")), "{:?}", node.addresses());

    // Who gave it sees to it after a return; and what was there before an adoption is there again after its walk back.
    node.give_back();
    node.is_on(Kind::Containerd);
    assert_eq!(applied(node), name);
    let (words, other) = start_words(node, object(&builtin(5000)));
    let (mut child, hold) = node.held_at(&strs(&words), "adopt/daemon/leave");
    assert_eq!(applied(node), other);
    child.kill().unwrap();
    child.wait().unwrap();
    fs::remove_file(hold).unwrap();
    assert_eq!(node.settled(), "not-adopted");
    assert_eq!(applied(node), name);
    forget(node);
    fs::rename(aside, document).unwrap();
    node.is_on(Kind::Containerd);
    node.is_untouched(&before);
}

/// The adopter is killed when the daemon has it, and when the kubelet's files are switched: nothing is left of it.
pub fn walked_back(node: &Node) {
    let before = node.files();
    let (words, _) = start_words(node, object(&builtin(4000)));
    for step in ["daemon", "switch"] {
        node.killed_at(&strs(&words), &format!("adopt/{step}/leave"));
        assert_eq!(node.settled(), "not-adopted", "killed in {step}");
        assert!(left(node).is_empty(), "killed in {step}: {:?}", left(node));
        node.is_on(Kind::Containerd);
        node.is_untouched(&before);
    }
}

/// A set of policies that denies the image that no pod of the node uses, with what else it says, as an object.
fn policies(more: &Value) -> (String, Value) {
    let mut policy = json!({"mode": "Enforce", "registries": {"deny": [images::SPARE.trim_end_matches(":v1")]}});
    policy.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let spec: RuntimeRevisionSpec =
        serde_json::from_value(json!({"policies": [{"name": "no-spare", "spec": policy}]})).unwrap();
    let name = spec.name();
    let object = json!({"apiVersion": "berth.dev/v1alpha1", "kind": "RuntimeRevision", "metadata": {"name": name}, "spec": spec});
    (name, object)
}

/// The denied image, asked for by hand: no agent is there that would have told anybody.
fn is_denied(node: &Node) {
    let pulled = node.berth(&["pull", images::SPARE]).output().unwrap();
    assert!(!pulled.status.success() && told(&pulled).contains("no-spare"), "{}", told(&pulled));
}

/// Image policies come with the configuration: the daemon enforces them from its first start, and has none of them after a walk back.
pub fn with_policies(node: &Node) {
    let before = node.files();
    let (set, policies_object) = policies(&json!({}));
    let (name, configuration) = object(&builtin(4000));
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [policies_object, configuration]});
    let (words, name) = start_words(node, (name, list));
    let (mut child, hold) = node.held_at(&strs(&words), "adopt/daemon/leave");
    is_denied(node);
    child.kill().unwrap();
    child.wait().unwrap();
    fs::remove_file(hold).unwrap();
    assert_eq!(node.settled(), "not-adopted");
    assert!(left(node).is_empty(), "{:?}", left(node));
    node.is_on(Kind::Containerd);

    let output = node.adopt(&strs(&words)).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    node.is_on(Kind::Berth);
    is_denied(node);
    assert_eq!((applied(node), applied_policies(node)), (name.into(), set.into()));
    node.give_back();
    forget(node);
    node.is_on(Kind::Containerd);
    node.is_untouched(&before);
}

/// What cannot be had of it is said before anything is changed.
pub fn refused(node: &Node) {
    let before = node.files();
    let (_, mut changed) = object(&builtin(4000));
    changed["spec"]["runtime"]["config"]["runtime"]["pidsLimit"] = 5000.into();
    let with = |set: Value| json!({"kind": "List", "items": [object(&builtin(4000)).1, set]});
    let cases = [
        (with(policies(&json!({"turbo": true})).1), "turbo"),
        (policies(&json!({})).1, "and no configuration"),
        (object(&json!({"runtime": {"turbo": true}})).1, "turbo"),
        (object(&json!({"network": {"mode": "Builtin", "subnet": "10.87.0.5/24"}})).1, "spec.network.subnet"),
        (object(&json!({"runtime": {"cgroupManager": "Systemd"}})).1, "spec.runtime.cgroupManager: Cgroupfs"),
        (changed, "was changed"),
        (json!({"kind": "RuntimeRevision"}), "metadata"),
    ];
    for (object, problem) in cases {
        let (words, _) = start_words(node, (String::new(), object));
        let output = node.adopt(&strs(&words)).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{problem}: {}", told(&output));
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        let refusals = answer["refusals"].to_string();
        assert!(answer["phase"] == "refused" && refusals.contains(problem), "{problem}: {answer}");
    }
    assert!(left(node).is_empty());
    node.is_on(Kind::Containerd);
    node.is_untouched(&before);
}

/// A daemon that ran before has it at once, and has not after a walk back; it runs on.
pub fn a_daemon_that_runs(node: &Node) {
    let before = node.files();
    let mut supervisor = node.berth(&["supervise"]).spawn().unwrap();
    let answers = || {
        let output = node.berth(&["config", "explain", "spec.runtime.pidsLimit"]).output().unwrap();
        if output.status.success() { Ok(told(&output)) } else { Err(told(&output)) }
    };
    node.wait("the daemon answers", LIMIT, answers);
    let document: Value = serde_json::from_slice(&fs::read(node.root().join("etc/50-node.yaml")).unwrap()).unwrap();
    let config = json!({"network": document["spec"]["network"], "runtime": {"pidsLimit": 4321}});
    let (words, name) = start_words(node, object(&config));
    let (mut child, hold) = node.held_at(&strs(&words), "adopt/daemon/leave");
    assert_eq!(applied(node), name);
    assert!(answers().unwrap().contains("4321"));
    child.kill().unwrap();
    child.wait().unwrap();
    fs::remove_file(hold).unwrap();
    assert_eq!(node.settled(), "not-adopted");
    assert!(!answers().unwrap().contains("4321"), "it runs on, without it");
    assert!(left(node).is_empty(), "{:?}", left(node));
    assert!(Command::new("kill").arg(supervisor.id().to_string()).status().unwrap().success());
    assert!(supervisor.wait().unwrap().success());
    node.is_on(Kind::Containerd);
    node.is_untouched(&before);
}
