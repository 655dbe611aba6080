//! The chart on a real API server: what Helm installs is accepted without a warning, an agent's token opens its own node alone, and the
//! definitions outlive the release. No node runs: objects and rights are what is looked at.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // A case fails by panicking.

use berth_cluster_tests::control_plane::ControlPlane;
use berth_cluster_tests::kubectl::Kubectl;
use berth_cluster_tests::space::NodeSpace;
use berth_cluster_tests::suite::{self, Case};
use berth_cluster_tests::{Diagnose, programs};
use serde_json::{Value, json};
use std::path::Path;

const NAMESPACE: &str = "berth-system";
const CASES: &[Case<Api>] = &[Case::alone("installed_used_and_uninstalled", life)];

struct Api {
    space: Logged,
    plane: ControlPlane,
}

struct Logged(NodeSpace);

impl Diagnose for Logged {
    fn diagnosis(&self) -> String {
        self.0.log_tails()
    }
}

impl Api {
    fn start() -> Self {
        let space = Logged(NodeSpace::new());
        let plane = ControlPlane::start_api(&space.0, &space);
        Self { space, plane }
    }

    fn kubectl(&self) -> Kubectl<'_> {
        Kubectl::new(&self.space.0, self.plane.admin(), NAMESPACE)
    }

    /// kubectl of whoever has that token and nothing else.
    fn holder(&self, name: &str, token: &str) -> Kubectl<'_> {
        let mut config: Value = serde_json::from_slice(&std::fs::read(self.plane.admin()).unwrap()).unwrap();
        config["users"][0]["user"] = json!({ "token": token.trim() });
        let path = self.space.0.base().join(format!("{name}.kubeconfig"));
        std::fs::write(&path, config.to_string()).unwrap();
        Kubectl::new(&self.space.0, path, NAMESPACE)
    }

    fn helm(&self, namespace: &str, args: &[&str]) -> Result<String, String> {
        let mut command = self.space.0.command("tools", programs::helm());
        command.arg("--kubeconfig").arg(self.plane.admin()).args(["--namespace", namespace]).args(args);
        for (name, dir) in [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")] {
            command.env(name, self.space.0.base().join("helm").join(dir));
        }
        let output = command.output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(told) } else { Err(told) }
    }

    fn finish(self) {
        self.plane.finish();
        self.space.0.finish();
    }
}

fn repository(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path).display().to_string()
}

fn life(api: &Api) {
    let kubectl = api.kubectl();
    kubectl.run(&["create", "namespace", NAMESPACE]);
    kubectl.run(&["create", "namespace", "other"]);
    let chart = repository("charts/berth");
    let told = api.helm(NAMESPACE, &["install", "berth", &chart]).unwrap();
    assert!(told.contains("kubectl get runtimenodes") && !told.contains("WARNING"), "{told}");
    let file = repository("manifests/install.yaml");
    // The file has objects of two namespaces: each says its own.
    let apply = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--namespace=", "-f", &file];
    let ran = kubectl.try_run(&apply);
    assert!(ran.code == 0 && !ran.err.contains("Warning"), "{}{}", ran.text(), ran.err);
    let refused = api.helm("other", &["install", "second", &chart]).unwrap_err();
    assert!(refused.contains("berth.dev") && refused.contains("cannot be imported"), "{refused}");
    only_its_own_node(api, &kubectl);
    kubectl.apply(
        &json!({"apiVersion": "berth.dev/v1alpha1", "kind": "RuntimeConfig", "metadata": {"name": "kept"}, "spec": {}}),
    );
    api.helm(NAMESPACE, &["upgrade", "berth", &chart, "--set", "operator.replicas=3"]).unwrap();
    assert_eq!(kubectl.json(&["get", "deployment", "berth-operator"])["spec"]["replicas"], 3);
    api.helm(NAMESPACE, &["uninstall", "berth"]).unwrap();
    kubectl.get("runtimeconfig", "kept").unwrap();
    assert!(kubectl.get("clusterrole", "berth-agent").is_err());
    api.helm(NAMESPACE, &["install", "berth", &chart]).unwrap();
    kubectl.get("runtimeconfig", "kept").unwrap();
}

