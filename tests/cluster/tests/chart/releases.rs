//! Releases of the chart: installed, upgraded, rolled back, uninstalled. Must not: know who may do what.
use crate::{Api, NAMESPACE, SERVED, repository, rights};
use berth_cluster_tests::kubectl::Kubectl;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// A field that the definitions of an older release lack: the line that opens it.
const FIELD: &str = "                  prefetch:";
/// Where that field is in the definition.
const FIELD_PATH: &str =
    "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/images/properties/prefetch";

pub fn life(api: &Api) {
    let kubectl = api.kubectl();
    api.namespaces(&[NAMESPACE, "other"]);
    let chart = repository("charts/berth");
    let told = api.helm(NAMESPACE, &["install", "berth", &chart]).unwrap();
    assert!(told.contains("kubectl get runtimenodes") && !told.contains("WARNING"), "{told}");
    let refused = api.helm("other", &["install", "second", &chart]).unwrap_err();
    assert!(refused.contains("berth.dev") && refused.contains("cannot be imported"), "{refused}");
    api.serves("runtimenodes");
    rights::only_its_own_node(api, &kubectl);
    rights::config_editors(api, &kubectl);
    kubectl.apply(&config("kept", &json!({})));
    let replicas = || kubectl.json(&["get", "deployment", "berth-operator"])["spec"]["replicas"].clone();
    api.helm(NAMESPACE, &["upgrade", "berth", &chart, "--set", "operator.replicas=3"]).unwrap();
    assert_eq!(replicas(), 3);
    // As docs/cluster.md says: to the revision before.
    api.helm(NAMESPACE, &["rollback", "berth"]).unwrap();
    assert_eq!(replicas(), 2);
    uninstall(api);
    kubectl.get("runtimeconfig", "kept").unwrap();
    assert!(kubectl.get("clusterrole", "berth-agent").is_err());
    api.helm(NAMESPACE, &["install", "berth", &chart]).unwrap();
    kubectl.get("runtimeconfig", "kept").unwrap();
    uninstall(api);
}

/// Upgrading from a release whose definitions lack a field brings it, going back takes it away again; objects stay through all of it.
pub fn upgrades_definitions(api: &Api) {
    let kubectl = api.kubectl();
    api.namespaces(&[NAMESPACE]);
    let (older, chart) = (older_chart(&api.space.0.base().join("older-chart")), repository("charts/berth"));
    api.helm(NAMESPACE, &["install", "berth", &older]).unwrap();
    api.serves("runtimeconfigs");
    kubectl.apply(&config("older", &json!({"runtime": {"pidsLimit": 4000}})));
    let stored = kubectl.get("runtimeconfig", "older").unwrap();
    lacks(api, &kubectl);
    api.helm(NAMESPACE, &["upgrade", "berth", &chart]).unwrap();
    has(api, &kubectl);
    api.helm(NAMESPACE, &["rollback", "berth"]).unwrap();
    lacks(api, &kubectl);
    api.helm(NAMESPACE, &["upgrade", "berth", &chart]).unwrap();
    has(api, &kubectl);
    let now = kubectl.get("runtimeconfig", "older").unwrap();
    assert_eq!(now["metadata"]["uid"], stored["metadata"]["uid"], "it was never removed");
    assert_eq!(now["spec"]["runtime"]["pidsLimit"], 4000);
    kubectl.run(&["delete", "runtimeconfig", "older", "newer"]);
    uninstall(api);
}

/// Rights are given to no account that nobody chose: `default` is everybody's.
pub fn names_accounts(api: &Api) {
    let chart = repository("charts/berth");
    for part in ["operator", "agent"] {
        let unmade = format!("{part}.serviceAccount.create=false");
        let template = ["template", "berth", &chart, "--set", &unmade];
        let refused = api.helm(NAMESPACE, &template).unwrap_err();
        assert!(refused.contains(&format!("{part}.serviceAccount.name must name an account")), "{refused}");
        let named = format!("{part}.serviceAccount.name=somebody");
        let rendered = api.helm(NAMESPACE, &[&template[..], &["--set", &named]].concat()).unwrap();
        assert!(rendered.contains("serviceAccountName: somebody\n"), "{part}");
    }
}

/// However long the names of namespace and release are, no two objects have the same one.
pub fn long_names(api: &Api) {
    let (chart, name) = (repository("charts/berth"), "fullnameOverride=a-release-of-forty-characters-all-in-all");
    let namespace = "a-namespace-of-sixty-three-characters-all-in-all-and-not-fewer";
    let rendered = api.helm(namespace, &["template", "berth", &chart, "--set", name]).unwrap();
    let mut names = BTreeSet::new();
    for document in rendered.split("\n---\n") {
        let object: Value = serde_yaml::from_str(document).unwrap();
        let [kind, name] = ["/kind", "/metadata/name"].map(|at| object.pointer(at).unwrap_or(&Value::Null).to_string());
        assert!(object.is_null() || names.insert(format!("{kind} {name}")), "{kind} {name} twice");
    }
    assert!(names.iter().filter(|name| name.starts_with("\"ValidatingAdmissionPolicy\"")).count() == 2, "{names:?}");
}

/// Without the question before it: its Job would not end, for no node runs here (`uninstall.rs`).
fn uninstall(api: &Api) {
    api.helm(NAMESPACE, &["uninstall", "berth", "--no-hooks"]).unwrap();
}

fn config(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "berth.dev/v1alpha1", "kind": "RuntimeConfig", "metadata": {"name": name}, "spec": spec})
}

/// What the API server says to a RuntimeConfig with the field: `Ok` where it takes it.
fn with_field(kubectl: &Kubectl<'_>) -> Result<(), String> {
    let object = config("newer", &json!({"images": {"prefetch": ["registry.example.net/a:1"]}}));
    let ran = kubectl.try_with(&["apply", "-f", "-"], object.to_string().as_bytes());
    if ran.code == 0 { Ok(()) } else { Err(ran.err) }
}

fn lacks(api: &Api, kubectl: &Kubectl<'_>) {
    let definition = kubectl.get("crd", "runtimeconfigs.berth.dev").unwrap();
    assert!(definition.pointer(FIELD_PATH).is_none(), "the older definition");
    berth_cluster_tests::wait_for(&api.space, "the older definition is served", SERVED, || match with_field(kubectl) {
        Err(refused) if refused.contains("unknown field \"spec.images.prefetch\"") => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

fn has(api: &Api, kubectl: &Kubectl<'_>) {
    let definition = kubectl.get("crd", "runtimeconfigs.berth.dev").unwrap();
    assert!(definition.pointer(FIELD_PATH).is_some(), "the definition came with the release");
    berth_cluster_tests::wait_for(&api.space, "the new definition is served", SERVED, || with_field(kubectl));
}

/// A copy of the chart whose definition of RuntimeConfig lacks [`FIELD`].
fn older_chart(to: &Path) -> String {
    copy(Path::new(&repository("charts/berth")), to);
    let path = to.join("files/crds/runtimeconfigs.yaml");
    let text = fs::read_to_string(&path).unwrap();
    let older = without(&text, FIELD);
    assert_ne!(older, text, "the definition has the field");
    fs::write(&path, older).unwrap();
    to.display().to_string()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// YAML without the field that this line opens.
fn without(text: &str, opens: &str) -> String {
    let depth = |line: &str| line.len() - line.trim_start().len();
    let mut inside = false;
    let mut kept = String::new();
    for line in text.lines() {
        inside = line == opens || inside && depth(line) > depth(opens);
        if !inside {
            kept += line;
            kept.push('\n');
        }
    }
    kept
}
