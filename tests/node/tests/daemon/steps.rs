//! Named steps to hold a daemon in, the pods that this happens to, and one that must not notice.
use super::client::log_text;
use super::requests::{pod_security, security};
use super::{Cri, Node, container, eventually, is_alive, pod, shell};
use berth_proto::cri::{ContainerConfig, ContainerState, NamespaceMode, PodSandboxConfig, PodSandboxState};

/// The steps of each operation, as the figures name them; [`table_is_whole`] compares.
pub const STEPS: [(&str, &[&str]); 7] = [
    ("run", &["record", "directory", "monitor", "cgroup", "namespaces", "network"]),
    ("create", &["image", "image-volumes", "policy", "validate", "rootfs", "record"]),
    ("start", &["record", "rootfs", "cgroup", "spec", "spawn", "setup", "running", "exec"]),
    ("stop", &["containers", "init", "network", "namespaces", "monitor", "record"]),
    ("remove", &["containers", "directory", "record"]),
    ("remove-container", &["container"]),
    ("pull", &["policy", "resolve", "fetch"]),
];

pub fn places(operation: &str) -> Vec<String> {
    let (_, steps) = STEPS.iter().find(|(name, _)| *name == operation).unwrap();
    steps.iter().flat_map(|s| ["enter", "leave"].map(|edge| format!("{operation}/{s}/{edge}"))).collect()
}

/// A pod that nothing of this happens to: it must not notice.
pub struct Bystander {
    pub pod: String,
    pub container: String,
    pub pid: i32,
    pub log: String,
}

impl Bystander {
    pub async fn new(node: &Node) -> Self {
        let cri = node.cri();
        let sandbox = pod(node, "bystander");
        let pod = cri.run(&sandbox).await;
        let script = "n=0; while true; do echo line $n; n=$((n + 1)); sleep 0.02; done";
        let container = cri.launch(&pod, &shell(node, "ticker", script), &sandbox).await;
        let pid = cri.pid(&container).await;
        let log = cri.status(&container).await.unwrap().log_path;
        Self { pod, container, pid, log }
    }

    /// The same process still runs, and its log goes on.
    pub async fn check(&self, cri: &Cri) {
        let state = cri.pod_status(&self.pod).await.unwrap().state();
        assert_eq!(state, PodSandboxState::SandboxReady);
        assert_eq!(cri.status(&self.container).await.unwrap().state(), ContainerState::ContainerRunning);
        assert_eq!(cri.pid(&self.container).await, self.pid);
        assert!(is_alive(self.pid));
        let lines = log_text(&self.log).lines().count();
        eventually("the log goes on", async || (log_text(&self.log).lines().count() > lines).then_some(())).await;
    }

    /// Every line is in the log, once and in order.
    pub fn check_log(&self) {
        for (number, line) in log_text(&self.log).lines().enumerate() {
            assert_eq!(line, format!("line {number}"), "{}", self.log);
        }
    }
}

/// A node with a bystander, the daemon holding at the first of the places.
pub async fn prepared(places: &[String]) -> (Node, Bystander) {
    let mut node = Node::with_tools().await;
    let bystander = Bystander::new(&node).await;
    node.hold_at(&places[0]);
    node.kill_and_start().await;
    bystander.check(&node.cri()).await;
    (node, bystander)
}

pub async fn done(node: Node, bystander: Bystander) {
    bystander.check(&node.cri()).await;
    node.cri().try_stop_pod(&bystander.pod).await.unwrap();
    bystander.check_log();
    node.finish().await;
}

/// A sandbox with an init of its own: it goes through every step.
pub fn victim(node: &Node, name: &str) -> PodSandboxConfig {
    let mut sandbox = pod(node, name);
    pod_security(&mut sandbox).namespace_options.get_or_insert_default().pid = NamespaceMode::Pod as i32;
    sandbox
}

/// A container that joins the pod's pid namespace and ends when it is asked to.
pub fn sleeper(node: &Node, name: &str) -> ContainerConfig {
    let mut config = container(node, name, &["/web", "sleep"]);
    let options = security(&mut config).namespace_options.get_or_insert_default();
    options.pid = NamespaceMode::Pod as i32;
    config
}

fn record_file(node: &Node, pod: &str) -> std::path::PathBuf {
    node.root().join("lib/pods").join(pod).join("record.json")
}

/// Process id of a pod's monitor, from the pod's record.
pub fn monitor_of(node: &Node, pod: &str) -> i32 {
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(record_file(node, pod)).unwrap()).unwrap();
    i32::try_from(record["record"]["monitor"]["pid"].as_i64().unwrap()).unwrap()
}

/// What a reboot does, as far as a daemon that is not running sees it: every record is of another boot, nothing is mounted, and
/// what lay on tmpfs is gone. Monitors must have been killed.
pub fn reboot(node: &Node) {
    for entry in std::fs::read_dir(node.root().join("lib/pods")).unwrap().flatten() {
        let file = entry.path().join("record.json");
        let mut record: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        record["record"]["boot_id"] = "00000000-0000-0000-0000-000000000000".into();
        std::fs::write(&file, record.to_string()).unwrap();
    }
    let run = node.root().join("run");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = mounts.lines().rev().filter_map(|line| line.split(' ').nth(4));
    for point in points.filter(|point| std::path::Path::new(point).starts_with(&run)) {
        super::host("umount", &["-l", point]);
    }
    std::fs::remove_dir_all(&run).unwrap();
}
