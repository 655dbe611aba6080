//! What agents report of nodes, honestly: a node has a revision once it was told to have it and, where that interrupts the node, holds a
//! grant for it, which its agent asks for first; one that cannot be applied is given up. Notes what it sees on the way.
use crate::api::{Api, GROUP};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A configuration with this limit of processes cannot be applied by any node, until somebody mends the nodes.
pub const IMPOSSIBLE: u64 = 66;

#[derive(Debug, Default)]
pub struct Seen {
    /// Most nodes that were cordoned at the same time.
    pub cordoned: usize,
    /// Nodes that ever tried each revision, and how often.
    pub tried: BTreeMap<String, BTreeMap<String, usize>>,
    /// Nodes that were interrupted while pods could be scheduled to them: none, ever.
    pub without_cordon: BTreeSet<String>,
}

#[derive(Debug, Default)]
pub struct Reporters {
    pub stop: AtomicBool,
    /// The nodes are mended: they can do what is impossible.
    pub mended: AtomicBool,
    /// Nodes whose agents hang as soon as they have a grant.
    pub hang: Mutex<BTreeSet<String>>,
    pub seen: Mutex<Seen>,
}

impl Reporters {
    /// Reports until told to stop.
    pub fn run(&self, api: &Api) {
        let mut contents = BTreeMap::new();
        while !self.stop.load(Ordering::Relaxed) {
            // The API server may be slow; a look that fails is followed by the next one. A grant comes after its cordon: so does the look.
            if let (Ok(list), Ok(nodes)) = (api.get(&format!("{GROUP}/runtimenodes")), api.get("/api/v1/nodes")) {
                let cordoned = nodes["items"].as_array().unwrap().iter().filter(|n| n["spec"]["unschedulable"] == true);
                let cordoned: BTreeSet<_> = cordoned.map(|n| n["metadata"]["name"].as_str().unwrap()).collect();
                let mut seen = self.seen.lock().unwrap();
                seen.cordoned = seen.cordoned.max(cordoned.len());
                for node in list["items"].as_array().unwrap() {
                    let report = self.report(api, node, &cordoned, &mut contents, &mut seen);
                    if report != json!({}) {
                        let name = node["metadata"]["name"].as_str().unwrap();
                        let path = format!("{GROUP}/runtimenodes/{name}/status");
                        // Once it is done it is said, or it would be done again.
                        let said = json!({"metadata": {"uid": node["metadata"]["uid"]}, "status": report});
                        while let Err(e) = api.patch(&path, &said)
                            && !e.starts_with('4')
                            && !self.stop.load(Ordering::Relaxed)
                        {
                            std::thread::sleep(Duration::from_millis(200));
                        }
                    }
                }
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn report(
        &self,
        api: &Api,
        node: &Value,
        cordoned: &BTreeSet<&str>,
        contents: &mut BTreeMap<String, Value>,
        seen: &mut Seen,
    ) -> Value {
        let (spec, status) = (&node["spec"], &node["status"]);
        let name = node["metadata"]["name"].as_str().unwrap();
        let mut report = json!({});
        if spec["policyRevision"].is_string() && spec["policyRevision"] != status["policyRevision"] {
            report["policyRevision"] = spec["policyRevision"].clone();
        }
        let desired = spec["desiredRevision"].as_str().unwrap_or_default();
        let gave_up =
            status["failed"]["revision"] == desired && status["failed"]["desiredSince"] == spec["desiredSince"];
        if desired.is_empty() || status["currentRevision"] == desired || gave_up {
            if status["phase"] == "AwaitingGrant" {
                report["phase"] = json!("Idle");
            }
            return report;
        }
        let content = contents
            .entry(desired.to_owned())
            .or_insert_with(|| api.get(&format!("{GROUP}/runtimerevisions/{desired}")).unwrap_or_default());
        if content.is_null() {
            contents.remove(desired);
            return report;
        }
        let takes_over = status["currentRevision"].is_null();
        let granted =
            spec["grant"]["revision"] == desired && spec["grant"]["expiresAt"].as_str().unwrap() > timestamp().as_str();
        if takes_over && !granted {
            if status["phase"] != "AwaitingGrant" {
                report["phase"] = json!("AwaitingGrant");
            }
            return report;
        }
        if takes_over && self.hang.lock().unwrap().contains(name) {
            return json!({"phase": "Applying"});
        }
        *seen.tried.entry(desired.to_owned()).or_default().entry(name.to_owned()).or_default() += 1;
        if takes_over && !cordoned.contains(name) {
            seen.without_cordon.insert(name.to_owned());
        }
        let now = timestamp();
        report["phase"] = json!("Idle");
        let impossible = content["spec"]["runtime"]["config"]["runtime"]["pidsLimit"] == IMPOSSIBLE;
        if impossible && !self.mended.load(Ordering::Relaxed) {
            report["failed"] = json!({"revision": desired, "reason": "NotApplied", "message": "pids.max: out of range", "at": now,
                "desiredSince": spec["desiredSince"]});
        } else {
            report["currentRevision"] = json!(desired);
            report["currentSince"] = json!(now);
            report["healthy"] = json!(true);
            report["state"] = json!("Managed");
            report["nodeUID"] = spec["nodeUID"].clone();
        }
        report
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
