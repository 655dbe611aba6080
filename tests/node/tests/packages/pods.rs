//! The pod that goes on while packages come and go.
use super::node::{self, Images};
use crate::daemon::{client::log_text, host};
use serde_json::Value;
use std::time::{Duration, Instant};

/// Counts aloud: a lost or doubled line shows.
const SCRIPT: &str = "n=0; while :; do echo $n; n=$((n+1)); sleep 0.1; done";
const LIMIT: Duration = Duration::from_secs(30);

/// What must not change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    pub pid: i32,
    pub started: Value,
    pub address: Value,
    pub attempt: Value,
}

/// A pod of one container that counts.
pub struct Counting {
    /// Id of its container.
    pub container: String,
    pod: String,
    log: String,
}

impl Counting {
    /// Runs it, by `berth run` as a person would.
    pub fn run(images: &Images) -> Self {
        let file = "/tmp/counting.yaml";
        let manifest = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: counting}}\nspec:\n  containers:\n    - name: main\n      \
             image: {}\n      command: [sh, -c, '{SCRIPT}']\n",
            images.tools()
        );
        std::fs::write(file, manifest).unwrap();
        host("berth", &["run", "-f", file]);
        let (container, pod) = (node::ask(&["ps", "-q"]), node::ask(&["pods", "-q"]));
        let status: Value = serde_json::from_str(&node::ask(&["inspect", &container])).unwrap();
        let log = status["status"]["logPath"].as_str().unwrap().to_owned();
        Self { container, pod, log }
    }

    pub fn fingerprint(&self) -> Fingerprint {
        let container: Value = serde_json::from_str(&node::ask(&["inspect", &self.container])).unwrap();
        let pod: Value = serde_json::from_str(&node::ask(&["inspectp", &self.pod])).unwrap();
        assert_eq!(container["status"]["state"], "CONTAINER_RUNNING", "{container}");
        Fingerprint {
            pid: i32::try_from(container["info"]["pid"].as_i64().unwrap()).unwrap(),
            started: container["status"]["startedAt"].clone(),
            address: pod["status"]["network"]["ip"].clone(),
            attempt: container["status"]["metadata"]["attempt"].clone(),
        }
    }

    /// Lines of its log so far: consecutive numbers, none twice, none missing.
    pub fn counted(&self) -> usize {
        let text = log_text(&self.log);
        for (n, line) in text.lines().enumerate() {
            assert_eq!(line, n.to_string(), "the log has a gap");
        }
        text.lines().count()
    }

    /// Waits until it has counted on from there.
    pub fn counts_on(&self, from: usize) {
        let end = Instant::now() + LIMIT;
        while self.counted() <= from + 10 {
            assert!(Instant::now() < end, "the log stands still at {}", self.counted());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}
