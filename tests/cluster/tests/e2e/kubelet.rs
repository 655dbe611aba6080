//! Settings of the node's kubelet by a RuntimeConfig: read from the Node, and from the kubelet itself by the API server.
use crate::chain::{self, CONFIG};
use crate::site::Site;
use crate::steering::goes_back;
use berth_cluster_tests::cluster;
use berth_cluster_tests::kubelet::NODE_NAME;
use serde_json::{Value, json};
use std::path::PathBuf;

/// What a kubelet has that was told nothing.
const DEFAULT_PODS: u64 = 110;

/// A kubelet gets settings without any pod noticing; is put back on them from others that it does not start with; and has none again
/// afterwards.
pub fn is_configured(site: &Site) {
    chain::is_taken_over(site);
    let kubectl = site.kubectl("default");
    let pod = json!({"containers": [{"name": "main", "image": berth_cluster_tests::images::WEB}]});
    kubectl.apply(&cluster::pod("witness", &pod));
    let container = |pod: &Value| pod["status"]["containerStatuses"][0]["containerID"].clone();
    let ready = |what: &str| {
        let pod = site.wait("the witness is ready", || {
            let pod = kubectl.get("pod", "witness")?;
            if cluster::has_condition(&pod, "Ready") { Ok(pod) } else { Err(pod["status"].to_string()) }
        });
        assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0, "{what}");
        container(&pod)
    };
    let first = ready("from the beginning");

    let daemon = supervised(site);
    let settings = json!({"kubelet": {"config": {"maxPods": 77, "containerLogMaxSize": "5Mi"}}});
    site.timed("the kubelet has other settings", || {
        kubectl.apply(&chain::config(site, &settings));
        let object = site.wait_object("runtimeconfig", CONFIG, "says what it takes", |object| {
            object["status"]["disruption"]["class"] == "KubeletRestart"
                && object["status"]["observedGeneration"] == object["metadata"]["generation"]
        });
        assert!(object["status"]["disruption"]["fields"].to_string().contains("spec.kubelet.config"), "{object}");
        chain::complete(site);
    });
    has(site, 77);
    assert_eq!(told(site, "containerLogMaxSize"), "5Mi");
    assert_eq!(supervised(site), daemon, "no daemon is restarted for the kubelet's settings");
    assert_eq!(ready("the kubelet was started anew"), first);

    let bad = json!({"kubelet": {"config": {"maxPods": 77, "imageGCHighThresholdPercent": 101}}});
    goes_back(site, "that the kubelet does not start with", &bad, ("KubeletNotWell", "the kubelet ended"));
    has(site, 77);
    assert_eq!(ready("it was put back"), first);
    assert_eq!(supervised(site), daemon);

    let refused = kubectl.try_with(
        &["apply", "-f", "-"],
        chain::config(site, &json!({"kubelet": {"config": {"authorization": {"mode": "AlwaysAllow"}}}}))
            .to_string()
            .as_bytes(),
    );
    assert!(refused.code != 0 && refused.err.contains("who may talk to the kubelet"), "{}", refused.err);

    kubectl.apply(&chain::config(site, &json!({"runtime": {"pidsLimit": 4050}})));
    chain::complete(site);
    has(site, DEFAULT_PODS);
    assert!(!file(site).exists(), "the file went with the settings");
    assert_eq!(ready("they were taken away"), first);
    kubectl.run(&["delete", "pod/witness", "--wait"]);
}

/// The daemon that runs, and how many there were.
fn supervised(site: &Site) -> (Value, Value) {
    let status = site.supervisor();
    assert!(status["daemon"].is_u64() && status["starts"].is_u64(), "{status}");
    (status["daemon"].clone(), status["starts"].clone())
}

fn file(site: &Site) -> PathBuf {
    site.base().join("kubelet.d/98-berth-settings.conf")
}

/// Node and kubelet say so many pods.
fn has(site: &Site, pods: u64) {
    assert_eq!(told(site, "maxPods"), pods);
    let text = pods.to_string();
    let allocatable = |node: &Value| node["status"]["allocatable"]["pods"] == text.as_str();
    site.wait_object("node", NODE_NAME, "has that many pods", allocatable);
}

/// A field of the configuration that the running kubelet has.
fn told(site: &Site, field: &str) -> Value {
    let path = format!("/api/v1/nodes/{NODE_NAME}/proxy/configz");
    let text = site.wait("the kubelet tells its configuration", || {
        let ran = site.kubectl("default").try_run(&["get", "--raw", &path]);
        if ran.code == 0 { Ok(ran.text()) } else { Err(ran.err) }
    });
    serde_json::from_str::<Value>(&text).unwrap()["kubeletconfig"][field].clone()
}
