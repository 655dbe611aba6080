//! What is asked before a release goes. No controller runs here that would end the hook's Job: the case does, after it has run the operator's
//! program as the Job would, as the account of that. Must not: know what else is in a release.
use crate::{Api, NAMESPACE, repository};
use berth_agent::time;
use berth_cluster_tests::kubectl::Kubectl;
use berth_cluster_tests::{programs, wait_for};
use serde_json::{Value, json};
use std::time::Duration;

/// How long Helm may take until the Job is there, and the API server until it sees the account's rights.
const SEEN: Duration = Duration::from_secs(60);
const JOB: &str = "berth-uninstall";
const NODE: &str = "left-on-it";

/// A release stays while a node runs on Berth, and says which; it goes when the node has been given back, and leaves nothing of the question.
pub fn refuses_to_leave_nodes(api: &Api) {
    let kubectl = api.kubectl();
    api.namespaces(&[NAMESPACE]);
    api.helm(NAMESPACE, &["install", "berth", &repository("charts/berth")]).unwrap();
    kubectl.run(&["wait", "--for=condition=Established", "crd/runtimenodes.berth.dev", "--timeout=30s"]);
    kubectl.apply(&json!({"apiVersion": "berth.dev/v1alpha1", "kind": "RuntimeNode", "metadata": {"name": NODE}, "spec": {"nodeName": NODE}}));
    is_reported(&kubectl, "Managed");
    is_not_of_the_release(&kubectl);
    let refused = uninstalled(api, 1).unwrap_err();
    assert!(refused.contains(JOB), "{refused}");
    is_not_of_the_release(&kubectl);
    for object in ["deployment/berth-operator", "daemonset/berth-agent", "clusterrole/berth-agent"] {
        kubectl.run(&["get", object]);
    }
    is_reported(&kubectl, "Absent");
    uninstalled(api, 0).unwrap();
    for (kind, name) in [("job", JOB), ("serviceaccount", JOB), ("clusterrole", JOB), ("deployment", "berth-operator")]
    {
        let gone = kubectl.get(kind, name).unwrap_err();
        assert!(gone.contains("NotFound"), "{kind}: {gone}");
    }
    kubectl.run(&["delete", "runtimenode", NODE]);
}

/// Where the values say so, nobody is asked, and nothing is there that could ask.
pub fn may_be_told_not_to_ask(api: &Api) {
    let chart = repository("charts/berth");
    let template = ["template", "berth", &chart, "--set", "networkPolicy.enabled=true"];
    let asks = api.helm(NAMESPACE, &template).unwrap();
    for part in ["args: [may-uninstall]", "serviceAccountName: berth-uninstall", "helm.sh/hook-weight: \"0\""] {
        assert_eq!(asks.matches(part).count(), 1, "{part}");
    }
    // Role, binding, account and network are made before the Job.
    assert_eq!(asks.matches("\n  name: berth-uninstall\n").count(), 6, "one of them is the binding's roleRef");
    assert_eq!(asks.matches("helm.sh/hook: pre-delete").count(), 5);
    assert_eq!(asks.matches("helm.sh/hook-weight: \"-10\"").count(), 4);
    let forced = api.helm(NAMESPACE, &[&template[..], &["--set", "uninstall.force=true"]].concat()).unwrap();
    assert!(!forced.contains("pre-delete") && !forced.contains("berth-uninstall"), "{forced}");
    // Rights that others make are not made for it either: it is the operator, who may read as much.
    let others = api.helm(NAMESPACE, &[&template[..], &["--set", "rbac.create=false"]].concat()).unwrap();
    assert_eq!(others.matches("serviceAccountName: berth-operator\n").count(), 2, "Deployment and Job");
}

/// What a cluster needs for the operator's pods to run well, the question's pod has too: a sidecar's opt-out, a proxy's certificates.
pub fn asks_as_the_operator_runs(api: &Api) {
    let (chart, values) = (repository("charts/berth"), repository("charts/berth/ci/everything-values.yaml"));
    let template = ["template", "berth", &chart, "--values", &values, "--show-only", "templates/uninstall/job.yaml"];
    let job: Value = serde_yaml::from_str(&api.helm(NAMESPACE, &template).unwrap()).unwrap();
    let (pod, container) = (&job["spec"]["template"], &job["spec"]["template"]["spec"]["containers"][0]);
    assert_eq!(pod["metadata"]["annotations"], json!({"example.net/a": "b"}));
    assert_eq!(pod["metadata"]["labels"]["example.net/c"], "d");
    assert_eq!(container["env"][0]["name"], "HTTPS_PROXY");
    let named = |list: &Value| list.as_array().unwrap().iter().any(|entry| entry["name"] == "scratch");
    assert!(named(&pod["spec"]["volumes"]) && named(&container["volumeMounts"]), "{job}");
}

