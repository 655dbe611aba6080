//! What is seen of Berth on the node, by other eyes than its own: processes, units, mounts, files; and what of a pod must stay as it is.
use super::{Node, UNIT_FILE, systemctl};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Everything that a node without Berth does not have, but its documents, records and images.
pub(super) fn left_of_berth() -> Vec<String> {
    let mut left: Vec<String> = [UNIT_FILE, "/etc/systemd/system/multi-user.target.wants/berth.service", "/opt/berth"]
        .into_iter()
        .filter(|path| fs::symlink_metadata(path).is_ok())
        .map(str::to_owned)
        .collect();
    let own = std::process::id().to_string();
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    left.extend(processes.filter(|path| !path.ends_with(&own)).filter_map(|path| {
        let name = fs::read_to_string(path.join("comm")).ok()?;
        name.starts_with("berth").then(|| format!("process {}", name.trim()))
    }));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let ours = |line: &&str| line.contains(" /run/berth") || line.contains(" /var/lib/berth");
    left.extend(mounts.lines().filter(ours).map(str::to_owned));
    let units =
        Command::new("systemctl").args(["list-units", "--all", "--plain", "--no-legend", "berth*"]).output().unwrap();
    let units = String::from_utf8_lossy(&units.stdout).into_owned();
    left.extend(units.lines().filter(|line| line.contains(".service")).map(str::to_owned));
    left
}

/// A container that runs: what no exchange of the daemon may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub id: String,
    pub pid: String,
    restarts: i64,
    started: String,
}

impl Seen {
    /// Of the node's pod, on Berth.
    pub fn of(node: &Node) -> Self {
        let pod = node.is_on("berth");
        let status = &pod["status"]["containerStatuses"][0];
        let id = status["containerID"].as_str().unwrap().strip_prefix("berth://").unwrap().to_owned();
        Self {
            pid: node.inspected(&id)["info"]["pid"].to_string(),
            restarts: status["restartCount"].as_i64().unwrap(),
            started: status["state"]["running"]["startedAt"].to_string(),
            id,
        }
    }
}

/// Numbers of the pod's log without a gap; how many.
pub fn counted() -> usize {
    let pods: Vec<_> = fs::read_dir("/var/log/pods").unwrap().flatten().map(|e| e.path().join("main")).collect();
    let logs = pods.iter().flat_map(|dir| fs::read_dir(dir).into_iter().flatten().flatten());
    let newest = logs.map(|entry| entry.path()).max_by_key(|path| modified(path)).expect("the pod has a log");
    let text = fs::read_to_string(newest).unwrap();
    // The last line may be under way.
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    // The server beside it says that it listens.
    let lines: Vec<&str> = whole.filter(|line| !line.contains(" listening ")).collect();
    // A pod of a file has one log for all its lives.
    let lines = &lines[lines.iter().rposition(|line| line.ends_with(" 0\n")).expect("it has begun")..];
    for (n, line) in lines.iter().enumerate() {
        assert!(line.trim_end().ends_with(&format!(" {n}")), "line {n} of the log is {line:?}");
    }
    lines.len()
}

fn modified(path: &Path) -> std::time::SystemTime {
    fs::metadata(path).unwrap().modified().unwrap()
}

/// Process that the unit stands for.
pub fn main_process(unit: &str) -> String {
    systemctl(&["show", "--value", "-p", "MainPID", unit])
}
