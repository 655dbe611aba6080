//! A node that was on Berth from the beginning, with an agent, and an API server beside it. The kubelet has no API server: what a kubelet
//! does with one is tested elsewhere.
//!
//! Owns: the node, and what is asked of it. Must not: know single cases.
use berth_cluster_tests::control_plane::ControlPlane;
use berth_cluster_tests::kubectl::Kubectl;
use berth_cluster_tests::kubelet::{Kubelet, NODE_NAME, Options};
use berth_cluster_tests::service::{Recipe, Service};
use berth_cluster_tests::space::NodeSpace;
use berth_cluster_tests::{Diagnose, http, processes, programs, runtime, wait_for};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long the agent may take for what it should do.
pub const LIMIT: Duration = Duration::from_secs(90);
/// Where the agent answers probes.
pub const AGENT: &str = "127.0.0.1:9465";
const PROXY: &str = "127.0.0.1:8001";
const GROUP: &str = "/apis/berth.dev/v1alpha1";
const NAMESPACE: &str = "berth-system";
const STOP_GRACE: Duration = Duration::from_secs(30);

pub struct Node {
    space: Logged,
    plane: Mutex<ControlPlane>,
    /// `kubectl proxy`: the API without TLS, for many small requests.
    proxy: Service,
    /// `berth supervise`, which keeps the daemon running.
    supervisor: Service,
    kubelet: Kubelet,
    agent: Mutex<Option<Service>>,
    /// Version of the runtime that is staged.
    version: String,
}

struct Logged(NodeSpace);

impl Diagnose for Logged {
    fn diagnosis(&self) -> String {
        self.0.log_tails()
    }
}

impl Diagnose for Node {
    fn diagnosis(&self) -> String {
        format!("{}\n{}", self.object().map_or_else(|e| e, |object| format!("{object:#}")), self.space.diagnosis())
    }
}

impl Node {
    pub fn start() -> Self {
        let space = Logged(NodeSpace::new());
        let plane = ControlPlane::start_api(&space.0, &space);
        let base = space.0.base().to_owned();
        let root = base.join("berth");
        space.0.owns_group(&format!("berth-{:08x}", fnv1a(root.as_os_str().as_encoded_bytes())));
        space.0.watch_log("berth", root.join("log/berth.log"));
        fs::create_dir_all(root.join("etc")).unwrap();
        let document = json!({"apiVersion": "berth.dev/v1alpha1", "kind": "RuntimeConfig", "metadata": {"name": "node"},
            "spec": {"network": {"mode": "Builtin", "subnet": runtime::POD_NETWORK}}});
        fs::write(root.join("etc/50-node.yaml"), document.to_string()).unwrap();
        let version = stage(&base);
        let supervise = Recipe::new("supervise", base.join("opt/current/berth")).arg("--root").arg(&root);
        let program = base.join("opt/current/berth");
        let supervise = supervise.arg("supervise").arg("--program").arg(&program);
        let supervisor = Service::start(&space.0, supervise);
        let socket = root.join("run/berth.sock");
        wait_for(&space, "the daemon answers", LIMIT, || runtime::crictl(&space.0, &endpoint(&socket), &["version"]));
        let kubelet = Kubelet::start(&space.0, &space, &endpoint(&socket), Options::default());
        let pid = processes::of(&space.0).into_iter().find(|p| p.words[0] == "kubelet").unwrap().pid;
        fs::write(base.join("kubelet.pid"), format!("{pid}\n")).unwrap();
        let proxy = Recipe::new("proxy", programs::kubernetes("kubectl"));
        let proxy = proxy.flag("kubeconfig", plane.admin().display()).arg("proxy").flag("port", 8001);
        let proxy = Service::start(&space.0, proxy);
        let (plane, agent) = (Mutex::new(plane), Mutex::default());
        let node = Self { space, plane, proxy, supervisor, kubelet, agent, version };
        node.install();
        node.issue_token("agent-0");
        node.start_agent();
        node
    }

