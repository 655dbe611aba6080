//! Workloads that controllers make: Deployments, Services.
use berth_cluster_tests::cluster::Cluster;
use berth_cluster_tests::images;
use serde_json::{Value, json};

/// Two web servers with limits and three probes.
fn web() -> Value {
    let probe = json!({"httpGet": {"path": "/", "port": 80}, "periodSeconds": 1});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{
                    "name": "web", "image": images::WEB, "ports": [{"containerPort": 80}],
                    "resources": {"requests": {"cpu": "50m"}, "limits": {"memory": "64Mi", "cpu": "200m"}},
                    "startupProbe": probe, "readinessProbe": probe, "livenessProbe": probe,
                }]},
            },
        },
    })
}

/// A Deployment becomes available, and its pods have different addresses.
pub fn deployment(cluster: &Cluster) {
    let namespace = cluster.namespace("deployment");
    namespace.kubectl.apply(&web());
    namespace.wait("deployment", "web", "both replicas are available", |d| d["status"]["availableReplicas"] == 2);
    let pods = namespace.kubectl.json(&["get", "pods", "-l", "app=web"]);
    let addresses: Vec<&str> =
        pods["items"].as_array().unwrap().iter().map(|pod| pod["status"]["podIP"].as_str().unwrap()).collect();
    assert_eq!(addresses.len(), 2);
    assert_ne!(addresses[0], addresses[1]);
}
