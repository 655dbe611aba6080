//! A node whose pods CNI plugins connect: a daemon in a network namespace of its own, its configuration directory, and a plugin
//! that misbehaves as it is told.
//!
//! Owns: writing configurations, reading what plugins left (addresses of host-local, links, rules). Must not: touch the
//! machine's own network.
#![allow(dead_code, reason = "each test program uses its part")]

use super::daemon::node::Setup;
use super::daemon::{Cri, Node, eventually};
use super::network::Netns;
use berth_node_tests::path_from_env;
use berth_proto::cri::{PodSandboxStatus, StatusRequest};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The plugins of Debian's package.
pub const DEBIAN: &str = "/usr/lib/cni";

/// The plugins that `cargo xtask tools cni` builds.
pub fn built() -> PathBuf {
    path_from_env("BERTH_CNI")
}

pub struct CniNode {
    pub node: Node,
    pub netns: Netns,
}

impl CniNode {
    /// A node with the plugins of this directory and the misbehaving one. There is no configuration yet.
    pub async fn new(plugins: &Path) -> Self {
        let netns = Netns::new();
        netns.sh("ip link set lo up");
        let node = Node::with(Setup { document: Some(document(&[plugins], "60s")), netns: Some(netns.path()) }).await;
        let node = Self { node, netns };
        fs::create_dir_all(node.own_plugins()).unwrap();
        fs::create_dir_all(node.control()).unwrap();
        node.settings(plugins, "60s");
        node
    }

    /// Changes the settings while the daemon runs.
    pub fn settings(&self, plugins: &Path, timeout: &str) {
        self.settings_with(plugins, timeout, "");
    }

    /// The same with more fields of `spec.network.cni`, each on a line of its own that begins with a line break and six blanks.
    pub fn settings_with(&self, plugins: &Path, timeout: &str, more: &str) {
        let text = document(&[plugins, &self.own_plugins()], timeout);
        self.node.document("50-node.yaml", &format!("{}{more}\n", text.trim_end()));
    }

    pub fn cri(&self) -> Cri {
        self.node.cri()
    }

    /// Where configurations lie without being asked for.
    pub fn configurations(&self) -> PathBuf {
        self.node.root().join("etc/cni/net.d")
    }

    fn own_plugins(&self) -> PathBuf {
        self.node.base().join("plugins")
    }

    fn control(&self) -> PathBuf {
        self.node.base().join("control")
    }

    fn addresses_dir(&self) -> PathBuf {
        self.node.base().join("ipam")
    }

