//! Pods as such: limits, probes, ports.
use berth_cluster_tests::space::NODE_ADDRESS;
use berth_cluster_tests::standalone::Standalone;
use berth_cluster_tests::{cgroups, http, images};
use serde_json::json;
use std::fs;

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

    let id = pod["status"]["containerStatuses"][0]["containerID"].as_str().unwrap();
    let id = id.strip_prefix("berth://").unwrap_or_else(|| panic!("the runtime's name is not in {id}"));
    let uid = pod["metadata"]["annotations"]["kubernetes.io/config.hash"].as_str().unwrap();
    let group = format!("{}/kubepods/pod{uid}/{id}", node.space().group());
    let read = |file: &str| {
        let dirs = cgroups::directories(&group);
        let found = dirs.iter().find_map(|dir| fs::read_to_string(dir.join(file)).ok());
        found.unwrap_or_else(|| panic!("no {file} in {dirs:?}")).trim().to_owned()
    };
    assert_eq!(read("memory.limit_in_bytes"), (64u64 << 20).to_string());
    assert_eq!((read("cpu.cfs_quota_us"), read("cpu.cfs_period_us")), ("30000".into(), "100000".into()));
}
