//! `helm upgrade` to a release with another version of the runtime: its agent stages it, the rollout switches the node, and pods do not notice.
//!
//! Owns: what runs meanwhile. Must not: build anything; the next version's image of the agent is there (`BERTH_CLUSTER_IMAGES`/next).
use crate::chain::{self, chart, version};
use crate::site::{NAMESPACE, Site};
use berth_cluster_tests::kubectl::Running;
use berth_cluster_tests::kubelet::NODE_NAME;
use berth_cluster_tests::{cluster, images, programs};
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;

/// Where the layout of the next version's image is.
pub fn layouts() -> PathBuf {
    programs::path_from_env("BERTH_CLUSTER_IMAGES").join("next")
}

/// The version that it is tagged with.
fn next() -> String {
    let text = std::fs::read_to_string(layouts().join("berth-agent/index.json")).unwrap();
    let index: Value = serde_json::from_str(&text).unwrap();
    index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap().to_owned()
}

pub fn is_upgraded(site: &Site) {
    chain::is_taken_over(site);
    let kubectl = site.kubectl("default");
    let (former, next) = (version(site), next());
    assert_ne!(former, next);
    kubectl.apply(&chain::web());
    let shell = |script: &str| {
        json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [
        {"name": "main", "image": images::BUSYBOX, "command": ["sh", "-c", script]}]})
    };
    kubectl.apply(&cluster::pod("counts", &shell("i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done")));
    kubectl.apply(&cluster::pod("leaves", &shell("until test -e /tmp/go; do sleep 0.1; done; exit 7")));
    chain::web_is_available(site);
    for pod in ["counts", "leaves"] {
        site.wait(pod, || {
            let found = kubectl.get("pod", pod)?;
            if cluster::has_condition(&found, "Ready") { Ok(()) } else { Err(found["status"].to_string()) }
        });
    }
    let mut session = kubectl.spawn(&["exec", "-i", "deployment/web", "-c", "shell", "--", "sh"]);
    says(&mut session, "before");
    let (before, agent) = (containers(site), agent_pod(site));
    let file = site.base().join("values-2.json");
    std::fs::write(&file, values(site, &next).to_string()).unwrap();
    let file = file.display().to_string();
    site.timed("helm upgrade, and the node runs the next version", || {
        site.timed("helm upgrade", || {
            site.helm(&["upgrade", "berth", &chart(), "--values", &file, "--wait", "--timeout=180s"]);
        });
        site.wait_object("runtimenode", NODE_NAME, "runs the next version", |node| {
            let status = &node["status"];
            let (state, phase) = (&status["state"], &status["phase"]);
            (state, phase) == (&json!("Managed"), &json!("Idle"))
                && status["runtimeVersion"] == next.as_str()
                && status["healthy"] == true
                && status["currentRevision"] == node["spec"]["desiredRevision"]
        });
    });
    assert_ne!(agent_pod(site), agent);
    let pointed = std::fs::read_link(site.base().join("opt/current")).unwrap();
    assert_eq!(pointed.to_str(), Some(next.as_str()));
    assert!(site.base().join("opt").join(former).is_dir(), "the former one is there to go back to");
    says(&mut session, "after");
    assert_eq!(containers(site), before, "containers run on");
    counted(site);
    kubectl.run(&["exec", "leaves", "--", "touch", "/tmp/go"]);
    site.wait("an exit code is told", || {
        let pod = kubectl.get("pod", "leaves")?;
        let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
        if ended["exitCode"] == 7 { Ok(()) } else { Err(pod["status"].to_string()) }
    });
    site.wait("the node tells its version", || {
        let node = kubectl.get("node", NODE_NAME)?;
        let told = &node["status"]["nodeInfo"]["containerRuntimeVersion"];
        if *told == format!("berth://{next}") { Ok(()) } else { Err(told.to_string()) }
    });
    drop(session);
    kubectl.run(&["delete", "deployment/web", "pod/counts", "pod/leaves", "--wait"]);
}

/// The release as its next version has it.
fn values(site: &Site, next: &str) -> Value {
    let mut values = site.values();
    values["agent"]["image"]["tag"] = json!(next);
    // What operator and agent of that version would say of themselves: only the runtime is built once more.
    values["operator"]["runtimeVersion"] = json!(next);
    values["agent"]["extraArgs"].as_array_mut().unwrap().push(json!(format!("--runtime-version={next}")));
    values
}

/// Asks a shell for a word, and waits for it.
fn says(session: &mut Running, word: &str) {
    let stdin = session.child.stdin.as_mut().unwrap();
    writeln!(stdin, "echo {word}").unwrap();
    stdin.flush().unwrap();
    session.read_until(&format!("{word}\n"));
}

/// Containers by id, how often they were restarted, and since when they run.
fn containers(site: &Site) -> Vec<Value> {
    let pods = site.kubectl("default").json(&["get", "pods"]);
    let statuses = pods["items"].as_array().unwrap().iter().flat_map(|p| p["status"]["containerStatuses"].as_array());
    statuses.flatten().map(|c| json!([c["containerID"], c["restartCount"], c["state"]])).collect()
}

/// Not a line of its log is missing, and it goes on. A kubelet whose connection to the daemon was lost makes a new one after a pause of up
/// to three seconds (`maxBackoffDelay`, k8s.io/cri-client), and until then has words of its own in the log's place.
fn counted(site: &Site) {
    let kubectl = site.kubectl("default");
    let lines = || -> Result<Vec<u64>, String> {
        let ran = kubectl.try_run(&["logs", "counts"]);
        if ran.code != 0 {
            return Err(ran.err);
        }
        let log = ran.text();
        log.lines().map(|line| line.parse().map_err(|e| format!("{e}: {line:?} in the log:\n{log}"))).collect()
    };
    let first = site.wait("the kubelet reads the log", lines);
    assert_eq!(first, (1..=first.len() as u64).collect::<Vec<_>>());
    site.wait("the log goes on", || {
        let now = lines()?;
        if now.len() > first.len() { Ok(()) } else { Err(format!("{} lines", now.len())) }
    });
}

fn agent_pod(site: &Site) -> String {
    let selector = "--selector=app.kubernetes.io/component=agent";
    site.kubectl(NAMESPACE).run(&["get", "pods", selector, "-o", "jsonpath={.items[*].metadata.uid}"])
}
