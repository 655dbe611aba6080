//! kubectl logs, in every way that people use it.
use super::workloads::{script, shell};
use berth_cluster_tests::cluster::{Cluster, pod};
use berth_cluster_tests::runtime::Kind;
use serde_json::json;
use std::time::Duration;

/// The whole log, its end, its newest, with times; followed until the container ends.
pub fn of_a_pod(cluster: &Cluster) {
    let namespace = cluster.namespace("logs");
    let kubectl = &namespace.kubectl;
    let spec =
        script("for i in 1 2 3 4 5 6 7 8; do echo line $i; sleep 0.3; done; echo to stderr >&2; printf 'no newline'");
    kubectl.apply(&pod("talker", &spec));
    namespace.wait("pod", "talker", "running", |pod| pod["status"]["phase"] != "Pending");
    let followed = kubectl.run(&["logs", "-f", "talker"]);
    let lines: String = (1..=8).map(|i| format!("line {i}\n")).collect();
    // Berth finishes an unfinished last line in the log; containerd leaves it so.
    let end = if cluster.runtime().kind() == Kind::Berth { "\n" } else { "" };
    assert_eq!(followed, format!("{lines}to stderr\nno newline{end}"));
    assert_eq!(kubectl.run(&["logs", "talker"]), followed);
    assert_eq!(kubectl.run(&["logs", "talker", "--tail=2"]), format!("to stderr\nno newline{end}"));
    assert_eq!(kubectl.run(&["logs", "talker", "--since=1h"]), followed);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(kubectl.run(&["logs", "talker", "--since=1s"]), "");
    assert_eq!(kubectl.run(&["logs", "talker", "--limit-bytes=10"]), "line 1\nlin");
    let stamped = kubectl.run(&["logs", "talker", "--timestamps", "--tail=3"]);
    let mut times: Vec<&str> = Vec::new();
    for (line, text) in stamped.lines().zip(["line 8", "to stderr", "no newline"]) {
        let (time, rest) = line.split_once(' ').unwrap();
        assert_eq!(rest, text);
        // RFC 3339 with nanoseconds.
        assert!(
            time.len() >= "2026-01-01T00:00:00Z".len() && time.as_bytes()[10] == b'T' && time.ends_with('Z'),
            "{time}"
        );
        times.push(time);
    }
    assert!(times.is_sorted(), "{times:?}");
}

/// The log of the run before, after a restart.
pub fn previous(cluster: &Cluster) {
    let namespace = cluster.namespace("previous");
    let kubectl = &namespace.kubectl;
    let mut spec = json!({"terminationGracePeriodSeconds": 1, "containers": [
        shell("main", "test -f /data/first && again=second; touch /data/first; echo ${again:-first} run; test $again && sleep 3600; exit 3"),
    ]});
    spec["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    spec["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
    kubectl.apply(&pod("restarting", &spec));
    let restarted = namespace.wait("pod", "restarting", "runs again", |pod| {
        let status = &pod["status"]["containerStatuses"][0];
        status["restartCount"] == 1 && status["state"]["running"].is_object()
    });
    assert_eq!(restarted["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 3);
    assert_eq!(kubectl.run(&["logs", "restarting", "--previous"]), "first run\n");
    // It may run, and not have come that far.
    cluster.wait("it says so", || {
        let log = kubectl.run(&["logs", "restarting"]);
        if log == "second run\n" { Ok(()) } else { Err(log) }
    });
}
