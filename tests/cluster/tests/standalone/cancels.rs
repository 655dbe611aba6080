//! A kubelet that gives its calls no time: it goes away in their middle and asks again with the same metadata.
use super::lifecycle::shell;
use berth_cluster_tests::kubelet;
use berth_cluster_tests::processes::{self, Process};
use berth_cluster_tests::standalone::{Standalone, container, is_ready};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::time::Duration;

/// The kubelet's time for a call; it gives RunPodSandbox twice as much (cri-client, pkg/remote_runtime.go).
const CALL_LIMIT: &str = "1s";
/// Longer than any call's time, and shorter than the daemon waits for a monitor.
const HOLD: Duration = Duration::from_secs(4);

fn monitors(node: &Standalone) -> Vec<Process> {
    let mut all = processes::of(node.space());
    all.retain(|process| process.words[0] == "berth-monitor");
    all
}

/// Holds processes up for longer than a call may take.
fn hold(processes: &[Process]) {
    processes.iter().for_each(|process| process.signal(Signal::SIGSTOP));
    std::thread::sleep(HOLD);
    processes.iter().for_each(|process| process.signal(Signal::SIGCONT));
}

/// What the kubelet has logged from this byte on.
fn log_from(node: &Standalone, start: usize) -> String {
    let text = std::fs::read(node.space().base().join("logs/kubelet.log")).unwrap();
    String::from_utf8_lossy(&text[start..]).into_owned()
}

/// RunPodSandbox, then StartContainer of a restart, each longer than the kubelet waits: both are finished all the same, the
/// same pod comes up, and no name is taken by what nobody waited for.
pub fn kubelet_cancels_in_mid_call(node: &Standalone) {
    let names = ["hasty0", "hasty1", "hasty2"];
    let mut options = super::options();
    options.config["runtimeRequestTimeout"] = CALL_LIMIT.into();
    node.restart_kubelet(Some(options));
    let (old, start) = (monitors(node), log_from(node, 0).len());
    names.iter().for_each(|name| {
        node.add(name, &json!({"containers": [shell("main", "trap 'exit 0' TERM; sleep 3600 & wait")]}))
    });
    let held = node.wait("monitors of the new pods", || {
        let new: Vec<Process> = monitors(node).into_iter().filter(|process| !old.contains(process)).collect();
        if new.is_empty() { Err("none".into()) } else { Ok(new) }
    });
    hold(&held);
    let ready = names.map(|name| node.wait_ready(name));
    for name in names {
        let sandboxes = node.crictl(&["pods", "-q", "--name", &format!("^{name}-{}$", kubelet::NODE_NAME)]);
        assert_eq!(sandboxes.lines().count(), 1, "{name}: {sandboxes}");
    }

    let ids = ready.each_ref().map(|pod| node.id(pod, "main"));
    node.crictl(&["stop", "--timeout=5", &ids[0], &ids[1], &ids[2]]);
    hold(&monitors(node));
    for (name, id) in names.iter().zip(&ids) {
        let again =
            |pod: &Value| is_ready(pod) && !container(pod, "main")["containerID"].to_string().contains(id.as_str());
        let pod = node.wait_pod(name, "restarted", again);
        let running = node.crictl(&["ps", "-q", "--label", &format!("io.kubernetes.pod.uid={}", uid(&pod))]);
        assert_eq!(running.lines().count(), 1, "{name}: {running}");
    }
    let log = log_from(node, start);
    assert!(log.contains("DeadlineExceeded"), "no call was given up, so nothing was tested");
    let taken: Vec<&str> =
        log.lines().filter(|line| line.contains("AlreadyExists") || line.contains("exists as")).collect();
    assert!(taken.is_empty(), "{taken:#?}");
    node.restart_kubelet(Some(super::options()));
    names.iter().for_each(|name| node.remove(name));
}

/// A static pod's uid, as the runtime was told it.
fn uid(pod: &Value) -> &str {
    pod["metadata"]["annotations"]["kubernetes.io/config.hash"].as_str().unwrap()
}

/// With the gate EventedPLEG (alpha in 1.37) the kubelet listens to GetContainerEvents and looks at a pod as soon as a
/// container of it ends: one stream, no failure, and events that come when they happen.
pub fn evented_pleg(node: &Standalone) {
    let mut options = super::options();
    options.config["featureGates"] = json!({"EventedPLEG": true});
    node.restart_kubelet(Some(options));
    node.add("evented", &json!({"restartPolicy": "Never", "containers": [shell("main", "sleep 1; exit 3")]}));
    assert_eq!(node.wait_ended("evented", "main")["exitCode"], 3);
    let name = |rest: &str| format!("kubelet_evented_pleg_connection_{rest}");
    node.wait("the kubelet counts events", || {
        let (_, text) =
            berth_cluster_tests::http::get(node.space(), kubelet::READ_ONLY, "/metrics").map_err(|e| e.to_string())?;
        let number = |series: String| {
            text.lines().find_map(|line| line.strip_prefix(&series)?.trim().parse::<f64>().ok()).unwrap_or(-1.0)
        };
        let (up, failed) = (number(name("success_count")), number(name("error_count")));
        let (events, seconds) = (number(name("latency_seconds_count")), number(name("latency_seconds_sum")));
        let told = format!("{up} streams, {failed} failures, {events} events in {seconds} s");
        // Created and started of the sandbox and the container, and the container's end.
        if up >= 1.0 && failed <= 0.0 && events >= 3.0 && seconds / events < 1.0 { Ok(()) } else { Err(told) }
    });
    node.restart_kubelet(Some(super::options()));
    node.remove("evented");
}
