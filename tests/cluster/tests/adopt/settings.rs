//! `berth adopt kubelet`: the kubelet of a node on Berth gets other settings, and comes back on those before whatever happens.
use crate::node::{Node, told};
use berth_cluster_tests::runtime::Kind;
use serde_json::{Value, json};
use std::fs;
use std::time::{Duration, Instant};

/// A kubelet that does not take its settings is noticed, and not waited for: that alone would take a minute.
const COMES_BACK: Duration = Duration::from_secs(58);

pub fn of_the_kubelet(node: &Node) {
    let before = node.files();
    let foreign = node.adopt(&["kubelet", "--inline", "{maxPods: 70}"]).output().unwrap();
    assert_eq!(foreign.status.code(), Some(1), "{}", told(&foreign));
    node.take_over();
    node.is_on(Kind::Berth);
    let (pod, lines, without) = (node.shell(), node.counted(), node.files());

    let status = set(
        node,
        "{maxPods: 70, evictionSoft: {memory.available: 60Mi}, evictionSoftGracePeriod: {memory.available: 1m}}",
    );
    assert_eq!((&status["phase"], &status["kubelet"]["maxPods"]), (&json!("adopted"), &json!(70)), "{status}");
    node.is_on(Kind::Berth);
    assert_eq!(node.shell(), pod, "no container was touched");
    let with = node.files();
    let file = node.base().join("kubelet.d/98-berth-settings.conf");
    assert!(with.len() == without.len() + 1 && with.contains_key(&file), "one file came");

    does_not_start(node);
    for step in ["stop-kubelet", "switch", "start-kubelet"] {
        node.killed_at(&["kubelet", "--inline", "{maxPods: 80}"], &format!("configure/{step}/leave"));
        assert_eq!(node.settled(), "adopted", "killed in {step}");
        node.is_on(Kind::Berth);
        assert!(node.files() == with, "killed in {step}");
        assert_eq!(node.status()["kubelet"]["maxPods"], 70);
    }
    refused(node);
    assert!(node.files() == with, "what is refused changes nothing");

    let status = set(node, "{}");
    assert_eq!(status["kubelet"], json!({}));
    assert!(node.files() == without, "the file went with the settings");
    set(node, "{maxPods: 90}");
    node.is_on(Kind::Berth);
    assert_eq!(node.shell(), pod);
    node.wait(
        "the log goes on",
        COMES_BACK,
        || if node.counted() > lines { Ok(()) } else { Err("not yet".to_owned()) },
    );
    node.give_back();
    node.is_on(Kind::Containerd);
    node.is_untouched(&before);
}

fn set(node: &Node, settings: &str) -> Value {
    let output = node.adopt(&["kubelet", "--inline", settings, "-o", "json"]).output().unwrap();
    assert!(output.status.success(), "{settings}: {}", told(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The table of fields takes it, the kubelet does not.
fn does_not_start(node: &Node) {
    let began = Instant::now();
    let output =
        node.adopt(&["kubelet", "--inline", "{imageGCHighThresholdPercent: 101}", "-o", "json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", told(&output));
    assert!(began.elapsed() < COMES_BACK, "it took {} s", began.elapsed().as_secs());
    let status = node.status();
    assert_eq!((&status["failed"], &status["kubelet"]["maxPods"]), (&json!("kubelet"), &json!(70)), "{status}");
    assert!(status["reason"].as_str().unwrap().contains("the kubelet ended"), "{status}");
    node.is_on(Kind::Berth);
}

fn refused(node: &Node) {
    let later = node.base().join("kubelet.d/99-site.conf");
    let text = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: 60\n";
    fs::write(&later, text).unwrap();
    for (settings, why) in [
        ("{authorization: {mode: AlwaysAllow}}", "must not be set: who may talk to the kubelet"),
        ("{maxPodz: 1}", "unknown field `maxPodz`"),
        ("{maxPods: 80}", "99-site.conf: has the last word: maxPods would be 60"),
    ] {
        let output = node.adopt(&["kubelet", "--inline", settings]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{settings}: {}", told(&output));
        assert!(told(&output).contains(why), "{why}: {}", told(&output));
    }
    fs::remove_file(later).unwrap();
}
