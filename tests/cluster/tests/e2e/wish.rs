//! What a cluster wants of its node in the middle of kills. Owns: the changes of it, and whether all of it holds. Must not: wait, or change a node.
use crate::chain::{self, CONFIG};
use crate::chaos::Chance;
use crate::site::Site;
use crate::steering::condition;
use berth_cluster_tests::kubelet::NODE_NAME;
use berth_cluster_tests::runtime::Kind;
use berth_cluster_tests::{cluster, images, processes};
use serde_json::{Value, json};

const POLICY: &str = "no-spare";
/// A further socket, whose coming and going takes another start of the daemon.
const SOCKET: &str = "/run/further/cri.sock";

/// All of it.
#[derive(Debug, Clone)]
pub struct Wish {
    /// `state`: `Managed` or `Absent`.
    pub managed: bool,
    pids: u64,
    pods: u64,
    socket: bool,
    policy: bool,
}

impl Default for Wish {
    fn default() -> Self {
        Self { managed: false, pids: 4000, pods: 100, socket: false, policy: false }
    }
}

impl Wish {
    pub fn taken_over(&mut self, managed: bool) -> String {
        self.managed = managed;
        format!("state: {}", self.state())
    }

    /// Changes one thing, and says which.
    pub fn changed(&mut self, chance: &mut Chance) -> String {
        // Nothing reaches a node that is given back.
        let which = if self.managed { chance.between(0, 5) } else { 4 };
        match which {
            0 => {
                self.pids = chance.between(3000, 5000);
                format!("runtime.pidsLimit: {}, of new containers", self.pids)
            }
            1 => {
                self.socket = !self.socket;
                format!("runtime.sockets.cri, which restarts the daemon: {}", self.socket)
            }
            2 => {
                self.pods = chance.between(60, 110);
                format!("kubelet.config.maxPods: {}", self.pods)
            }
            3 => {
                self.policy = !self.policy;
                format!("an ImagePolicy: {}", self.policy)
            }
            _ => self.taken_over(!self.managed),
        }
    }

