//! What is steered once the node is Berth's: image policies, configurations that break it, an operator that dies.
use crate::chain::{self, CONFIG};
use crate::site::{NAMESPACE, Site};
use berth_cluster_tests::kubelet::NODE_NAME;
use berth_cluster_tests::processes::{self, Process};
use berth_cluster_tests::runtime::Kind;
use berth_cluster_tests::space::NODE_ADDRESS;
use berth_cluster_tests::{cluster, images};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

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

/// A supervisor of the daemon that is killed on a node without a service manager: its follower goes on, and where that was killed too the agent has
/// another one take the daemon over, and start the next one.
pub fn survives_its_supervisor(site: &Site) {
    chain::is_taken_over(site);
    let pid =
        |status: &Value, of: &str| status[of].as_u64().and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default();
    let signal = |pid: i32, signal: Signal| nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
    let kill = |pid: i32| signal(pid, Signal::SIGKILL);
    let before = site.supervisor();
    let (supervisor, daemon) = (pid(&before, "supervisor"), pid(&before, "daemon"));
    assert!(supervisor > 1 && daemon > 1, "{before}");
    let another = |than: i32| {
        site.wait("another one has the daemon", || {
            let now = site.supervisor();
            let is = pid(&now, "supervisor") != than && pid(&now, "daemon") == daemon;
            if is { Ok(now) } else { Err(now.to_string()) }
        })
    };
    kill(supervisor);
    let follower = site.timed("a killed supervisor is followed", || another(supervisor));
    let both = || {
        let all = processes::of(site.space()).into_iter().filter(|p| p.words[0] == "berth");
        all.filter(|p| p.words.iter().any(|word| word == "supervise")).map(|p| p.pid).collect::<Vec<_>>()
    };
    site.wait("it is followed as well", || if both().len() == 2 { Ok(()) } else { Err(format!("{:?}", both())) });
    // It stands still until its follower is gone, and so starts no other one; and the follower does not see it end.
    let supervisor = pid(&follower, "supervisor");
    signal(supervisor, Signal::SIGSTOP);
    both().into_iter().filter(|pid| *pid != supervisor).for_each(kill);
    kill(supervisor);
    let followed = site.timed("and by the agent where both were killed", || another(supervisor));
    let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", pid(&followed, "supervisor"))).unwrap();
    assert!(!groups.contains("kubepods"), "it would end with the agent's pod: {groups}");
    kill(daemon);
    site.wait("it starts the next daemon", || {
        let now = site.supervisor();
        let is = now["supervisor"] == followed["supervisor"] && ![0, daemon].contains(&pid(&now, "daemon"));
        if is { Ok(()) } else { Err(now.to_string()) }
    });
    site.wait_object("runtimenode", NODE_NAME, "is well and at rest", |node| {
        node["status"]["phase"] == "Idle" && node["status"]["healthy"] == true
    });
}

/// A condition of an object; null without one.
pub fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    object["status"]["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == kind).unwrap_or(&Value::Null)
}

/// How long the node may take to be well again. An agent that only waited would take two minutes.
const COMES_BACK: Duration = Duration::from_secs(110);

/// RuntimeConfigs that the schema takes and the node does not survive: it goes back to what was good within seconds, and says why.
pub fn comes_back(site: &Site) {
    chain::is_taken_over(site);
    let empty = site.base().join("no-networks");
    std::fs::create_dir_all(&empty).unwrap();
    let mut nowhere = chain::network(site);
    nowhere["cni"]["confDir"] = json!(empty);
    goes_back(
        site,
        "whose network is configured by nothing",
        &json!({"network": nowhere}),
        ("NotWell", "no CNI configuration in"),
    );
    let mut overlap: std::net::Ipv4Addr = NODE_ADDRESS.parse().unwrap();
    overlap = (u32::from(overlap) & 0xffff_ff00).into();
    let taken = json!({"mode": "Builtin", "subnet": format!("{overlap}/24")});
    goes_back(site, "that the daemon does not start with", &json!({"network": taken}), ("NotStarted", "overlaps"));
    site.is_on(Kind::Berth);
    site.kubectl("default").apply(&chain::config(site, &json!({"runtime": {"pidsLimit": 4000}})));
    chain::complete(site);
}

