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
    api.serves("runtimenodes");
    kubectl.apply(&json!({"apiVersion": "berth.dev/v1alpha1", "kind": "RuntimeNode", "metadata": {"name": NODE}, "spec": {"nodeName": NODE}}));
    is_reported(&kubectl, "Managed");
    is_not_of_the_release(&kubectl);
    let refused = uninstalled(api, Some("`state: Absent`")).unwrap_err();
    assert!(refused.contains(JOB), "{refused}");
    is_not_of_the_release(&kubectl);
    for object in ["deployment/berth-operator", "daemonset/berth-agent", "clusterrole/berth-agent"] {
        kubectl.run(&["get", object]);
    }
    is_reported(&kubectl, "Absent");
    is_cordoned(&kubectl);
    uninstalled(api, Some("kubectl uncordon NODE")).unwrap_err();
    kubectl.run(&["uncordon", NODE]);
    kubectl.run(&["annotate", "node", NODE, "berth.dev/cordoned-since-"]);
    uninstalled(api, None).unwrap();
    for (kind, name) in [("job", JOB), ("serviceaccount", JOB), ("clusterrole", JOB), ("deployment", "berth-operator")]
    {
        let gone = kubectl.get(kind, name).unwrap_err();
        assert!(gone.contains("NotFound"), "{kind}: {gone}");
    }
    kubectl.run(&["delete", "runtimenode", NODE]);
    kubectl.run(&["delete", "node", NODE]);
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

/// As the operator leaves a node whose kubelet is not there again after it was given back.
fn is_cordoned(kubectl: &Kubectl<'_>) {
    let annotations = json!({"berth.dev/cordoned-since": time::text(time::now())});
    let metadata = json!({"name": NODE, "annotations": annotations});
    kubectl.apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {"unschedulable": true}}));
}

/// `helm uninstall`, whose question is answered with that remedy, or with yes.
fn uninstalled(api: &Api, remedy: Option<&str>) -> Result<String, String> {
    std::thread::scope(|scope| {
        let helm = scope.spawn(|| api.helm(NAMESPACE, &["uninstall", "berth", "--timeout=90s"]));
        let kubectl = api.kubectl();
        let job = wait_for(&api.space, "Helm asks", SEEN, || {
            let job = kubectl.get("job", JOB)?;
            // One that was refused before is replaced.
            if job["status"]["conditions"].is_null() { Ok(job) } else { Err(job["status"].to_string()) }
        });
        answer(api, &kubectl, &job, remedy);
        ends(&kubectl, remedy.is_none());
        helm.join().unwrap()
    })
}

/// Runs the program with what its container has: the words and the account, which may do nothing else.
fn answer(api: &Api, kubectl: &Kubectl<'_>, job: &Value, remedy: Option<&str>) {
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
    assert_eq!(code, i32::from(remedy.is_some()), "{told}");
    assert!(remedy.is_none_or(|remedy| told.contains(NODE) && told.contains(remedy)), "{told}");
    for kind in ["pods", "secrets", "runtimeconfigs"] {
        assert!(account.try_run(&["get", kind]).err.contains("Forbidden"), "{kind}");
    }
    for kind in ["runtimenode", "node"] {
        let deletes = account.try_run(&["delete", kind, NODE]);
        assert!(deletes.err.contains("cannot delete resource"), "{kind}: {}", deletes.err);
    }
    assert_eq!(account.try_run(&["auth", "can-i", "patch", "nodes"]).text().trim(), "no");
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
