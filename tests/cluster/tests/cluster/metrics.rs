//! What the cluster can measure of pods.
use super::workloads::script;
use berth_cluster_tests::cluster::Cluster;

/// `kubectl top` asks an API of its own, metrics.k8s.io, that comes with an add-on and not with Kubernetes; it says so. What the
/// add-on reads is there: the kubelet's resource metrics, with this pod.
pub fn top(cluster: &Cluster) {
    let namespace = cluster.namespace("top");
    namespace.pod("main", &script("sleep 3600"));
    let ran = namespace.kubectl.try_run(&["top", "pods"]);
    assert!(ran.code != 0 && ran.err.contains("Metrics API not available"), "{ran:?}");
    namespace.cluster.wait("the resource metrics have the pod", || {
        let text = namespace.kubectl.try_run(&["get", "--raw", "/api/v1/nodes/node/proxy/metrics/resource"]).text();
        let has = |series: &str| {
            let labels = ["namespace=\"top\"", "pod=\"main\""];
            text.lines().any(|line| line.starts_with(series) && labels.iter().all(|label| line.contains(label)))
        };
        let wanted =
            ["pod_cpu_usage_seconds_total", "pod_memory_working_set_bytes", "container_cpu_usage_seconds_total"];
        if wanted.iter().all(|series| has(series)) { Ok(()) } else { Err(text) }
    });
}
