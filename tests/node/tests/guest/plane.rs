//! The smallest control plane that a kubelet can be a node of: etcd and an API server, no controllers, no scheduler. A pod names its node
//! itself. Owns: both programs, their directory, and the address that the API server finds the kubelet at. Must not: do a kubelet's work.
use super::machine::{Machine, NODE, tail};
use berth_node_tests::path_from_env;
use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// The node's address; it is of nobody else in the guest.
const ADDRESS: &str = "10.94.0.1";
const LINK: &str = "berthnode";
const TOKEN: &str = "a-token-of-the-test";
const SERVER: &str = "https://127.0.0.1:6443";
const ETCD: &str = "http://127.0.0.1:2379";

/// Running programs; gone when it is dropped.
pub struct Plane {
    dir: tempfile::TempDir,
    programs: Vec<Child>,
}

impl Plane {
    /// Starts both, and does not wait: a kubelet that comes before tries again.
    pub fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("berth-plane-").tempdir_in("/tmp").unwrap();
        ip(&["link", "add", LINK, "type", "bridge"]);
        let mut plane = Self { dir, programs: Vec::new() };
        ip(&["address", "add", &format!("{ADDRESS}/32"), "dev", LINK]);
        ip(&["link", "set", LINK, "up"]);
        std::fs::write(plane.path("tokens"), format!("{TOKEN},admin,1,system:masters\n")).unwrap();
        let accounts = rcgen::KeyPair::generate().unwrap();
        std::fs::write(plane.path("accounts.key"), accounts.serialize_pem()).unwrap();
        std::fs::write(plane.path("accounts.pub"), accounts.public_key_pem()).unwrap();
        std::fs::write(plane.kubeconfig(), kubeconfig().to_string()).unwrap();
        plane.spawn(etcd(&plane.path("etcd")));
        plane.spawn(plane.api_server());
        plane
    }

    /// What the kubelet is started with.
    pub fn kubelet_flags(&self) -> String {
        format!("--kubeconfig={} --node-ip={ADDRESS}", self.kubeconfig().display())
    }

    /// Waits until this node is known, and ready.
    pub async fn has_node(&self, machine: &Machine) {
        let ready = |node: &Value| {
            let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
        };
        let what = "the API server knows the node as ready";
        let all = || {
            self.object(&["namespace", "default"]).is_some() && self.object(&["node", NODE]).is_some_and(|n| ready(&n))
        };
        self.wait(machine, what, all).await;
    }

    /// Makes a pod on this node.
    pub fn create(&self, mut pod: Value) {
        pod["spec"]["nodeName"] = NODE.into();
        let file = self.path("pod.json");
        std::fs::write(&file, pod.to_string()).unwrap();
        self.kubectl(&["create", "-f", file.to_str().unwrap()]);
    }

    /// Waits until the API server's word on the pod is as wanted.
    pub async fn pod(&self, machine: &Machine, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        self.wait(machine, what, || {
            last = self.object(&["pod", name]).unwrap_or_default();
            wanted(&last)
        })
        .await;
        last
    }

    async fn wait(&self, machine: &Machine, what: &str, mut condition: impl FnMut() -> bool) {
        let what = format!("{what}\n{}", tail(&self.path("kube-apiserver.log")));
        machine.eventually(&what, async || condition().then_some(())).await;
    }

    /// What kubectl gets of these words, if that is there.
    pub fn object(&self, words: &[&str]) -> Option<Value> {
        let output = self.command().arg("get").args(words).args(["-o", "json"]).output().unwrap();
        serde_json::from_slice(&output.stdout).ok()
    }

    /// kubectl; it must succeed.
    pub fn kubectl(&self, args: &[&str]) -> String {
        let output = self.command().args(args).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {args:?}: {error}\n{}", tail(&self.path("kube-apiserver.log")));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// kubectl exec by one protocol, with this on stdin.
    pub fn exec(&self, websocket: bool, args: &[&str], input: &[u8]) -> Output {
        let file = self.path("stdin");
        std::fs::write(&file, input).unwrap();
        let mut command = self.command();
        command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websocket.to_string()).arg("exec").args(args);
        command.stdin(File::open(&file).unwrap()).output().unwrap()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(path_from_env("BERTH_KUBERNETES").join("kubectl"));
        command.arg("--kubeconfig").arg(self.kubeconfig()).arg("--cache-dir").arg(self.path("kubectl-cache"));
        command.stdin(Stdio::null());
        command
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The administrator's.
    pub fn kubeconfig(&self) -> PathBuf {
        self.path("kubeconfig")
    }

    fn spawn(&mut self, mut command: Command) {
        let name = Path::new(command.get_program()).file_name().unwrap().to_string_lossy().into_owned();
        let log = File::create(self.path(&format!("{name}.log"))).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.programs.push(command.spawn().unwrap());
    }

    /// It signs its own certificate. The kubelet takes it as it takes everybody: this test is of streams and limits.
    fn api_server(&self) -> Command {
        let (accounts, public) = (self.path("accounts.key"), self.path("accounts.pub"));
        let mut command = Command::new(path_from_env("BERTH_KUBERNETES").join("kube-apiserver"));
        for (flag, value) in [
            ("etcd-servers", ETCD),
            ("secure-port", "6443"),
            ("bind-address", "127.0.0.1"),
            ("advertise-address", ADDRESS),
            ("cert-dir", self.path("certificates").to_str().unwrap()),
            ("token-auth-file", self.path("tokens").to_str().unwrap()),
            ("authorization-mode", "AlwaysAllow"),
            ("service-account-issuer", "https://kubernetes.default.svc"),
            ("service-account-key-file", public.to_str().unwrap()),
            ("service-account-signing-key-file", accounts.to_str().unwrap()),
            ("service-cluster-ip-range", "10.96.0.0/16"),
            // Nobody makes accounts here.
            ("disable-admission-plugins", "ServiceAccount"),
            ("kubelet-preferred-address-types", "InternalIP"),
        ] {
            command.arg(format!("--{flag}={value}"));
        }
        command
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        while let Some(mut program) = self.programs.pop() {
            let _ = program.kill();
            let _ = program.wait();
        }
        let _ = Command::new("ip").args(["link", "delete", LINK]).output();
    }
}

fn ip(args: &[&str]) {
    crate::daemon::host("ip", args);
}

fn etcd(data: &Path) -> Command {
    let mut command = Command::new(path_from_env("BERTH_ETCD"));
    command.arg("--data-dir").arg(data).arg("--unsafe-no-fsync");
    command.args(["--listen-client-urls", ETCD, "--advertise-client-urls", ETCD]);
    command.args(["--listen-peer-urls", "http://127.0.0.1:2380"]);
    command
}

fn kubeconfig() -> Value {
    serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": SERVER, "insecure-skip-tls-verify": true}}],
        "users": [{"name": "test", "user": {"token": TOKEN}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    })
}
