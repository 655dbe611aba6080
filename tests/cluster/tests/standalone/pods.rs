//! Pods as such: limits, probes, ports.
use berth_cluster_tests::space::NODE_ADDRESS;
use berth_cluster_tests::standalone::{Standalone, container, ended, is_ready};
use berth_cluster_tests::{cgroups, http, images};
use serde_json::{Value, json};

/// A web server with limits, a port of the node, and two probes: ready, reachable, and limited in the kernel.
pub fn limits_and_probes(node: &Standalone) {
    node.add(
        "web",
        &json!({"containers": [{
            "name": "web", "image": images::WEB,
            "ports": [{"containerPort": 80, "hostPort": 18080}],
            "resources": {"limits": {"memory": "64Mi", "cpu": "300m"}},
            "readinessProbe": {"httpGet": {"path": "/", "port": 80}, "periodSeconds": 1},
            "livenessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 1},
        }]}),
    );
    let pod = node.wait_ready("web");
    let (status, body) = http::get(node.space(), &format!("{NODE_ADDRESS}:18080"), "/").unwrap();
    assert_eq!(status, 200, "{body}");

    assert_eq!(container(&pod, "web")["image"], images::WEB, "the image is shown by its name");
    let groups = node.groups(&pod, "web");
    assert_eq!(cgroups::read(&groups, "memory.limit_in_bytes"), (64u64 << 20).to_string());
    let cpu = ["cpu.cfs_quota_us", "cpu.cfs_period_us"].map(|file| cgroups::read(&groups, file));
    assert_eq!(cpu, ["30000", "100000"]);
}

/// A command decides: not ready while it fails, ready when it succeeds, restarted when it fails for liveness.
pub fn exec_probes(node: &Standalone) {
    let script = "touch /tmp/alive; sleep 3; touch /tmp/ready; sleep 3; rm /tmp/alive; sleep 3600";
    let test =
        |file: &str| json!({"exec": {"command": ["test", "-f", file]}, "periodSeconds": 1, "failureThreshold": 1});
    node.add(
        "probed",
        &json!({"containers": [{
            "name": "main", "image": images::BUSYBOX, "command": ["sh", "-c", script],
            "startupProbe": test("/tmp/alive"), "readinessProbe": test("/tmp/ready"), "livenessProbe": test("/tmp/alive"),
        }]}),
    );
    let running = |pod: &Value| container(pod, "main")["state"]["running"].is_object();
    node.wait_pod("probed", "running but not ready", |pod| running(pod) && !is_ready(pod));
    node.wait_ready("probed");
    let pod = node.wait_pod("probed", "restarted", |pod| container(pod, "main")["restartCount"].as_u64() >= Some(1));
    assert_eq!(ended(&pod, "main").map(|state| &state["exitCode"]), Some(&json!(137)));
    node.remove("probed");
}

/// The gRPC health protocol.
pub fn grpc_probe(node: &Standalone) {
    let probe = json!({"grpc": {"port": 5000}, "periodSeconds": 1});
    node.add(
        "health",
        &json!({"containers": [{
            "name": "main", "image": images::AGNHOST, "args": ["grpc-health-checking"],
            "readinessProbe": probe, "livenessProbe": probe,
        }]}),
    );
    let pod = node.wait_ready("health");
    assert_eq!(container(&pod, "main")["restartCount"], 0);
}

/// With a user namespace the container's root is nobody on the node, and still owns its volumes.
pub fn user_namespace(node: &Standalone) {
    let script = "cat /proc/self/uid_map > /dev/termination-log; touch /data/file && stat -c %u /data/file >> /dev/termination-log";
    node.add(
        "mapped",
        &json!({
            "hostUsers": false, "restartPolicy": "Never",
            "containers": [{
                "name": "main", "image": images::BUSYBOX, "command": ["sh", "-c", script],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }],
            "volumes": [{"name": "data", "emptyDir": {}}],
        }),
    );
    let state = node.wait_ended("mapped", "main");
    assert_eq!(state["exitCode"], 0, "{state}");
    let message = state["message"].as_str().unwrap();
    let words: Vec<&str> = message.split_whitespace().collect();
    assert_eq!((words[0], words[2], words[3]), ("0", "65536", "0"), "{message}");
    let first: u64 = words[1].parse().unwrap();
    assert!(first >= 65536 && first.is_multiple_of(65536), "{message}");
}
