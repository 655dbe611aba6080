//! Pods that cannot be had: the event says what is wrong, and why, in words that a person understands.
use super::workloads::script;
use berth_cluster_tests::cluster::{Cluster, Namespace, pod};
use berth_cluster_tests::images;
use berth_cluster_tests::runtime::Kind;
use serde_json::{Value, json};

/// Waits for an event about the pod with this reason whose message has all these words, and prints it. The words are Berth's; of
/// another runtime the event alone is asked.
fn event(namespace: &Namespace<'_>, pod: &str, reason: &str, words: &[&str]) {
    let words = if namespace.cluster.runtime().kind() == Kind::Berth { words } else { &[] };
    let selector = format!("--field-selector=involvedObject.name={pod}");
    let message = namespace.cluster.wait(&format!("an event {reason} about {pod} with {words:?}"), || {
        let events = namespace.kubectl.json(&["get", "events", &selector]);
        let texts = |event: &Value| format!("{}: {}", event["reason"].as_str().unwrap_or_default(), event["message"]);
        let all: Vec<String> = events["items"].as_array().into_iter().flatten().map(texts).collect();
        let fits = |text: &&String| text.starts_with(reason) && words.iter().all(|word| text.contains(word));
        all.iter().find(fits).cloned().ok_or_else(|| all.join("\n"))
    });
    println!("     event {message}");
}

fn refused(cluster: &Cluster, name: &str, spec: &Value, reason: &str, words: &[&str]) {
    let namespace = cluster.namespace(name);
    namespace.kubectl.apply(&pod(name, spec));
    event(&namespace, name, reason, words);
}

fn of_image(image: &str) -> Value {
    let mut spec = script("true");
    spec["containers"][0]["image"] = image.into();
    spec
}

/// A registry that answers, and does not have it; and one that does not answer.
pub fn image(cluster: &Cluster) {
    refused(cluster, "image-missing", &of_image(images::MISSING), "Failed", &[images::MISSING, "has no manifest v1"]);
    let nobody = "127.0.0.1:9/web:v1";
    refused(cluster, "registry-silent", &of_image(nobody), "Failed", &[nobody, "refused"]);
}

/// A directory of the node that is not there, where the pod says that it must be.
pub fn host_path(cluster: &Cluster) {
    let mut spec = script("true");
    spec["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    spec["volumes"] = json!([{"name": "data", "hostPath": {"path": "/nowhere/at/all", "type": "Directory"}}]);
    refused(cluster, "host-path", &spec, "FailedMount", &["/nowhere/at/all", "is not a directory"]);
}

/// An image whose user its /etc/passwd does not have.
pub fn user(cluster: &Cluster) {
    refused(cluster, "unknown-user", &of_image(images::UNKNOWN_USER), "Failed", &["ghost", "/etc/passwd"]);
}

/// A seccomp profile that the node does not have, and one that is none.
pub fn profile(cluster: &Cluster) {
    let with = |profile: &str| {
        let mut spec = script("true");
        spec["containers"][0]["securityContext"] =
            json!({"seccompProfile": {"type": "Localhost", "localhostProfile": profile}});
        spec
    };
    refused(cluster, "profile-missing", &with("none.json"), "Failed", &["seccomp", "none.json"]);
    let profiles = cluster.space().base().join("var-lib/kubelet/seccomp");
    std::fs::create_dir_all(&profiles).unwrap();
    std::fs::write(profiles.join("broken.json"), r#"{"defaultAction": "SCMP_ACT_MAYBE"}"#).unwrap();
    refused(cluster, "profile-broken", &with("broken.json"), "Failed", &["seccomp", "SCMP_ACT_MAYBE"]);
}

/// A class that leads to a handler which the node does not have.
pub fn runtime_class(cluster: &Cluster) {
    cluster.kubectl("default").apply(
        &json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "exotic"}, "handler": "unheard-of"}),
    );
    let mut spec = script("true");
    spec["runtimeClassName"] = "exotic".into();
    refused(cluster, "runtime-class", &spec, "FailedCreatePodSandBox", &["unheard-of"]);
}

/// A program that the image does not have.
pub fn command(cluster: &Cluster) {
    let mut spec = script("true");
    spec["containers"][0]["command"] = json!(["/no/such/program"]);
    refused(cluster, "command", &spec, "Failed", &["/no/such/program", "No such file"]);
}
