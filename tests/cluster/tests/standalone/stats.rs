//! What the kubelet measures of pods, by itself and by the runtime.
use super::lifecycle::shell;
use berth_cluster_tests::http;
use berth_cluster_tests::kubelet::READ_ONLY;
use berth_cluster_tests::standalone::{Standalone, is_ready};
use serde_json::{Value, json};

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// What the kubelet says about a pod of this name, once it says it.
fn summary(node: &Standalone, name: &str, complete: impl Fn(&Value) -> bool) -> Value {
    node.wait(&format!("the summary has everything of {name}"), || {
        let summary = node.kubelet_json("/stats/summary")?;
        let full = format!("{name}-node");
        let mut pods = summary["pods"].as_array().into_iter().flatten();
        let pod = pods.find(|pod| pod["podRef"]["name"] == full).cloned().unwrap_or_default();
        if complete(&pod) { Ok(pod) } else { Err(pod.to_string()) }
    })
}

/// /stats/summary without feature gates: the container's CPU, memory and root file system, logs, volumes, the pod's sums.
pub fn stats_summary(node: &Standalone) {
    const WRITTEN: u64 = 6 << 20;
    let script =
        "dd if=/dev/zero of=/file bs=1M count=6 2>/dev/null; dd if=/dev/zero of=/data/file bs=1M count=6 2>/dev/null
        echo logged; while :; do :; done";
    let mut main = shell("main", script);
    main["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    main["resources"] = json!({"limits": {"cpu": "100m", "memory": "64Mi"}});
    node.add("counted", &json!({"containers": [main], "volumes": [{"name": "data", "emptyDir": {}}]}));
    let pod = summary(node, "counted", |pod| {
        let container = &pod["containers"][0];
        number(&container["cpu"]["usageNanoCores"]) > 0
            && number(&container["memory"]["workingSetBytes"]) > 0
            && number(&container["rootfs"]["usedBytes"]) >= WRITTEN
            && number(&container["logs"]["usedBytes"]) > 0
            && number(&pod["cpu"]["usageNanoCores"]) > 0
            && number(&pod["memory"]["workingSetBytes"]) > 0
            && number(&pod["volume"][0]["usedBytes"]) >= WRITTEN
            && number(&pod["ephemeral-storage"]["usedBytes"]) >= 2 * WRITTEN
    });
    let cores = number(&pod["containers"][0]["cpu"]["usageNanoCores"]);
    assert!(cores < 200_000_000, "a container limited to 100m uses {cores} nanocores");
    assert!(number(&pod["containers"][0]["rootfs"]["inodesUsed"]) > 0, "{pod}");
    node.remove("counted");
    assert!(!node.pod("counted").is_ok_and(|pod| is_ready(&pod)));
}

/// With the gate PodAndContainerStatsFromCRI everything comes from the runtime: the summary with the pod's network, and
/// /metrics/cadvisor with the labels that dashboards ask for.
pub fn stats_from_the_runtime(node: &Standalone) {
    let mut options = super::options();
    options.config["featureGates"] = json!({"PodAndContainerStatsFromCRI": true});
    node.restart_kubelet(Some(options));
    let script = "while :; do wget -qO- http://127.0.0.1/ >/dev/null; ping -c 1 -W 1 $(ip route | sed -n 's/default via \\([^ ]*\\).*/\\1/p') >/dev/null; done";
    let mut main = shell("main", script);
    main["resources"] = json!({"limits": {"cpu": "100m", "memory": "64Mi"}});
    node.add("measured", &json!({"containers": [main]}));
    let pod = summary(node, "measured", |pod| {
        let container = &pod["containers"][0];
        number(&container["cpu"]["usageNanoCores"]) > 0
            && number(&container["memory"]["workingSetBytes"]) > 0
            && number(&pod["cpu"]["usageCoreNanoSeconds"]) > 0
            && number(&pod["memory"]["workingSetBytes"]) > 0
            && number(&pod["network"]["rxBytes"]) > 0
            && number(&pod["network"]["txBytes"]) > 0
            && number(&pod["process_stats"]["process_count"]) > 0
    });
    assert_eq!(pod["network"]["name"], "eth0", "{pod}");
    let wanted = [
        ("container_cpu_usage_seconds_total", "main"),
        ("container_memory_working_set_bytes", "main"),
        ("container_network_receive_bytes_total", ""),
        ("container_network_transmit_bytes_total", ""),
    ];
    node.wait("/metrics/cadvisor has the pod's series", || {
        let (_, text) = http::get(node.space(), READ_ONLY, "/metrics/cadvisor").map_err(|e| e.to_string())?;
        let has = |(series, container): &(&str, &str)| {
            let mut labels = vec!["namespace=\"default\"".to_owned(), "pod=\"measured-node\"".to_owned()];
            if !container.is_empty() {
                labels.push(format!("container=\"{container}\""));
            }
            text.lines().any(|line| line.starts_with(series) && labels.iter().all(|label| line.contains(label)))
        };
        let missing: Vec<_> = wanted.iter().filter(|series| !has(series)).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("missing {missing:?} in\n{text}")) }
    });
    node.remove("measured");
    node.restart_kubelet(Some(super::options()));
}
