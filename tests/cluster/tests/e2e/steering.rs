//! What is steered once the node is Berth's: image policies, a configuration that breaks it, a new release.
use crate::chain::{self, CONFIG};
use crate::site::{NAMESPACE, Site};
use berth_cluster_tests::kubelet::NODE_NAME;
use berth_cluster_tests::runtime::Kind;
use berth_cluster_tests::{cluster, images};
use serde_json::{Value, json};

/// An ImagePolicy denies an image, and the pod's events say why.
pub fn denies_an_image(site: &Site) {
    chain::is_taken_over(site);
    let kubectl = site.kubectl("default");
    let policy = json!({"apiVersion": "berth.dev/v1alpha1", "kind": "ImagePolicy", "metadata": {"name": "no-spare"},
        "spec": {"mode": "Enforce", "registries": {"deny": [images::SPARE.trim_end_matches(":v1")]}}});
    site.timed("a policy is in force", || {
        kubectl.apply(&policy);
        site.wait_object("imagepolicy", "no-spare", "is in force", |p| p["status"]["summary"] == "1/1");
    });
    let spec = json!({"containers": [{"name": "main", "image": images::SPARE}]});
    kubectl.apply(&cluster::pod("denied", &spec));
    let told = site.wait("an event says why", || {
        let events = kubectl.json(&["get", "events", "--field-selector=involvedObject.name=denied"]);
        let texts: Vec<&str> =
            events["items"].as_array().into_iter().flatten().filter_map(|e| e["message"].as_str()).collect();
        let found = texts.iter().find(|text| text.contains("no-spare"));
        found.map(|text| (*text).to_owned()).ok_or_else(|| texts.join("\n"))
    });
    println!("  the pod's event: {told}");
    kubectl.run(&["delete", "pod/denied", "imagepolicy/no-spare", "--wait"]);
}

fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    object["status"]["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == kind).unwrap_or(&Value::Null)
}

/// A RuntimeConfig that the schema takes and the node does not survive: it goes back to what was good, and says so.
pub fn comes_back(site: &Site) {
    chain::is_taken_over(site);
    let kubectl = site.kubectl("default");
    let good = kubectl.get("runtimenode", NODE_NAME).unwrap()["status"]["currentRevision"].clone();
    let empty = site.base().join("no-networks");
    std::fs::create_dir_all(&empty).unwrap();
    let mut network = chain::network(site);
    network["cni"]["confDir"] = json!(empty);
    let bad = site.timed("a broken configuration is taken back", || {
        kubectl.apply(&chain::config(site, &json!({"network": network})));
        let bad = site.wait_object("runtimeconfig", CONFIG, "is rolled back", |object| {
            condition(object, "Degraded")["status"] == "True" && object["status"]["targetRevision"] != good
        });
        site.wait_object("runtimenode", NODE_NAME, "is well on what was good", |node| {
            let status = &node["status"];
            status["currentRevision"] == good && status["loadedRevision"] == good && status["healthy"] == true
        });
        bad["status"]["targetRevision"].clone()
    });
    let verdict = kubectl.get("runtimerevision", bad.as_str().unwrap()).unwrap();
    assert_eq!(verdict["status"]["verdict"], "Bad", "it is remembered: {verdict}");
    site.is_on(Kind::Berth);
    kubectl.apply(&chain::config(site, &json!({"runtime": {"pidsLimit": 4000}})));
    chain::complete(site);
}

/// A new release brings a new agent, which goes on where the former one ended: the node's pods do not notice.
pub fn is_upgraded(site: &Site) {
    chain::is_taken_over(site);
    let kubectl = site.kubectl("default");
    kubectl.apply(&chain::web());
    chain::web_is_available(site);
    let started = || -> Vec<Value> {
        let pods = kubectl.json(&["get", "pods", "-l", "app=web"]);
        let statuses =
            pods["items"].as_array().unwrap().iter().flat_map(|p| p["status"]["containerStatuses"].as_array());
        statuses.flatten().map(|c| json!([c["containerID"], c["restartCount"], c["state"]])).collect()
    };
    let (before, agent) = (started(), agent_pod(site));
    let mut values = site.values();
    values["agent"]["podAnnotations"] = json!({"release": "two"});
    std::fs::write(site.base().join("values-2.json"), values.to_string()).unwrap();
    let file = site.base().join("values-2.json").display().to_string();
    site.timed("helm upgrade", || {
        site.helm(&["upgrade", "berth", &chain::chart(), "--values", &file, "--wait", "--timeout=180s"]);
    });
    assert_ne!(agent_pod(site), agent);
    site.wait_object("runtimenode", NODE_NAME, "is managed", |node| {
        (&node["status"]["state"], &node["status"]["phase"]) == (&json!("Managed"), &json!("Idle"))
    });
    assert_eq!(started(), before, "containers run on");
    kubectl.run(&["delete", "deployment/web", "--wait"]);
}

fn agent_pod(site: &Site) -> String {
    let selector = "--selector=app.kubernetes.io/component=agent";
    site.kubectl(NAMESPACE).run(&["get", "pods", selector, "-o", "jsonpath={.items[*].metadata.uid}"])
}
