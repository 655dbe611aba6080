//! The kubelet or the runtime dies and comes back: nothing changes for pods.
use super::lifecycle::shell;
use berth_cluster_tests::standalone::{Standalone, container};
use berth_cluster_tests::{cgroups, images, kubelet};
use serde_json::{Value, json};

/// What must not change: ids, processes, restarts, addresses.
fn fingerprint(node: &Standalone, name: &str) -> Value {
    let pod = node.wait_ready(name);
    let status = container(&pod, "main");
    let pids = cgroups::read(&node.groups(&pod, "main"), "cgroup.procs");
    json!({
        "id": status["containerID"], "restarts": status["restartCount"], "started": status["state"]["running"]["startedAt"],
        "address": pod["status"]["podIP"], "pids": pids, "sandboxes": sandboxes(node, name),
    })
}

fn sandboxes(node: &Standalone, name: &str) -> String {
    node.crictl(&["pods", "-q", "--name", &format!("^{name}-{}$", kubelet::NODE_NAME)])
}

fn sleeper() -> Value {
    json!({"containers": [shell("main", "trap 'exit 0' TERM; sleep 3600 & wait")]})
}

/// SIGKILL to the kubelet while five pods start: each starts once, in one sandbox.
pub fn kubelet_killed_in_mid_start(node: &Standalone) {
    let names = ["early0", "early1", "early2", "early3", "early4"];
    names.iter().for_each(|name| node.add(name, &sleeper()));
    node.wait("one of them has a sandbox", || {
        let some = names.iter().any(|name| !sandboxes(node, name).is_empty());
        if some { Ok(()) } else { Err(String::new()) }
    });
    node.restart_kubelet(None);
    for name in names {
        let seen = fingerprint(node, name);
        // A container that was made and not yet started is made anew by a kubelet that finds it so, and counted as a restart
        // (pkg/kubelet/container/helpers.go, ShouldContainerBeRestarted). More than one would be ours.
        assert!(seen["restarts"].as_u64() <= Some(1), "{name}: {seen}");
        assert_eq!(seen["sandboxes"].as_str().unwrap().lines().count(), 1, "{name}: {seen}");
    }
    let before = names.map(|name| fingerprint(node, name));
    node.restart_kubelet(None);
    assert_eq!(names.map(|name| fingerprint(node, name)), before, "a kubelet's restart changes nothing");
    names.iter().for_each(|name| node.remove(name));
}

/// SIGKILL to the runtime, three times, while other pods start: those that run are untouched, and those that start get there.
pub fn runtime_killed_under_load(node: &Standalone) {
    let old = ["old0", "old1", "old2"];
    old.iter().for_each(|name| node.add(name, &sleeper()));
    let mut web = json!({"containers": [{"name": "main", "image": images::WEB, "ports": [{"containerPort": 80, "hostPort": 18090}]}]});
    web["terminationGracePeriodSeconds"] = 5.into();
    node.add("old-web", &web);
    let all = ["old0", "old1", "old2", "old-web"];
    let before = all.map(|name| fingerprint(node, name));
    let mut new = Vec::new();
    for round in 0..3 {
        for number in 0..3 {
            let name = format!("new{round}{number}");
            node.add(&name, &sleeper());
            new.push(name);
        }
        // Somewhere in the middle of their start, at another place each time.
        std::thread::sleep(std::time::Duration::from_millis(300 + 350 * round));
        node.kill_runtime();
    }
    assert_eq!(all.map(|name| fingerprint(node, name)), before, "pods that ran are unchanged");
    for name in &new {
        node.wait_ready(name);
    }
    let (status, _) = berth_cluster_tests::http::get(
        node.space(),
        &format!("{}:18090", berth_cluster_tests::space::NODE_ADDRESS),
        "/",
    )
    .unwrap();
    assert_eq!(status, 200, "the node's port still leads to the pod");
    assert_eq!(all.map(|name| fingerprint(node, name)), before, "and stay so");
    new.iter().for_each(|name| node.remove(name));
    all.iter().for_each(|name| node.remove(name));
}

/// A full disk by the kubelet's measure: images that nobody uses go, those in use stay, and static pods too.
pub fn image_collection(node: &Standalone) {
    node.add("user", &sleeper());
    let before = fingerprint(node, "user");
    node.crictl(&["pull", images::SPARE]);
    let has = |image: &str| node.crictl(&["images", "-q", image]).lines().count() == 1;
    assert!(has(images::SPARE));
    let mut options = super::options();
    options.config["imageMinimumGCAge"] = "1s".into();
    options.config["evictionHard"] = json!({"nodefs.available": "99%", "imagefs.available": "99%"});
    node.restart_kubelet(Some(options));
    node.wait("the spare image is collected", || if has(images::SPARE) { Err("it is there".into()) } else { Ok(()) });
    assert!(has(images::BUSYBOX), "an image in use stays");
    node.restart_kubelet(Some(super::options()));
    assert_eq!(fingerprint(node, "user"), before);
    node.remove("user");
}
