//! The agent as a process of a node that is the guest itself, and the API server with the node's objects. Owns: both, and what the node is told.
//! Must not: touch the node; the agent does.
use crate::guest::plane::Plane;
use crate::takeover::{self, wait};
use berth_crds::RuntimeRevisionSpec;
use berth_node_tests::programs;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

const NODE: &str = "node1";
pub const PROGRAMS: [&str; 3] = ["berth", "berth-monitor", "berth-init"];
const LOG: &str = "/tmp/agent.log";

/// An API server with this node's objects, and an agent. Both are gone when it is dropped.
pub struct Cluster {
    agent: Child,
    plane: Plane,
}

impl Cluster {
    pub fn start(version: &str, image: Option<&Path>) -> Self {
        let plane = Plane::start();
        let there = |words: &[&str]| plane.object(words).ok_or_else(|| format!("no {words:?}"));
        wait("the API server answers", || there(&["namespace", "default"]));
        let definitions = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crds/generated");
        plane.kubectl(&["apply", "--server-side", "-f", definitions.to_str().unwrap()]);
        wait("the kinds are served", || there(&["runtimenodes"]));
        create(&plane, &json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}));
        let node = there(&["node", NODE]).unwrap();
        let spec = json!({"nodeName": NODE, "nodeUID": node["metadata"]["uid"]});
        create(&plane, &object("RuntimeNode", NODE, &spec));
        Self { agent: agent(&plane, version, image), plane }
    }

    /// The DaemonSet has that version's image: its agent takes the former one's place. The node is told once more to have `revision`, with leave
    /// to restart the daemon, so that what is reported is what this agent has found.
    pub fn rolls_out(&mut self, version: &str, image: &Path, revision: &str) {
        self.end();
        self.agent = agent(&self.plane, version, Some(image));
        self.tell(revision);
        self.has(revision);
    }

    fn end(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }

    /// Makes the revision that wants this version; its name.
    pub fn revision(&self, version: &str) -> String {
        self.revision_with(version, &json!({"pidsLimit": 400}))
    }

    /// The same with these settings of the runtime.
    pub fn revision_with(&self, version: &str, runtime: &Value) -> String {
        // It takes the place of the node's documents, so it has their network.
        let network = json!({"mode": "Builtin", "subnet": takeover::SUBNET});
        self.revision_of(version, &json!({"network": network, "runtime": runtime}))
    }

    /// The same with that configuration.
    pub fn revision_of(&self, version: &str, config: &Value) -> String {
        let spec = json!({"runtime": {"version": version, "config": config}});
        let content: RuntimeRevisionSpec = serde_json::from_value(spec).unwrap();
        let name = content.name();
        create(&self.plane, &object("RuntimeRevision", &name, &serde_json::to_value(&content).unwrap()));
        name
    }

    /// Has the node told to have it, with leave to restart the daemon.
    pub fn tell(&self, revision: &str) {
        self.tell_with(revision, "DaemonRestart");
    }

    /// The same with leave for that.
    pub fn tell_with(&self, revision: &str, disruption: &str) {
        let grant = json!({"revision": revision, "disruption": disruption, "expiresAt": timestamp("+10 minutes")});
        let spec = json!({"desiredRevision": revision, "desiredSince": timestamp("now"), "grant": grant});
        self.plane.kubectl(&["patch", "runtimenode", NODE, "--type=merge", "-p", &json!({"spec": spec}).to_string()]);
    }

    /// Has the node told to have this version; the revision's name.
    pub fn want(&self, version: &str) -> String {
        let name = self.revision(version);
        self.tell(&name);
        name
    }

    /// Waits until the node's status is so, of what it is told now.
    pub fn reports(&self, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        wait(what, || {
            let node = self.plane.object(&["runtimenode", NODE]).unwrap_or_default();
            let heard = node["status"]["observedGeneration"] == node["metadata"]["generation"];
            if heard && condition(&node["status"]) {
                Ok(node["status"].clone())
            } else {
                Err(format!("{:#}\n{}", node["status"], tail()))
            }
        })
    }

    /// Waits until the node has the revision, and is well and at rest.
    pub fn has(&self, revision: &str) -> Value {
        self.reports(&format!("{revision} is applied"), |status| {
            status["currentRevision"] == revision
                && status["loadedRevision"] == revision
                && status["phase"] == "Idle"
                && status["healthy"] == true
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.end();
    }
}

/// An agent of that version, perhaps of an image that brings the version's programs.
fn agent(plane: &Plane, version: &str, image: Option<&Path>) -> Child {
    let log = File::options().create(true).append(true).open(LOG).unwrap();
    let mut agent = Command::new(programs().join("berth-agent"));
    agent.args(["--node", NODE, "--runtime-version", version, "--listen", "127.0.0.1:9465"]);
    if let Some(image) = image {
        agent.arg("--programs").arg(image);
    }
    agent.args(["--log", "info,berth_agent=debug"]).env("KUBECONFIG", plane.kubeconfig());
    agent.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    agent.spawn().unwrap()
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "berth.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn create(plane: &Plane, object: &Value) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), object.to_string()).unwrap();
    plane.kubectl(&["create", "-f", file.path().to_str().unwrap()]);
}

/// As RFC 3339 in UTC.
fn timestamp(when: &str) -> String {
    crate::daemon::host("date", &["-u", "-d", when, "+%Y-%m-%dT%H:%M:%S.%NZ"]).trim().to_owned()
}

/// The end of what the agent has logged.
pub fn tail() -> String {
    let text = fs::read_to_string(LOG).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// Gives the programs in a directory their list (docs/formats/staged-programs.md): what has none is no agent's to remove.
pub fn list(directory: &Path) {
    let sums = Command::new("sha256sum").args(PROGRAMS).current_dir(directory).output().unwrap();
    assert!(sums.status.success(), "{}", String::from_utf8_lossy(&sums.stderr));
    fs::write(directory.join("SHA256SUMS"), sums.stdout).unwrap();
}

/// An agent's image that brings these programs as that version.
pub fn image_of(programs: &Path, version: &str) -> TempDir {
    let image = tempfile::tempdir().unwrap();
    let place = image.path().join(version);
    fs::create_dir(&place).unwrap();
    // Not copied: the guest's memory is its disk.
    PROGRAMS.iter().for_each(|program| symlink(programs.join(program), place.join(program)).unwrap());
    list(&place);
    image
}
