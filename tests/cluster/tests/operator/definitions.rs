//! What the API server makes of objects by our definitions.
use crate::api::{Api, GROUP};
use crate::documents::object;
use serde_json::json;

pub fn defaults(api: &Api) {
    let dry = |plural: &str| format!("{GROUP}/{plural}?dryRun=All");
    let config = api.post(&dry("runtimeconfigs"), &object("RuntimeConfig", "d", &json!({}))).unwrap();
    assert_eq!(config["spec"], json!({"priority": 100}), "what is merged has no default");
    let policy = api.post(&dry("imagepolicies"), &object("ImagePolicy", "d", &json!({"mode": "Warn"}))).unwrap();
    assert_eq!(policy["spec"]["enforceAt"], json!(["Pull", "Create"]));
    let table =
        api.kubectl().run(&["get", "crd", "runtimeconfigs.berth.dev", "-o", "jsonpath={.spec.names.shortNames}"]);
    assert_eq!(table, r#"["rtc"]"#);
    let told = api.wait("the kind is explained", || {
        let ran = api.kubectl().try_run(&["explain", "rtc.spec.rollout.maxUnavailable"]);
        if ran.code == 0 { Ok(ran.text()) } else { Err(ran.err) }
    });
    assert!(told.contains("Most nodes that may be unavailable"), "{told}");
}

pub fn revisions(api: &Api) {
    let path = format!("{GROUP}/runtimerevisions");
    let name = "config-0123456789abcdef01234567";
    let spec = json!({"runtime": {"version": "1.0.0", "config": {"runtime": {"pidsLimit": 50, "fromTheFuture": 1}}}});
    let made = api.post(&path, &object("RuntimeRevision", name, &spec)).unwrap();
    assert_eq!(made["spec"], spec, "nothing of the content is pruned");
    for change in [
        json!({"runtime": {"version": "1.0.1"}}),
        json!({"runtime": {"config": {"runtime": {"pidsLimit": 60}}}}),
        json!({"runtime": {"config": {"runtime": {"fromTheFuture": 2}}}}),
    ] {
        let refused = api.patch(&format!("{path}/{name}"), &json!({ "spec": change })).unwrap_err();
        assert!(refused.contains("never changes"), "{change}: {refused}");
    }
    api.patch(&format!("{path}/{name}/status"), &json!({"status": {"verdict": "Bad"}})).unwrap();
    // Who says the same under which names is no part of what never changes.
    let sources = json!({"spec.runtime.pidsLimit": ["a", "b"], "spec.registries[r.example:5000]": ["a"]});
    let told = api.patch(&format!("{path}/{name}/status"), &json!({"status": {"sources": sources}})).unwrap();
    assert_eq!((&told["status"]["sources"], &told["status"]["verdict"]), (&sources, &json!("Bad")));
    api.kubectl().run(&["delete", "rtrev", name]);
    let both = json!({"runtime": {"version": "1.0.0", "config": {}}, "policies": []});
    for (name, spec, words) in
        [(name, &both, "not both"), (name, &json!({}), "not both"), ("mine", &spec, "config-HASH")]
    {
        let refused = api.post(&path, &object("RuntimeRevision", name, spec)).unwrap_err();
        assert!(refused.contains(words), "{refused}");
    }
}

pub fn nodes(api: &Api) {
    let other = object("RuntimeNode", "a", &json!({"nodeName": "b", "nodeUID": "1"}));
    let refused = api.post(&format!("{GROUP}/runtimenodes?dryRun=All"), &other).unwrap_err();
    assert!(refused.contains("must have the name of its Node"), "{refused}");
}