    fn state(&self) -> &'static str {
        if self.managed { "Managed" } else { "Absent" }
    }

    /// Tells the cluster.
    pub fn tell(&self, site: &Site) {
        let kubectl = site.kubectl("default");
        let sockets: &[&str] = if self.socket { &[SOCKET] } else { &[] };
        let spec = json!({"state": self.state(), "runtime": {"pidsLimit": self.pids, "sockets": {"cri": sockets}},
            "kubelet": {"config": {"maxPods": self.pods}}, "rollout": rollout()});
        kubectl.apply(&chain::config(site, &spec));
        if self.policy {
            kubectl.apply(
                &json!({"apiVersion": "berth.dev/v1alpha1", "kind": "ImagePolicy", "metadata": {"name": POLICY},
                "spec": {"mode": "Enforce", "registries": {"deny": [images::SPARE.trim_end_matches(":v1")]}}}),
            );
        } else {
            kubectl.run(&["delete", "imagepolicy", POLICY, "--ignore-not-found"]);
        }
    }

    /// Whether cluster and node are so. Error: what is not.
    pub fn holds(&self, site: &Site) -> Result<(), String> {
        self.is_told(site)?;
        self.is_open(site)?;
        site.pods_are_on(if self.managed { Kind::Berth } else { Kind::Containerd })?;
        self.processes(site)?;
        let kubectl = site.kubectl("default");
        let deployment = kubectl.get("deployment", "web")?;
        expect(deployment["status"]["availableReplicas"] == 2, "the deployment is available", &deployment["status"])?;
        let ran = kubectl.try_run(&["exec", "deployment/web", "-c", "shell", "--", "echo", "inside"]);
        if ran.text() == "inside\n" { Ok(()) } else { Err(format!("exec: {} {}", ran.code, ran.err)) }
    }

    /// RuntimeConfig, RuntimeNode and ImagePolicy say that it is through.
    fn is_told(&self, site: &Site) -> Result<(), String> {
        let kubectl = site.kubectl("default");
        let config = kubectl.get("runtimeconfig", CONFIG)?;
        let ready = condition(&config, "Ready");
        let present = ready["observedGeneration"] == config["metadata"]["generation"];
        let complete = present && ready["status"] == "True" && ready["reason"] == "Complete";
        expect(complete, "the RuntimeConfig is complete", &config["status"])?;
        let own = kubectl.get("runtimenode", NODE_NAME)?;
        let status = &own["status"];
        expect(status["phase"] == "Idle" && status["state"] == self.state(), "the agent is through", status)?;
        if !self.managed {
            return Ok(());
        }
        let has = &own["spec"]["desiredRevision"];
        let all = status["currentRevision"] == *has && status["loadedRevision"] == *has && status["healthy"] == true;
        expect(all, "the node has it, and is well", &own)?;
        if self.policy {
            let policy = kubectl.get("imagepolicy", POLICY)?;
            expect(policy["status"]["summary"] == "1/1", "the policy is in force", &policy["status"])?;
        }
        let enforced = status["policyRevision"] == own["spec"]["policyRevision"];
        expect(enforced, "the node has the policies", &own)
    }

    /// The Node is ready and schedulable, and its kubelet has its settings.
    fn is_open(&self, site: &Site) -> Result<(), String> {
        let node = site.kubectl("default").get("node", NODE_NAME)?;
        let cordoned = &node["metadata"]["annotations"]["berth.dev/cordoned-since"];
        let open = node["spec"]["unschedulable"].is_null() && node["spec"]["taints"].is_null() && cordoned.is_null();
        expect(open && cluster::has_condition(&node, "Ready"), "the node is open", &node)?;
        let version = node["status"]["nodeInfo"]["containerRuntimeVersion"].as_str().unwrap_or_default();
        let runtime = if self.managed { Kind::Berth } else { Kind::Containerd };
        expect(version.starts_with(&format!("{runtime}://")), "the kubelet is where it should be", &json!(version))?;
        let pods = if self.managed { self.pods } else { 110 };
        let told = &node["status"]["allocatable"]["pods"];
        expect(*told == pods.to_string().as_str(), "the kubelet has its settings", told)
    }

    /// Each once, and nobody works at the node any more.
    fn processes(&self, site: &Site) -> Result<(), String> {
        let all = processes::of(site.space());
        let count = |program: &str, word: &str| {
            let is = |p: &&processes::Process| {
                p.words[0] == program && (word.is_empty() || p.words.iter().any(|w| w == word))
            };
            all.iter().filter(is).count()
        };
        let daemons = usize::from(self.managed);
        // A supervisor's by its words, but none: it waits for the end of one. The one that a node's init has started has none.
        let followers = count("berth", "--follow");
        expect(followers <= daemons, "one follower of the supervisor", &json!(followers))?;
        for (program, word, wanted) in [
            ("kubelet", "", 1),
            ("berth-agent", "", 1),
            ("berth-operator", "", 2),
            ("berth", "adopt", 0),
            ("berth", "serve", daemons),
            ("berth", "supervise", daemons + followers),
        ] {
            let found = count(program, word);
            expect(found == wanted, &format!("{wanted} of {program} {word}"), &json!(found))?;
        }
        let streams = count("berth", "streaming");
        expect(streams <= daemons, "one streaming process", &json!(streams))
    }
}

/// A node whose agent was killed twice in a short time (`CrashLoopBackOff`) while it asked for leave is put off for that long; 15 minutes otherwise.
fn rollout() -> Value {
    json!({"soak": {"canary": "1s", "wave": "1s"}, "drain": {"timeout": "60s", "retryAfter": "10s"}})
}

fn expect(holds: bool, what: &str, seen: &Value) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("not so: {what}: {seen}")) }
}
