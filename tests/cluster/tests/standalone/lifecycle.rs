//! The life of containers: order, hooks, ends and what is told of them.
use berth_cluster_tests::images;
use berth_cluster_tests::standalone::{Standalone, container, ended};
use serde_json::{Value, json};

/// One container of busybox that runs a script.
pub fn shell(name: &str, script: &str) -> Value {
    json!({"name": name, "image": images::BUSYBOX, "command": ["sh", "-c", script]})
}

/// An init container ends before the sidecar starts, which is ready before the main one starts.
pub fn init_and_sidecar(node: &Standalone) {
    let data = json!([{"name": "data", "mountPath": "/data"}]);
    let with = |mut container: Value| {
        container["volumeMounts"] = data.clone();
        container
    };
    let mut sidecar = with(shell("side", "cat /data/first && sleep 1 && echo two > /data/second; sleep 3600"));
    sidecar["restartPolicy"] = "Always".into();
    sidecar["startupProbe"] = json!({"exec": {"command": ["test", "-f", "/data/second"]}, "periodSeconds": 1});
    node.add(
        "ordered",
        &json!({
            "initContainers": [with(shell("first", "echo one > /data/first")), sidecar],
            "containers": [with(shell("main", "cat /data/first /data/second && sleep 3600"))],
            "volumes": [{"name": "data", "emptyDir": {}}],
        }),
    );
    let pod = node.wait_ready("ordered");
    assert_eq!(ended(&pod, "first").map(|state| &state["reason"]), Some(&json!("Completed")));
    assert_eq!(container(&pod, "side")["started"], true);
    for name in ["side", "main"] {
        assert_eq!(container(&pod, name)["restartCount"], 0, "{name}");
    }
    assert_eq!(node.crictl(&["logs", &node.id(&pod, "main")]), "one\ntwo\n");
}

/// postStart runs before the container counts as running; preStop runs before SIGTERM.
pub fn hooks(node: &Standalone) {
    let dir = node.space().base().join("hooks");
    let mut main = shell("main", "trap 'echo terminated >> /host/order; exit 0' TERM; sleep 3600 & wait");
    main["lifecycle"] = json!({
        "postStart": {"exec": {"command": ["sh", "-c", "echo started >> /host/order"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "echo stopping >> /host/order"]}},
    });
    main["volumeMounts"] = json!([{"name": "host", "mountPath": "/host"}]);
    node.add(
        "hooked",
        &json!({
            "terminationGracePeriodSeconds": 30, "containers": [main],
            "volumes": [{"name": "host", "hostPath": {"path": dir, "type": "DirectoryOrCreate"}}],
        }),
    );
    node.wait_ready("hooked");
    let order = || std::fs::read_to_string(dir.join("order")).unwrap_or_default();
    assert_eq!(order(), "started\n");
    node.remove("hooked");
    assert_eq!(order(), "started\nstopping\nterminated\n");
}

/// A container's last words: from the file, and from the log where it fails without having written any.
pub fn termination_messages(node: &Standalone) {
    let mut talker = shell("talker", "echo unheard; echo bye > /dev/termination-log; exit 3");
    talker["terminationMessagePolicy"] = "FallbackToLogsOnError".into();
    let mut failing = shell("failing", "echo first; echo last words; exit 4");
    failing["terminationMessagePolicy"] = "FallbackToLogsOnError".into();
    let mut elsewhere = shell("elsewhere", "printf fine > /tmp/words");
    elsewhere["terminationMessagePath"] = "/tmp/words".into();
    node.add("talkers", &json!({"restartPolicy": "Never", "containers": [talker, failing, elsewhere]}));
    for (name, code, reason, message) in [
        ("talker", 3, "Error", "bye\n"),
        ("failing", 4, "Error", "first\nlast words\n"),
        ("elsewhere", 0, "Completed", "fine"),
    ] {
        let state = node.wait_ended("talkers", name);
        assert_eq!(
            (&state["exitCode"], &state["reason"], &state["message"]),
            (&json!(code), &json!(reason), &json!(message)),
            "{name}"
        );
    }
    node.wait_pod("talkers", "failed as a whole", |pod| pod["status"]["phase"] == "Failed");
}

/// More memory than allowed: killed, and said to be so.
pub fn out_of_memory(node: &Standalone) {
    node.add(
        "hungry",
        &json!({"restartPolicy": "Never", "containers": [{
            "name": "main", "image": images::WEB, "args": ["alloc", "200"], "resources": {"limits": {"memory": "32Mi"}},
        }]}),
    );
    let state = node.wait_ended("hungry", "main");
    assert_eq!((&state["reason"], &state["exitCode"]), (&json!("OOMKilled"), &json!(137)));
}

/// A container that fails is started again, more and more slowly, with its last end on record.
pub fn back_off(node: &Standalone) {
    node.add("failing", &json!({"containers": [shell("main", "echo try; exit 7")]}));
    let pod = node.wait_pod("failing", "in back-off after two restarts", |pod| {
        let status = container(pod, "main");
        status["restartCount"].as_u64() >= Some(2) && status["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    });
    let last = &container(&pod, "main")["lastState"]["terminated"];
    assert_eq!((&last["exitCode"], &last["reason"]), (&json!(7), &json!("Error")));
    let message = container(&pod, "main")["state"]["waiting"]["message"].to_string();
    assert!(message.contains("back-off"), "{message}");
    node.remove("failing");
}