    /// What the chart brings but for its workloads, and the objects of this node.
    fn install(&self) {
        self.wait("the proxy answers", || self.get("/readyz").map(drop));
        let kubectl = self.kubectl();
        kubectl.run(&["create", "namespace", NAMESPACE]);
        let generated = repository("crds/generated");
        kubectl.run(&["apply", "--server-side", "-f", &generated]);
        let mut helm = self.space.0.command("tools", programs::helm());
        helm.args(["template", "berth", &repository("charts/berth"), "--namespace", NAMESPACE]);
        helm.args(["--set", "agent.credentialsSecret=registries"]);
        for file in ["rbac", "admissionpolicy", "serviceaccount"] {
            helm.args(["--show-only", &format!("templates/agent/{file}.yaml")]);
        }
        for (name, dir) in [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")] {
            helm.env(name, self.base().join("helm").join(dir));
        }
        let output = helm.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let applied = kubectl.try_with(&["apply", "-f", "-"], &output.stdout);
        assert_eq!(applied.code, 0, "{}{}", applied.text(), applied.err);
        kubectl.apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE_NAME}}));
        self.wait("the kind is served", || self.get(&format!("{GROUP}/runtimenodes")).map(drop));
        self.make_object();
    }

    /// The node's RuntimeNode, as an operator makes it.
    pub fn make_object(&self) {
        let node = self.get(&format!("/api/v1/nodes/{NODE_NAME}")).unwrap();
        let spec = json!({"nodeName": NODE_NAME, "nodeUID": node["metadata"]["uid"]});
        self.create("runtimenodes", "RuntimeNode", NODE_NAME, &spec).unwrap();
    }

    pub fn base(&self) -> &Path {
        self.space.0.base()
    }

    pub fn space(&self) -> &NodeSpace {
        &self.space.0
    }

    pub fn root(&self) -> PathBuf {
        self.base().join("berth")
    }

    /// Version of the runtime on this node.
    pub fn version(&self) -> &str {
        &self.version
    }

    pub fn plane(&self) -> MutexGuard<'_, ControlPlane> {
        self.plane.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn kubectl(&self) -> Kubectl<'_> {
        Kubectl::new(self.space(), self.plane().admin(), NAMESPACE)
    }

    /// A token for a pod of that name on this node, where the agent reads it.
    pub fn issue_token(&self, pod: &str) {
        let kubectl = self.kubectl();
        kubectl.apply(
            &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod}, "spec": {"nodeName": NODE_NAME,
            "serviceAccountName": "berth-agent", "containers": [{"name": "agent", "image": "none"}]}}),
        );
        let token = ["create", "token", "berth-agent", "--bound-object-kind", "Pod", "--bound-object-name", pod];
        let draft = self.base().join("token.new");
        fs::write(&draft, kubectl.run(&token).trim()).unwrap();
        fs::rename(draft, self.base().join("token")).unwrap();
    }

    /// Starts the agent.
    pub fn start_agent(&self) {
        self.start_agent_with(None);
    }

    /// The same with one more variable in its environment.
    pub fn start_agent_with(&self, variable: Option<(&str, String)>) {
        let base = self.base();
        let mut config: Value = serde_json::from_slice(&fs::read(self.plane().admin()).unwrap()).unwrap();
        config["users"][0]["user"] = json!({"tokenFile": base.join("token")});
        let kubeconfig = base.join("agent.kubeconfig");
        fs::write(&kubeconfig, config.to_string()).unwrap();
        let mut recipe = Recipe::new("agent", programs::berth("berth-agent"))
            .flag("run", self.root().join("run").display())
            .flag("state", self.root().join("lib").display())
            .flag("prefix", base.join("opt").display())
            .flag("root", self.root().display())
            .flag("kubelet-pid-file", base.join("kubelet.pid").display())
            .flag("credentials-secret", "registries")
            .flag("listen", AGENT)
            .flag("log", "info,berth_agent=debug");
        let environment = [
            ("KUBECONFIG", kubeconfig.display().to_string()),
            ("BERTH_NODE_NAME", NODE_NAME.to_owned()),
            ("BERTH_NAMESPACE", NAMESPACE.to_owned()),
            ("BERTH_POD_NAME", "agent-0".to_owned()),
        ];
        recipe.env.extend(environment.map(|(name, value)| (name.to_owned(), value)));
        recipe.env.extend(variable.map(|(name, value)| (name.to_owned(), value)));
        let started = Service::start(self.space(), recipe);
        assert!(self.agent.lock().unwrap().replace(started).is_none(), "one agent at a time");
    }

    /// SIGKILL.
    pub fn kill_agent(&self) {
        let agent = self.agent.lock().unwrap().take();
        agent.unwrap().kill();
    }

    /// Starts an agent that stops at a place (its feature `failpoints`), has `change` made, waits until it is there, and kills it.
    pub fn killed_at(&self, place: &str, change: impl FnOnce()) {
        let hold = self.base().join("hold");
        let reached = self.base().join("hold.reached");
        let _ = fs::remove_file(&reached);
        fs::write(&hold, "").unwrap();
        self.kill_agent();
        self.start_agent_with(Some(("BERTH_AGENT_HOLD", format!("{place}={}", hold.display()))));
        change();
        self.wait(&format!("the agent is at {place}"), || {
            if reached.exists() { Ok(()) } else { Err("not yet".to_owned()) }
        });
        self.kill_agent();
        fs::remove_file(hold).unwrap();
    }

    /// What is served at a path of the API server: JSON, or its text where it is none.
    pub fn get(&self, path: &str) -> Result<Value, String> {
        answer(http::get(self.space(), PROXY, path))
    }

    /// Makes an object of ours.
    pub fn create(&self, plural: &str, kind: &str, name: &str, spec: &Value) -> Result<Value, String> {
        let object =
            json!({"apiVersion": "berth.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
        let kind = ("POST", "application/json");
        answer(http::send(self.space(), PROXY, kind, &format!("{GROUP}/{plural}"), &object))
    }

    /// The RuntimeNode.
    pub fn object(&self) -> Result<Value, String> {
        self.get(&format!("{GROUP}/runtimenodes/{NODE_NAME}"))
    }

    /// Changes the RuntimeNode's spec.
    pub fn tell(&self, spec: &Value) {
        let kind = ("PATCH", "application/merge-patch+json");
        let path = format!("{GROUP}/runtimenodes/{NODE_NAME}");
        answer(http::send(self.space(), PROXY, kind, &path, &json!({ "spec": spec }))).unwrap();
    }

    /// Waits until the node's status is so.
    pub fn reports(&self, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        self.wait(what, || {
            let object = self.object()?;
            if condition(&object["status"]) { Ok(object["status"].clone()) } else { Err("not so".to_owned()) }
        })
    }

    pub fn wait<T>(&self, what: &str, condition: impl FnMut() -> Result<T, String>) -> T {
        wait_for(self, what, LIMIT, condition)
    }

    /// What `berth WORDS` says.
    pub fn berth(&self, words: &[&str]) -> Result<String, String> {
        let mut command = self.space().command("tools", programs::berth("berth"));
        let output = command.arg("--root").arg(self.root()).args(words).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// The process of the daemon; 0 while there is none.
    pub fn daemon(&self) -> i32 {
        let status = fs::read(self.root().join("run/supervise.json")).unwrap_or_default();
        let status: Value = serde_json::from_slice(&status).unwrap_or_default();
        status["daemon"].as_i64().map_or(0, |pid| i32::try_from(pid).unwrap())
    }

    /// Where the daemon keeps what is applied.
    pub fn applied_file(&self) -> PathBuf {
        self.root().join("lib/applied-revisions.json")
    }

    /// The limit of processes that is in force, as the daemon says.
    pub fn pids_limit(&self) -> String {
        let explained = self.berth(&["config", "explain", "spec.runtime.pidsLimit"]).unwrap();
        explained.lines().take(6).collect::<Vec<_>>().join("\n")
    }

    pub fn agent_log(&self) -> String {
        fs::read_to_string(self.base().join("logs/agent.log")).unwrap()
    }

    pub fn finish(self) {
        if let Some(agent) = self.agent.into_inner().unwrap_or_else(PoisonError::into_inner) {
            let status = agent.stop(STOP_GRACE);
            assert!(status.success(), "the agent ended with {status}");
        }
        self.kubelet.finish();
        let endpoint = endpoint(&self.space.0.base().join("berth/run/berth.sock"));
        runtime::crictl(&self.space.0, &endpoint, &["rmp", "--all", "--force"]).unwrap();
        assert!(self.supervisor.stop(STOP_GRACE).success());
        self.proxy.kill();
        self.plane.into_inner().unwrap_or_else(PoisonError::into_inner).finish();
        self.space.0.finish();
    }
}

fn endpoint(socket: &Path) -> String {
    format!("unix://{}", socket.display())
}

fn answer(result: std::io::Result<(u16, String)>) -> Result<Value, String> {
    match result {
        Ok((200..=299, body)) => Ok(serde_json::from_str(&body).unwrap_or(Value::String(body))),
        Ok((status, body)) => Err(format!("{status}: {body}")),
        Err(e) => Err(e.to_string()),
    }
}

/// A path of the checkout.
fn repository(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path).display().to_string()
}

/// Puts the runtime's programs where an agent's image does, and gives their version.
fn stage(base: &Path) -> String {
    let output = std::process::Command::new(programs::berth("berth")).arg("--version").output().unwrap();
    let version = String::from_utf8(output.stdout).unwrap().split_whitespace().nth(1).unwrap().to_owned();
    let directory = base.join("opt").join(&version);
    fs::create_dir_all(&directory).unwrap();
    for program in ["berth", "berth-monitor", "berth-init"] {
        let (from, to) = (programs::berth(program), directory.join(program));
        fs::hard_link(&from, &to).or_else(|_| fs::copy(&from, &to).map(drop)).unwrap();
    }
    std::os::unix::fs::symlink(&version, base.join("opt/current")).unwrap();
    version
}

/// FNV-1a, 32 bits: what Berth's names on a node end with.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, b| (hash ^ u32::from(*b)).wrapping_mul(0x0100_0193))
}
