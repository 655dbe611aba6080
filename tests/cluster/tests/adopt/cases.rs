//! The cases. Each leaves the node as it found it: on containerd.
use crate::node::{Node, told};
use berth_cluster_tests::runtime::Kind;
use std::fs;
use std::time::Duration;

/// What is not allowed or not known changes nothing, and says what to do.
pub fn refusals(node: &Node) {
    // Another case may have had this node before.
    let phase = node.status()["phase"].clone();
    let before = node.files();
    let words = node.start_words();
    let without =
        |out: &str| -> Vec<&str> { words.iter().map(String::as_str).filter(|w| !w.starts_with(out)).collect() };
    for (words, remedy) in [
        (without("--without-grant"), "--grant ID"),
        (without("--kubelet-st"), "--kubelet-stop COMMAND"),
        ([without("--without-grant"), vec!["--grant=g", "--grant-expires=1000"]].concat(), "has expired"),
    ] {
        let output = node.adopt(&words).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", told(&output));
        assert!(told(&output).contains(remedy), "{remedy}: {}", told(&output));
    }
    let output = node.adopt(&[without("-o"), vec!["--dry-run"]].concat()).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    for words in
        ["kubelet.d/99-berth.conf is made", "stop-kubelet", "default/web-node", "PodAndContainerStatsFromCRI: true"]
    {
        assert!(told(&output).contains(words), "{words}: {}", told(&output));
    }
    assert_eq!(node.status()["phase"], phase);
    node.is_untouched(&before);
}

/// The whole way, and back.
fn there_and_back(node: &Node) {
    let before = node.files();
    let taken = node.take_over();
    assert_eq!((taken["phase"].as_str(), taken["profile"].as_str()), (Some("adopted"), Some("command")), "{taken}");
    node.is_on(Kind::Berth);
    for file in taken["files"].as_array().unwrap() {
        assert!(file["now"] == file["after"] && file["now"] != file["before"], "{file}");
    }
    let again = node.adopt(&node.start_words().iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap();
    assert!(told(&again).contains("was taken over already"), "{}", told(&again));
    let back = node.give_back();
    assert_eq!(back["phase"], "returned", "{back}");
    node.is_on(Kind::Containerd);
    node.is_untouched(&before);
}

pub fn there_and_back_by_a_drop_in(node: &Node) {
    there_and_back(node);
}

/// A kubelet that knows no drop-ins has its configuration file changed.
pub fn there_and_back_by_the_file(node: &Node) {
    fs::remove_dir(node.base().join("kubelet.d")).unwrap();
    node.start_kubelet(false);
    node.is_on(Kind::Containerd);
    there_and_back(node);
    node.start_kubelet(true);
    node.is_on(Kind::Containerd);
}

/// SIGKILL at these steps: the dead-man timer walks back.
fn killed_at(node: &Node, steps: &[&str]) {
    let words = node.start_words();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let before = node.files();
    for step in steps {
        node.killed_at(&words, &format!("adopt/{step}/leave"));
        assert_eq!(node.settled(), "not-adopted", "killed in {step}");
        node.is_on(Kind::Containerd);
        node.is_untouched(&before);
    }
}

pub fn killed_before_the_kubelet_is_touched(node: &Node) {
    killed_at(node, &["arm", "stage", "daemon", "images", "canary"]);
}

pub fn killed_when_the_kubelet_is_stopped(node: &Node) {
    killed_at(node, &["stop-kubelet", "clear-pods"]);
}

pub fn killed_after_the_switch(node: &Node) {
    killed_at(node, &["switch", "start-kubelet"]);
}

/// Killed right before the proof is recorded it walks back, right after it is finished.
pub fn killed_when_it_is_proven(node: &Node) {
    killed_at(node, &["verify"]);
    let before = node.files();
    let words = node.start_words();
    node.killed_at(&words.iter().map(String::as_str).collect::<Vec<_>>(), "adopt/commit/enter");
    assert_eq!(node.settled(), "adopted");
    node.is_on(Kind::Berth);
    node.give_back();
    node.is_on(Kind::Containerd);
    node.is_untouched(&before);
}

/// The same on the way back: before the commit the node stays on Berth, after it it is given back.
pub fn killed_on_the_way_back(node: &Node) {
    let before = node.files();
    node.take_over();
    let words = ["return", "--without-grant"];
    node.killed_at(&words, "return/switch/leave");
    assert_eq!(node.settled(), "adopted");
    node.is_on(Kind::Berth);
    node.killed_at(&words, "return/stop-daemon/leave");
    assert_eq!(node.settled(), "returned");
    node.is_on(Kind::Containerd);
    node.is_untouched(&before);
}

/// Berth's daemon dies after the switch, for good: the adopter notices, and walks back by itself.
pub fn a_dead_daemon_walks_back(node: &Node) {
    let before = node.files();
    let words = node.start_words();
    let words: Vec<&str> =
        words.iter().map(|w| if w.starts_with("--deadline") { "--deadline=20s" } else { w.as_str() }).collect();
    let (mut child, hold) = node.held_at(&words, "adopt/start-kubelet/enter");
    node.kill_berth();
    fs::remove_file(hold).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3), "it failed, and walked back");
    let status = node.status();
    assert_eq!(status["phase"], "not-adopted", "{status}");
    assert!(status["reason"].as_str().unwrap().contains("verify"), "{status}");
    node.is_on(Kind::Containerd);
    node.is_untouched(&before);
}

/// `berth supervise` starts a daemon that dies again, and takes over the one that a dead supervisor has left.
pub fn supervised(node: &Node) {
    let before = node.files();
    node.take_over();
    let status = || -> serde_json::Value {
        serde_json::from_slice(&fs::read(node.root().join("run/supervise.json")).unwrap()).unwrap()
    };
    let kill = |pid: &serde_json::Value| {
        let killed = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
        assert!(killed.success());
    };
    let first = status();
    kill(&first["daemon"]);
    let limit = Duration::from_secs(30);
    let second = node.wait("the daemon is started again", limit, || {
        let now = status();
        if now["daemon"].is_u64() && now["daemon"] != first["daemon"] { Ok(now) } else { Err(now.to_string()) }
    });
    assert_eq!(second["ends"], 1, "{second}");
    node.is_on(Kind::Berth);

    kill(&second["supervisor"]);
    node.wait("the daemon answers", limit, || {
        let output = node.berth(&["info"]).output().unwrap();
        if output.status.success() { Ok(()) } else { Err(told(&output)) }
    });
    let mut supervisor = node.berth(&["supervise"]).spawn().unwrap();
    let third = node.wait("the new supervisor has the old daemon", limit, || {
        let now = status();
        if now["supervisor"] == supervisor.id() { Ok(now) } else { Err(now.to_string()) }
    });
    assert_eq!(third["daemon"], second["daemon"], "it runs on: {third}");
    node.give_back();
    assert!(supervisor.wait().unwrap().success());
    node.is_on(Kind::Containerd);
    node.is_untouched(&before);
}
