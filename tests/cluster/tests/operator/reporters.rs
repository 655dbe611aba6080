//! What agents report of nodes, honestly: a node has a revision once it was told to have it and, where that interrupts the node, holds a
//! grant for it; one that cannot be applied is given up. Notes what it sees on the way.
use crate::api::{Api, GROUP};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A configuration with this limit of processes cannot be applied by any node.
pub const IMPOSSIBLE: u64 = 66;

#[derive(Debug, Default)]
pub struct Seen {
    /// Most nodes that were cordoned at the same time.
    pub cordoned: usize,
    /// Nodes that ever tried each revision, and how often.
    pub tried: BTreeMap<String, BTreeMap<String, usize>>,
    /// Nodes that were interrupted without a grant: none, ever.
    pub without_grant: BTreeSet<String>,
}

#[derive(Debug, Default)]
pub struct Reporters {
    pub stop: AtomicBool,
    pub seen: Mutex<Seen>,
}

impl Reporters {
    /// Reports until told to stop.
    pub fn run(&self, api: &Api) {
        let mut contents = BTreeMap::new();
        while !self.stop.load(Ordering::Relaxed) {
            // The API server may be slow; a look that fails is followed by the next one.
            if let Ok(list) = api.get(&format!("{GROUP}/runtimenodes")) {
                let nodes = list["items"].as_array().unwrap();
                let cordoned = nodes.iter().filter(|n| n["spec"]["cordonedSince"].is_string()).count();
                let mut seen = self.seen.lock().unwrap();
                seen.cordoned = seen.cordoned.max(cordoned);
                for node in nodes {
                    self.report(api, node, &mut contents, &mut seen);
                }
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn report(&self, api: &Api, node: &Value, contents: &mut BTreeMap<String, Value>, seen: &mut Seen) {
        let (spec, status) = (&node["spec"], &node["status"]);
        let name = node["metadata"]["name"].as_str().unwrap();
        let mut report = json!({});
        if spec["policyRevision"].is_string() && spec["policyRevision"] != status["policyRevision"] {
            report["policyRevision"] = spec["policyRevision"].clone();
        }
        if let Some(desired) = spec["desiredRevision"].as_str()
            && status["currentRevision"] != desired
            && status["failed"]["revision"] != desired
        {
            let content = contents
                .entry(desired.to_owned())
                .or_insert_with(|| api.get(&format!("{GROUP}/runtimerevisions/{desired}")).unwrap_or_default());
            let takes_over = status["currentRevision"].is_null();
            if content.is_null() {
                contents.remove(desired);
            } else if !takes_over || spec["grant"]["revision"] == desired {
                *seen.tried.entry(desired.to_owned()).or_default().entry(name.to_owned()).or_default() += 1;
                if takes_over && spec["cordonedSince"].is_null() {
                    seen.without_grant.insert(name.to_owned());
                }
                let now = timestamp();
                if content["spec"]["runtime"]["config"]["runtime"]["pidsLimit"] == IMPOSSIBLE {
                    report["failed"] = json!({"revision": desired, "reason": "NotApplied", "message": "pids.max: out of range", "at": now});
                } else {
                    report["currentRevision"] = json!(desired);
                    report["currentSince"] = json!(now);
                    report["healthy"] = json!(true);
                    report["state"] = json!("Managed");
                    report["nodeUID"] = spec["nodeUID"].clone();
                }
            }
        }
        if report != json!({}) {
            let _ = api.patch(&format!("{GROUP}/runtimenodes/{name}/status"), &json!({ "status": report }));
        }
    }
}

/// Now, as RFC 3339 in UTC.
pub fn timestamp() -> String {
    let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let output = std::process::Command::new("date")
        .args(["-u", "-d", &format!("@{seconds}"), "+%Y-%m-%dT%H:%M:%SZ"])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