    /// Writes a configuration, whole from one moment to the next.
    pub fn configure(&self, file: &str, text: &str) {
        fs::create_dir_all(self.configurations()).unwrap();
        let new = self.node.base().join("new-configuration");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.configurations().join(file)).unwrap();
    }

    /// A network `pods` of these plugins. `version` is the specification's.
    pub fn network(&self, version: &str, plugins: &[Value]) {
        let list = json!({ "cniVersion": version, "name": "pods", "plugins": plugins });
        self.configure("10-pods.conflist", &list.to_string());
    }

    /// The plugin bridge with addresses of both families.
    pub fn bridge(&self) -> Value {
        json!({
            "type": "bridge", "bridge": "cbr0", "isGateway": true, "hairpinMode": true,
            "ipam": {
                "type": "host-local", "dataDir": self.addresses_dir(),
                "ranges": [[{ "subnet": "10.70.0.0/24", "rangeStart": "10.70.0.50", "rangeEnd": "10.70.0.60" }], [{ "subnet": "fd70::/64" }]],
                "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
            },
        })
    }

    /// The misbehaving plugin. It behaves until [`Self::behave`] says otherwise.
    pub fn hostile(&self) -> Value {
        let path = self.own_plugins().join("hostile");
        fs::write(&path, HOSTILE.replace("@CONTROL@", &self.control().to_string_lossy())).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        json!({ "type": "hostile" })
    }

    pub fn remove_hostile(&self) {
        fs::remove_file(self.own_plugins().join("hostile")).unwrap();
    }

    /// From now on, this verb does so; an empty word is good behaviour.
    pub fn behave(&self, verb: &str, how: &str) {
        let new = self.node.base().join("new-behaviour");
        fs::write(&new, how).unwrap();
        fs::rename(new, self.control().join(verb)).unwrap();
    }

    /// The verbs that the misbehaving plugin was called with, in order.
    pub fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.control().join("calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// How often it was called with this verb.
    pub fn count(&self, verb: &str) -> usize {
        self.calls().iter().filter(|call| *call == verb).count()
    }

    /// What it was last told with this verb.
    pub fn told(&self, verb: &str) -> Value {
        let path = self.control().join(format!("stdin.{verb}"));
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        serde_json::from_str(&text).unwrap()
    }

    /// Its environment at that call.
    pub fn environment(&self, verb: &str) -> String {
        fs::read_to_string(self.control().join(format!("env.{verb}"))).unwrap()
    }

    /// Processes that it has left, by what they noted.
    pub fn left(&self) -> Vec<i32> {
        let text = fs::read_to_string(self.control().join("children")).unwrap_or_default();
        text.lines().map(|l| l.parse().unwrap()).collect()
    }

    /// Addresses that host-local has handed out.
    pub fn leases(&self) -> Vec<String> {
        let entries = fs::read_dir(self.addresses_dir().join("pods")).into_iter().flatten().flatten();
        let names = entries.map(|e| e.file_name().to_string_lossy().into_owned());
        let mut leases: Vec<String> = names.filter(|n| n.starts_with("10.") || n.starts_with("fd")).collect();
        leases.sort();
        leases
    }

    /// Attachments that the daemon has recorded.
    pub fn records(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.node.root().join("lib/cni/attachments")).into_iter().flatten().flatten();
        entries.map(|e| e.path()).collect()
    }

    /// The pod's network namespace.
    pub fn pod_netns(&self, pod: &str) -> Netns {
        let path = self.node.root().join("run/pods").join(pod).join("ns/net");
        Netns(Arc::new(File::open(path).unwrap()))
    }

    /// Condition NetworkReady: whether it holds, and its message.
    pub async fn network_ready(&self) -> (bool, String) {
        let status = self.cri().runtime().status(StatusRequest::default()).await.unwrap().into_inner();
        let condition = status.status.unwrap().conditions.into_iter().find(|c| c.r#type == "NetworkReady").unwrap();
        (condition.status, condition.message)
    }

    pub async fn becomes_ready(&self) {
        let what = format!("NetworkReady; {}", self.node.log_tail());
        eventually(&what, async || self.network_ready().await.0.then_some(())).await;
    }

    /// Waits until NetworkReady is false with a message that has this in it.
    pub async fn becomes_unready(&self, word: &str) {
        // STATUS is asked every ten seconds, may take as long, and must fail twice.
        let end = std::time::Instant::now() + std::time::Duration::from_secs(90);
        loop {
            let (ready, message) = self.network_ready().await;
            if !ready && message.contains(word) {
                return;
            }
            assert!(
                std::time::Instant::now() < end,
                "NetworkReady is {ready} with {message:?}, not false with {word:?}"
            );
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }

    /// Waits until nothing of any pod is left: addresses, records, links beside the bridge, rules with a pod's address.
    pub async fn clean(&self) {
        let links = || self.netns.links().into_iter().filter(|l| l.starts_with("veth") || l.starts_with("bwp"));
        let what = format!("nothing is left of any pod; {}", self.node.log_tail());
        eventually(&what, async || {
            let gone = self.leases().is_empty() && self.records().is_empty() && links().next().is_none();
            gone.then_some(())
        })
        .await;
        let rules = self.rules();
        assert!(!rules.contains("10.70.0.") && !rules.contains("fd70::"), "left: {rules}");
    }

    /// Rules of nftables, and those of iptables in whatever form it keeps them.
    pub fn rules(&self) -> String {
        let mut all = self.netns.ruleset();
        for program in ["iptables-save", "ip6tables-save"] {
            all += &self.netns.sh(program);
        }
        all
    }

    /// The end of every test.
    pub async fn finish(self) {
        let Self { node, netns } = self;
        let cni = Self { node, netns };
        cni.node.remove_pods().await;
        cni.clean().await;
        for pid in cni.left() {
            assert!(!super::daemon::is_alive(pid), "process {pid} of a plugin is left");
        }
        cni.node.finish().await;
    }
}

fn document(dirs: &[&Path], timeout: &str) -> String {
    let dirs: Vec<String> = dirs.iter().map(|d| format!("{:?}", d.display().to_string())).collect();
    format!(
        "apiVersion: berth.dev/v1alpha1\nkind: RuntimeConfig\nmetadata:\n  name: node\nspec:\n  network:\n    mode: CNI\n    cni:\n      \
         binDirs: [{}]\n      timeout: {timeout}\n",
        dirs.join(", ")
    )
}

/// Addresses of a pod, the first one first.
pub fn addresses(status: &PodSandboxStatus) -> Vec<String> {
    let network = status.network.clone().unwrap_or_default();
    std::iter::once(network.ip).chain(network.additional_ips.into_iter().map(|ip| ip.ip)).collect()
}

/// A plugin in shell: notes each call, then does what the file of the verb's name says.
const HOSTILE: &str = r#"#!/bin/sh
control='@CONTROL@'
input=$(cat)
printf '%s' "$input" > "$control/stdin.$CNI_COMMAND"
env > "$control/env.$CNI_COMMAND"
echo "$CNI_COMMAND" >> "$control/calls"
how=$(cat "$control/$CNI_COMMAND" 2>/dev/null)
child() { sleep 1000 & echo $! >> "$control/children"; }
outside() { setsid sh -c 'echo $$ >> "$1/children"; exec sleep 1000' child "$control" & }
fail() {
  echo "{\"cniVersion\": \"1.0.0\", \"code\": $1, \"msg\": \"$2\", \"details\": \"$3\"}"
  exit 1
}
case "$how" in
  slow) : > "$control/running.$$"; sleep 0.5; ls "$control" | grep -c '^running' >> "$control/together"; sleep 0.5; rm "$control/running.$$" ;;
  hang) child; outside; sleep 1000 ;;
  crash) child; kill -SEGV $$ ;;
  garbage) echo 'all is well {'; exit 0 ;;
  nothing) exit 0 ;;
  flood) yes 0123456789012345678901234567890123456789 | head -c 100000000; exit 0 ;;
  error) echo 'the switch does not answer' >&2; fail 7 'vlan 12 does not exist' 'ask the network team' ;;
  busy) fail 50 'the agent is not up' '' ;;
  echo) echo "$input" >&2; fail 100 'cannot parse' "$(printf '%s' "$input" | tr -d '"{}' )" ;;
  leak) head -c 100000 /dev/zero | tr '\0' x >&2; printf '%s\nthe last word\n' "$input" >&2; exit 3 ;;
  exit) echo 'a last word' >&2; exit 3 ;;
  children) child ;;
  fail-*)
    left=$((${how#fail-} - 1))
    if [ "$left" -gt 0 ]; then echo "fail-$left" > "$control/$CNI_COMMAND"; else : > "$control/$CNI_COMMAND"; fi
    fail 11 'not now' "$left" ;;
esac
case "$CNI_COMMAND" in
  VERSION) echo '{"cniVersion": "1.1.0", "supportedVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]}' ;;
  ADD)
    previous=$(printf '%s' "$input" | sed -n 's/.*"prevResult":\({.*}\),"type":"hostile".*/\1/p')
    if [ -n "$previous" ]; then printf '%s' "$previous"; else
      echo "{\"cniVersion\": \"1.0.0\", \"interfaces\": [{\"name\": \"eth0\", \"sandbox\": \"$CNI_NETNS\"}], \"ips\": [{\"address\": \"10.71.0.9/24\", \"interface\": 0}]}"
    fi ;;
esac
exit 0
"#;