/// A token that was stolen from the agent of one node.
fn only_its_own_node(api: &Api, kubectl: &Kubectl<'_>) {
    for node in ["one", "two"] {
        kubectl.apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}}));
        kubectl.apply(&json!({"apiVersion": "berth.dev/v1alpha1", "kind": "RuntimeNode", "metadata": {"name": node}, "spec": {"nodeName": node}}));
    }
    kubectl.apply(
        &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "agent-one"}, "spec": {"nodeName": "one",
        "serviceAccountName": "berth-agent", "containers": [{"name": "agent", "image": "none"}]}}),
    );
    let token = ["create", "token", "berth-agent"];
    let bound =
        kubectl.run(&[&token[..], &["--bound-object-kind", "Pod", "--bound-object-name", "agent-one"]].concat());
    let agent = api.holder("agent", &bound);
    // As the agent does: a patch that reads nothing first. (`kubectl patch` gets the status beforehand, which agents may not.)
    let report = |who: &Kubectl<'_>, node: &str| {
        let object = json!({"apiVersion": "berth.dev/v1alpha1", "kind": "RuntimeNode", "metadata": {"name": node}, "status": {"phase": "Idle"}});
        let apply = ["apply", "--server-side", "--subresource=status", "--field-manager=berth-agent", "-f", "-"];
        who.try_with(&apply, object.to_string().as_bytes())
    };
    // A policy is in force some moments after it was made: the API servers have to see it first.
    berth_cluster_tests::wait_for(&api.space, "the policy is in force", std::time::Duration::from_secs(30), || {
        let ran = report(&agent, "two");
        if ran.err.contains("the token is of node one") { Ok(()) } else { Err(format!("{}{}", ran.text(), ran.err)) }
    });
    let done = report(&agent, "one");
    assert_eq!(done.code, 0, "{}", done.err);
    assert_eq!(kubectl.get("runtimenode", "one").unwrap()["status"]["phase"], "Idle");
    agent.run(&["get", "runtimenode", "two"]);
    let anywhere = api.holder("anywhere", &kubectl.run(&token));
    let refused = report(&anywhere, "one");
    assert!(refused.code != 0 && refused.err.contains("names no node"), "{}", refused.err);
    let hold = ["patch", "runtimenode", "one", "--type=merge", "--patch", r#"{"spec":{"hold":true}}"#];
    let forbidden = agent.try_run(&hold);
    assert!(forbidden.code != 0 && forbidden.err.contains("cannot patch resource"), "{}", forbidden.err);
    for kind in ["secrets", "nodes", "pods", "runtimeconfigs"] {
        assert!(agent.try_run(&["get", kind]).err.contains("Forbidden"), "{kind}");
    }
    // Whatever somebody binds to the account later, the policy stays.
    kubectl.run(&[
        "create",
        "clusterrolebinding",
        "wide",
        "--clusterrole=cluster-admin",
        "--serviceaccount=berth-system:berth-agent",
    ]);
    for args in [
        &hold[..],
        &["delete", "runtimenode", "two"],
        &["patch", "runtimenode", "two", "--type=merge", "--patch", r#"{"metadata":{"labels":{"a":"b"}}}"#],
    ] {
        let refused = agent.try_run(args);
        assert!(
            refused.code != 0 && refused.err.contains("status of a RuntimeNode and nothing else"),
            "{args:?}: {}",
            refused.err
        );
    }
    kubectl.run(&["delete", "clusterrolebinding", "wide"]);
}

fn main() {
    berth_cluster_tests::dispatch();
    suite::main(CASES, Api::start, Api::finish);
}