/// Applies a RuntimeConfig with that in its spec, and waits until the node is back on the revision that was good, for that reason.
pub fn goes_back(site: &Site, what: &str, spec: &Value, (reason, why): (&str, &str)) {
    let kubectl = site.kubectl("default");
    let good = kubectl.get("runtimenode", NODE_NAME).unwrap()["status"]["currentRevision"].clone();
    let began = Instant::now();
    let failed = site.timed(&format!("a configuration {what} is taken back"), || {
        kubectl.apply(&chain::config(site, spec));
        let node = site.wait_object("runtimenode", NODE_NAME, "has given it up and is well on what was good", |node| {
            let status = &node["status"];
            let back = status["currentRevision"] == good && status["loadedRevision"] == good;
            back && status["healthy"] == true && status["failed"]["reason"] == reason
        });
        node["status"]["failed"].clone()
    });
    assert!(began.elapsed() < COMES_BACK, "the node was away for {} s", began.elapsed().as_secs());
    assert!(failed["message"].as_str().unwrap().contains(why), "{failed}");
    let bad = failed["revision"].as_str().unwrap();
    site.wait_object("runtimeconfig", CONFIG, "is rolled back", |object| {
        condition(object, "Degraded")["status"] == "True" && object["status"]["targetRevision"] == bad
    });
    site.wait_object("runtimerevision", bad, "is remembered as bad", |revision| revision["status"]["verdict"] == "Bad");
}

/// The operator's process in that pod, if it runs.
pub fn operator(site: &Site, pod: &str) -> Option<Process> {
    let name = format!("BERTH_POD_NAME={pod}");
    let of_pod = |process: &Process| {
        let environment = std::fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
        environment.split(|b| *b == 0).any(|variable| variable == name.as_bytes())
    };
    let mut found = processes::of(site.space()).into_iter().filter(|p| p.words[0] == "berth-operator");
    found.find(of_pod)
}

fn leader(site: &Site) -> String {
    let lease = site.wait_object("lease", "berth-operator", "has a holder", |lease| {
        lease["spec"]["holderIdentity"].as_str().is_some_and(|holder| !holder.is_empty())
    });
    lease["spec"]["holderIdentity"].as_str().unwrap().to_owned()
}

/// The leader is killed in the middle of a rollout: another one ends it, and the node is not touched twice.
pub fn survives_its_leader(site: &Site) {
    chain::is_taken_over(site);
    let kubectl = site.kubectl(NAMESPACE);
    let before = kubectl.get("runtimenode", NODE_NAME).unwrap()["spec"]["desiredRevision"].clone();
    let soaks = json!({"soak": {"canary": "20s", "wave": "1s"}, "drain": {"timeout": "60s"}});
    kubectl.apply(&chain::config(site, &json!({"runtime": {"pidsLimit": 4100}, "rollout": soaks})));
    let told = site.wait_object("runtimenode", NODE_NAME, "is told the new revision", |node| {
        node["spec"]["desiredRevision"] != before
    });
    let holder = leader(site);
    let restarts = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or_default();
    let former = restarts(&kubectl.get("pod", &holder).unwrap());
    operator(site, &holder).unwrap_or_else(|| panic!("no process of {holder}")).signal(Signal::SIGKILL);
    let object = kubectl.get("runtimeconfig", CONFIG).unwrap();
    assert_ne!(condition(&object, "Ready")["status"], "True", "it was killed in the middle: {object}");
    site.timed("a rollout whose leader was killed is over", || chain::complete(site));
    let node = kubectl.get("runtimenode", NODE_NAME).unwrap();
    assert_eq!(node["status"]["currentRevision"], told["spec"]["desiredRevision"]);
    assert_eq!(node["spec"]["desiredSince"], told["spec"]["desiredSince"], "it was told once");
    site.wait_object("pod", &holder, "runs again", |pod| {
        restarts(pod) > former && cluster::has_condition(pod, "Ready")
    });
}