/// What asks is made for the question and goes with it, so that a release that is half gone can be asked for all the same, and one that is
/// uninstalled without a question leaves nothing.
fn is_not_of_the_release(kubectl: &Kubectl<'_>) {
    for kind in ["serviceaccount", "clusterrole", "clusterrolebinding"] {
        let none = kubectl.get(kind, JOB).unwrap_err();
        assert!(none.contains("NotFound"), "{kind}: {none}");
    }
}

/// As the node's agent does.
fn is_reported(kubectl: &Kubectl<'_>, state: &str) {
    let status = json!({"status": {"state": state, "phase": "Idle"}}).to_string();
    kubectl.run(&["patch", "runtimenode", NODE, "--subresource=status", "--type=merge", "--patch", &status]);
}

/// `helm uninstall`, whose question is answered with that exit code.
fn uninstalled(api: &Api, expected: i32) -> Result<String, String> {
    std::thread::scope(|scope| {
        let helm = scope.spawn(|| api.helm(NAMESPACE, &["uninstall", "berth", "--timeout=90s"]));
        let kubectl = api.kubectl();
        let job = wait_for(&api.space, "Helm asks", SEEN, || {
            let job = kubectl.get("job", JOB)?;
            // One that was refused before is replaced.
            if job["status"]["conditions"].is_null() { Ok(job) } else { Err(job["status"].to_string()) }
        });
        assert_eq!(answer(api, &kubectl, &job), expected);
        ends(&kubectl, expected == 0);
        helm.join().unwrap()
    })
}

/// Runs the program with what its container has: the words and the account, which may do nothing else.
fn answer(api: &Api, kubectl: &Kubectl<'_>, job: &Value) -> i32 {
    let pod = &job["spec"]["template"]["spec"];
    let words = pod["containers"][0]["args"].as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned());
    let words: Vec<_> = words.collect();
    let token = kubectl.run(&["create", "token", pod["serviceAccountName"].as_str().unwrap()]);
    let account = api.holder("uninstall", &token);
    let (code, told) = wait_for(&api.space, "it is answered", SEEN, || {
        let mut program = api.space.0.command("tools", programs::berth("berth-operator"));
        let ran = program.args(&words).env("KUBECONFIG", account.kubeconfig()).output().unwrap();
        let told = String::from_utf8_lossy(&ran.stderr).into_owned();
        // The API server sees new rights some moments after they were made.
        match ran.status.code() {
            Some(2) | None => Err(told),
            Some(code) => Ok((code, told)),
        }
    });
    let named = told.contains(NODE) && told.contains("`state: Absent`");
    assert_eq!(named, code != 0, "{told}");
    for kind in ["nodes", "pods", "secrets", "runtimeconfigs"] {
        assert!(account.try_run(&["get", kind]).err.contains("Forbidden"), "{kind}");
    }
    let deletes = account.try_run(&["delete", "runtimenode", NODE]);
    assert!(deletes.err.contains("cannot delete resource"), "{}", deletes.err);
    code
}

/// What the Job controller says of it (batch/v1: an end has its reason before it).
fn ends(kubectl: &Kubectl<'_>, well: bool) {
    let now = time::text(time::now());
    let kinds = if well { ["SuccessCriteriaMet", "Complete"] } else { ["FailureTarget", "Failed"] };
    let conditions = kinds.map(|kind| {
        json!({"type": kind, "status": "True", "reason": "Test", "message": "", "lastProbeTime": now, "lastTransitionTime": now})
    });
    let mut status = json!({"startTime": now, "conditions": conditions});
    if well {
        status["completionTime"] = json!(now);
        status["succeeded"] = json!(1);
    }
    let patch = json!({ "status": status }).to_string();
    kubectl.run(&["patch", "job", JOB, "--subresource=status", "--type=merge", "--patch", &patch]);
}
