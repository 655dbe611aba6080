//! ImagePolicies reach all nodes at once, whatever rollouts do; one that would shut out the cluster's own images is refused.
use crate::api::{Api, GROUP};
use crate::documents::object;
use serde_json::{Value, json};

pub fn reach_everybody(api: &Api, nodes: usize) {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "dns"}, "spec": {"automountServiceAccountToken": false,
        "serviceAccountName": "default", "containers": [{"name": "c", "image": "registry.k8s.io/coredns:v1"}]}});
    api.post(
        "/api/v1/namespaces/kube-system/serviceaccounts",
        &json!({"apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "default"}}),
    )
    .unwrap();
    api.post("/api/v1/namespaces/kube-system/pods", &pod).unwrap();
    let path = format!("{GROUP}/imagepolicies");
    let deny = |registry: &str| json!({"mode": "Enforce", "registries": {"deny": [registry]}});
    api.post(&path, &object("ImagePolicy", "good", &deny("bad.example"))).unwrap();
    api.post(&path, &object("ImagePolicy", "lockout", &deny("registry.k8s.io"))).unwrap();
    api.wait("the good one is in force everywhere", || {
        let status = api.get(&format!("{path}/good"))?["status"].clone();
        if status["summary"] == format!("{nodes}/{nodes}") { Ok(()) } else { Err(status.to_string()) }
    });
    let refused = api.wait("the other one is refused", || {
        let status = api.get(&format!("{path}/lockout"))?["status"].clone();
        let accepted =
            status["conditions"].as_array().and_then(|c| c.iter().find(|c| c["type"] == "Accepted").cloned());
        accepted.filter(|c| c["status"] == "False").ok_or_else(|| status.to_string())
    });
    assert_eq!(refused["reason"], "WouldLockOut");
    assert!(refused["message"].as_str().unwrap().contains("coredns"), "{refused}");
    contradict(api);
}

/// Both are accepted, because any policy may tighten, and each says that nothing is left of what it allows.
fn contradict(api: &Api) {
    let path = format!("{GROUP}/imagepolicies");
    let spec = |registries: Value| json!({"mode": "Enforce", "match": {"images": [{"pattern": "c.example/*"}]}, "registries": registries});
    api.post(&path, &object("ImagePolicy", "allows", &spec(json!({"allow": ["c.example/team"]})))).unwrap();
    api.post(&path, &object("ImagePolicy", "denies", &spec(json!({"deny": ["c.example"]})))).unwrap();
    for (name, other) in [("allows", "denies"), ("denies", "allows")] {
        let conflicted = api.wait("the contradiction is said", || {
            let status = api.get(&format!("{path}/{name}"))?["status"].clone();
            let all = status["conditions"].as_array().cloned().unwrap_or_default();
            let of = |kind: &str| all.iter().find(|c| c["type"] == kind).cloned().unwrap_or_default();
            let done = of("Accepted")["status"] == "True"
                && of("Ready")["status"] == "True"
                && of("Conflicted")["status"] == "True";
            if done { Ok(of("Conflicted")) } else { Err(status.to_string()) }
        });
        assert!(conflicted["message"].as_str().unwrap().contains(other), "{conflicted}");
        api.kubectl().run(&["get", "imagepolicy", name]);
    }
    api.kubectl().run(&["delete", "imagepolicy", "allows", "denies"]);
}
