//! The way of a node from containerd to Berth and back, as its user goes it.
use crate::site::{NAMESPACE, Site};
use berth_cluster_tests::kubelet::NODE_NAME;
use berth_cluster_tests::runtime::Kind;
use berth_cluster_tests::{cluster, http, images, processes, programs};
use serde_json::{Value, json};
use std::path::Path;

/// The RuntimeConfig that takes the node over.
pub const CONFIG: &str = "workers";
/// Where the daemon itself serves its figures.
pub const DAEMON_METRICS: &str = "127.0.0.1:19464";

pub fn chart() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/berth").display().to_string()
}

/// `helm install` brings operator and agent up, and changes nothing of the node.
pub fn is_installed(site: &Site) {
    site.installed.get_or_init(|| install(site));
}

fn install(site: &Site) {
    let kubectl = site.kubectl("default");
    kubectl.run(&["create", "namespace", NAMESPACE]);
    kubectl.run(&["label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=privileged"]);
    let values = site.base().join("values.json");
    std::fs::write(&values, site.values().to_string()).unwrap();
    let values = values.display().to_string();
    site.timed("helm install", || {
        site.helm(&["install", "berth", &chart(), "--values", &values, "--wait", "--timeout=180s"])
    });
    let node = site.timed("the node is reported", || {
        site.wait_object("runtimenode", NODE_NAME, "is reported", |node| !node["status"]["phase"].is_null())
    });
    assert_eq!((&node["status"]["state"], &node["status"]["phase"]), (&json!("Foreign"), &json!("Idle")), "{node}");
    assert!(site.base().join("opt").join(version(site)).join("berth").is_file(), "the programs are staged");
    assert!(!site.base().join("opt/current").exists(), "and nothing is switched");
    // As NOTES has it: Helm 3 takes a DaemonSet for ready while as many of its pods are not as an update may take away.
    let installed = site.kubectl(NAMESPACE);
    for workload in ["deployment/berth-operator", "daemonset/berth-agent"] {
        installed.run(&["rollout", "status", workload, "--timeout=60s"]);
    }
    site.timed("helm test", || site.helm(&["test", "berth", "--timeout=120s"]));
    site.is_on(Kind::Containerd);
}

/// The version that the agent's image carries.
pub fn version(site: &Site) -> String {
    let node = site.kubectl(NAMESPACE).get("runtimenode", NODE_NAME).unwrap();
    node["status"]["agentVersion"].as_str().unwrap().to_owned()
}

/// What the node's network is: that of containerd, whose pods it goes on with.
pub fn network(site: &Site) -> Value {
    json!({"mode": "CNI", "cni": {"confDir": site.base().join("containerd/cni"), "binDirs": [programs::path_from_env("BERTH_PEERS")]}})
}

pub fn config(site: &Site, spec: &Value) -> Value {
    let mut whole = json!({
        "nodeSelector": {},
        "rollout": {"soak": {"canary": "1s", "wave": "1s"}, "drain": {"timeout": "60s"}},
        "adopt": {"profile": "Command"},
        "network": network(site),
        "metrics": {"address": DAEMON_METRICS},
    });
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    json!({"apiVersion": "berth.dev/v1alpha1", "kind": "RuntimeConfig", "metadata": {"name": CONFIG}, "spec": whole})
}

/// Waits until the present generation is on all nodes.
pub fn complete(site: &Site) -> Value {
    site.wait_object("runtimeconfig", CONFIG, "is on all nodes", |object| {
        let mut conditions = object["status"]["conditions"].as_array().into_iter().flatten();
        let ready = conditions.find(|c| c["type"] == "Ready").unwrap_or(&Value::Null);
        ready["status"] == "True" && ready["observedGeneration"] == object["metadata"]["generation"]
    })
}

/// A RuntimeConfig takes the node over: drained, switched, with its own pods, and open again.
pub fn is_taken_over(site: &Site) {
    is_installed(site);
    site.managed.get_or_init(|| take_over(site));
}

fn take_over(site: &Site) {
    let kubectl = site.kubectl("default");
    site.timed("taking the node over", || {
        kubectl.apply(&config(site, &json!({"runtime": {"pidsLimit": 4000}})));
        complete(site);
    });
    site.is_on(Kind::Berth);
    is_open(site, Kind::Berth);
    site.wait_object("runtimenode", NODE_NAME, "is well and at rest", |node| {
        let status = &node["status"];
        (&status["state"], &status["phase"], &status["healthy"]) == (&json!("Managed"), &json!("Idle"), &json!(true))
    });
    for (program, memory) in site.memory() {
        let [share, anonymous] = [memory.share, memory.anonymous].map(|kib| kib as f64 / 1024.0);
        println!("  memory of {program}: {share:.1} MiB, {anonymous:.1} MiB of that in no file");
    }
}

/// Waits until the node is ready and open again, and its kubelet tells that runtime: operator and kubelet say it in their own time.
fn is_open(site: &Site, on: Kind) {
    let kubectl = site.kubectl("default");
    site.wait("the node is open", || {
        let node = kubectl.get("node", NODE_NAME)?;
        let version = node["status"]["nodeInfo"]["containerRuntimeVersion"].as_str().unwrap_or_default();
        let open = node["spec"]["unschedulable"].is_null() && cluster::has_condition(&node, "Ready");
        if open && version.starts_with(&format!("{on}://")) { Ok(()) } else { Err(node.to_string()) }
    });
}

