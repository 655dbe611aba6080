//! manifests/install.yaml, for whoever has no Helm. Must not: know a release.
use crate::{Api, NAMESPACE, repository};
use berth_cluster_tests::wait_for;
use serde_json::json;
use std::time::Duration;

/// How long the API server takes to remove a definition with its objects.
const REMOVED: Duration = Duration::from_secs(60);

/// As docs/cluster.md says: applied by one command without a warning, applied again, and deleted with all that it brought.
pub fn is_applied_and_deleted(api: &Api) {
    let kubectl = api.kubectl();
    let file = repository("manifests/install.yaml");
    // It has objects of two namespaces, and of none: each says its own.
    let with_file = |args: &[&str]| kubectl.try_run(&[args, &["--namespace=", "-f", &file]].concat());
    let apply = || {
        let ran = with_file(&["apply", "--server-side"]);
        assert!(ran.code == 0 && !ran.err.contains("Warning"), "{}{}", ran.text(), ran.err);
    };
    apply();
    let objects = std::fs::read_to_string(&file).unwrap().lines().filter(|line| line.starts_with("kind: ")).count();
    let found = with_file(&["get", "-o", "name"]);
    assert_eq!((found.code, found.text().lines().count()), (0, objects), "{}{}", found.text(), found.err);
    // The operator reads all kinds, and none runs here. The storage of a kind is made when it is first read; where that is by the deletion, the
    // API server (1.37.2) says that it is initializing, and may leave the definition for ever (crd_finalizer.go, apiextensions-apiserver).
    for kind in ["runtimeconfigs", "imagepolicies", "runtimerevisions", "runtimenodes"] {
        api.serves(kind);
    }
    kubectl.apply(
        &json!({"apiVersion": "berth.dev/v1alpha1", "kind": "RuntimeConfig", "metadata": {"name": "by-file"}, "spec": {}}),
    );
    apply();
    kubectl.get("runtimeconfig", "by-file").unwrap();
    let deleted = with_file(&["delete", "--wait=false"]);
    assert_eq!(deleted.code, 0, "{}", deleted.err);
    finalize(api);
    wait_for(&api.space, "nothing of the file is left", REMOVED, || {
        let left = with_file(&["get", "-o", "name", "--ignore-not-found"]);
        if left.code == 0 && left.out.is_empty() {
            return Ok(());
        }
        let why = kubectl.try_run(&[
            "get",
            "crd",
            "-o",
            "jsonpath={range .items[*]}{.metadata.name} {.status.conditions}{'\\n'}{end}",
        ]);
        Err(format!("{}{}{}", left.text(), left.err, why.text()))
    });
    assert!(kubectl.get("runtimeconfig", "by-file").is_err(), "it went with its definition");
}

/// What the controller manager does with a namespace that has nothing in it any more: none runs here.
fn finalize(api: &Api) {
    let path = format!("/api/v1/namespaces/{NAMESPACE}/finalize");
    let object =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}, "spec": {"finalizers": []}});
    let ran = api.kubectl().try_with(&["replace", "--raw", &path, "-f", "-"], object.to_string().as_bytes());
    assert_eq!(ran.code, 0, "{}{}", ran.text(), ran.err);
}