pub fn web() -> Value {
    let probe = json!({"httpGet": {"path": "/", "port": 80}, "periodSeconds": 1});
    let container = json!({"name": "web", "image": images::WEB, "ports": [{"containerPort": 80}], "readinessProbe": probe,
        "resources": {"requests": {"cpu": "20m"}, "limits": {"memory": "64Mi", "cpu": "200m"}}});
    let shell = json!({"name": "shell", "image": images::BUSYBOX, "command": ["sleep", "1000000"]});
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
        "replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [container, shell]},
        },
    }})
}

pub fn web_is_available(site: &Site) {
    let kubectl = site.kubectl("default");
    site.wait("the deployment is available", || {
        let deployment = kubectl.get("deployment", "web")?;
        let available = deployment["status"]["availableReplicas"] == 2;
        if available { Ok(()) } else { Err(deployment["status"].to_string()) }
    });
}

/// A Deployment with limits and a Service run on the node, and are entered.
pub fn runs_workloads(site: &Site) {
    is_taken_over(site);
    let kubectl = site.kubectl("default");
    site.timed("a deployment is available", || {
        kubectl.apply(&web());
        web_is_available(site);
    });
    kubectl.run(&["expose", "deployment", "web", "--port=8000", "--target-port=80"]);
    let service = kubectl.get("service", "web").unwrap();
    let address = format!("{}:8000", service["spec"]["clusterIP"].as_str().unwrap());
    site.wait("the service answers", || match http::get(site.space(), &address, "/") {
        Ok((200, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let said = kubectl.run(&["exec", "deployment/web", "-c", "shell", "--", "sh", "-c", "echo inside $HOSTNAME"]);
    assert!(said.starts_with("inside web-"), "{said}");
    let pods = kubectl.json(&["get", "pods", "-l", "app=web"]);
    assert!(pods["items"].as_array().unwrap().iter().all(|pod| cluster::has_condition(pod, "Ready")));
    kubectl.run(&["delete", "deployment/web", "service/web", "--wait"]);
}

/// Not while the node runs on Berth: Helm says which node and what to do, and nothing of the release is gone. Once it is given back, it goes.
pub fn is_uninstalled_only_once_given_back(site: &Site) {
    is_taken_over(site);
    let kubectl = site.kubectl(NAMESPACE);
    let uninstall = ["uninstall", "berth", "--timeout=120s"];
    let refused = site.timed("refusing to be uninstalled", || site.try_helm(&uninstall).unwrap_err());
    assert!(refused.contains(NODE_NAME) && refused.contains("`state: Absent`"), "{refused}");
    kubectl.run(&["get", "deployment/berth-operator", "daemonset/berth-agent"]);
    // Its pod has ended, and on the other runtime it never was.
    kubectl.run(&["delete", "job", "berth-uninstall"]);
    is_given_back(site);
}

/// Whoever gives the node back dies once in the middle of it, while no kubelet runs: that is nobody's fault, and it is begun again.
fn kill_the_returning(site: &Site) {
    let journal = site.root().join("lib/adopt/journal");
    site.wait("the kubelet is stopped for the way back", || {
        let text = std::fs::read_to_string(&journal).map_err(|e| e.to_string())?;
        let last = text.rsplit_once("\"event\":\"begin\"").unwrap_or_default().1;
        let stopped = last.contains("\"event\":\"enter\",\"step\":\"clear-pods\"");
        if stopped && last.contains("\"direction\":\"return\"") { Ok(()) } else { Err("not yet".to_owned()) }
    });
    let mut all = processes::of(site.space()).into_iter();
    let returning =
        all.find(|p| p.words.iter().any(|w| w == "adopt") && p.words.iter().any(|w| w == "return")).unwrap();
    let pid = nix::unistd::Pid::from_raw(returning.pid);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

/// `state: Absent` gives the node back to containerd; then the release goes.
pub fn is_given_back(site: &Site) {
    is_taken_over(site);
    let kubectl = site.kubectl("default");
    site.timed("giving the node back", || {
        kubectl.apply(&config(site, &json!({"state": "Absent"})));
        kill_the_returning(site);
        site.wait_object("runtimenode", NODE_NAME, "is given back", |node| {
            node["status"]["state"] == "Absent" && node["status"]["phase"] == "Idle"
        });
    });
    uninstalls(site);
}

/// The release of a node that was given back goes, and nothing of it stays.
pub fn uninstalls(site: &Site) {
    let kubectl = site.kubectl("default");
    is_open(site, Kind::Containerd);
    site.is_on(Kind::Containerd);
    site.timed("uninstalling", || {
        kubectl.run(&["delete", "imagepolicies,runtimeconfigs", "--all"]);
        site.helm(&["uninstall", "berth", "--wait", "--timeout=120s"]);
    });
    let files = std::fs::read_dir(site.base().join("kubelet.d")).unwrap().count();
    assert_eq!(files, 0, "the kubelet's files are as they were");
    assert!(!site.base().join("opt/current").exists());
    site.wait("no adopter's control group is left", || {
        let left = site.groups_of_adopters();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    site.wait("no process of Berth's runs", || {
        let left = site.memory();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}
