//! A kubelet and a daemon as the services that they are on a node, and what the kubelet says of its static pods.
//!
//! Owns: units, configuration, start and end of both, and the count of what is left over. Must not: help a pod along; what the
//! kubelet does not do by itself is not done.
use super::http;
use super::plane::Plane;
use crate::daemon::{Cri, host, images, uml};
use berth_leaks::{Scope, Snapshot};
use berth_node_tests::{path_from_env, programs};
use berth_test_registry::Registry;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, MutexGuard};

const BERTH_UNIT: &str = include_str!("../../../../manifests/systemd/berth.service");
const UNITS: &str = "/run/systemd/system";
pub const NODE: &str = "node1";
const HEALTH: &str = "127.0.0.1:10248";
const READ_ONLY: &str = "127.0.0.1:10255";
/// For one thing to happen. The guest runs one thread of a process at a time.
const LIMIT: Duration = Duration::from_secs(180);
const SETTLE: Duration = Duration::from_secs(60);

/// A node: `berth.service`, `kubelet.service`, and a registry in this process.
pub struct Machine {
    base: tempfile::TempDir,
    registry: Registry,
    before: Snapshot,
    subnet: String,
    /// Of which this node is one, if it is.
    plane: Option<Plane>,
    _alone: MutexGuard<'static, ()>,
}

impl Machine {
    /// Both services run; the kubelet is healthy and has no pods.
    pub async fn start() -> Self {
        Self::start_in(|| None).await
    }

    /// The same in a cluster of one node. The API server may not be there yet.
    pub async fn start_in_cluster() -> Self {
        Self::start_in(|| Some(Plane::start())).await
    }

    async fn start_in(plane: impl FnOnce() -> Option<Plane>) -> Self {
        static ONE: Mutex<()> = Mutex::const_new(());
        let alone = ONE.lock().await;
        let before = Snapshot::take(&Scope::default()).unwrap();
        let base = tempfile::Builder::new().prefix("berth-kubelet-").tempdir_in("/tmp").unwrap();
        let (registry, plane) = (images::registry().await, plane());
        let machine = Self { base, registry, before, subnet: subnet(), plane, _alone: alone };
        uml::prepare_for_kubelet();
        for dir in ["manifests", "kubelet", "pod-logs", "root/etc"] {
            std::fs::create_dir_all(machine.base().join(dir)).unwrap();
        }
        machine.write("root/etc/50-node.yaml", &node_document(&machine.subnet));
        machine.write("kubelet.json", &machine.kubelet_config().to_string());
        machine.write("resolv.conf", "nameserver 10.96.0.10\n");
        machine.unit("berth.service", &machine.berth_unit());
        machine.unit("kubelet.service", &machine.kubelet_unit());
        host("systemctl", &["daemon-reload"]);
        // Type=notify: this returns when the daemon says that it serves.
        machine.systemctl(&["start", "berth.service"]);
        machine.systemctl(&["start", "kubelet.service"]);
        machine.healthy().await;
        machine
    }

    pub fn base(&self) -> &Path {
        self.base.path()
    }

    /// The control plane of a machine that was started in a cluster.
    pub fn plane(&self) -> &Plane {
        self.plane.as_ref().expect("it is in a cluster")
    }

    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    pub fn socket(&self) -> PathBuf {
        self.base().join("root/run/berth.sock")
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.base().join(file), text).unwrap();
    }

    fn unit(&self, name: &str, text: &str) {
        std::fs::create_dir_all(UNITS).unwrap();
        std::fs::write(Path::new(UNITS).join(name), text).unwrap();
    }

    /// The project's own unit, with this test's program, root and log.
    fn berth_unit(&self) -> String {
        let (program, base) = (programs().join("berth"), self.base().display().to_string());
        let own = "ExecStart=/opt/berth/current/berth serve";
        assert!(BERTH_UNIT.contains(own), "the unit starts another program");
        let new = format!(
            "ExecStart={} serve --root {base}/root\nEnvironment=BERTH_LOG=debug\nStandardError=append:{base}/berth.log",
            program.display()
        );
        BERTH_UNIT.replace(own, &new)
    }

    fn kubelet_unit(&self) -> String {
        let (program, base) = (path_from_env("BERTH_KUBERNETES").join("kubelet"), self.base().display());
        let cluster = self.plane.as_ref().map(Plane::kubelet_flags).unwrap_or_default();
        format!(
            "[Unit]\nDescription=kubelet\nWants=berth.service\nAfter=berth.service\n[Service]\nStandardError=append:{base}/kubelet.log\n\
             ExecStart={} --config={base}/kubelet.json --root-dir={base}/kubelet --hostname-override={NODE} \
             --runtime-cgroups=/system.slice/berth.service -v=2 {cluster}\n",
            program.display()
        )
    }

    fn kubelet_config(&self) -> Value {
        let at = |name: &str| self.base().join(name);
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "containerRuntimeEndpoint": format!("unix://{}", self.socket().display()),
            "cgroupDriver": "systemd",
            "kubeletCgroups": "/system.slice/kubelet.service",
            "staticPodPath": at("manifests"),
            "podLogsDir": at("pod-logs"),
            "volumePluginDir": at("volume-plugins"),
            "resolvConf": at("resolv.conf"),
            "podCIDR": self.subnet,
            "fileCheckFrequency": "1s",
            "readOnlyPort": 10255,
            "failSwapOn": false,
            "serializeImagePulls": false,
            "maxParallelImagePulls": 5,
            "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
            "authorization": {"mode": "AlwaysAllow"},
        })
    }

    /// Runs systemctl; it must succeed.
    pub fn systemctl(&self, args: &[&str]) {
        let output = Command::new("systemctl").args(args).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "systemctl {args:?}: {text}\n{}", self.logs());
    }

    /// Waits until the kubelet is healthy.
    pub async fn healthy(&self) {
        let what = "the kubelet is healthy";
        self.eventually(what, async || (http::get(HEALTH, "/healthz").await? == "ok").then_some(())).await;
    }

    /// A client of the daemon.
    pub async fn cri(&self) -> Cri {
        self.eventually("the daemon answers", async || {
            let cri = Cri::connect(&self.socket()).await.ok()?;
            cri.version().await.ok()?;
            Some(cri)
        })
        .await
    }

    /// Puts a static pod's manifest in its place, whole from one moment to the next.
    pub fn apply(&self, pod: &Value) {
        let name = pod["metadata"]["name"].as_str().unwrap();
        self.write("manifest.part", &pod.to_string());
        std::fs::rename(self.base().join("manifest.part"), self.manifest(name)).unwrap();
    }

    /// Takes it away.
    pub fn withdraw(&self, name: &str) {
        std::fs::remove_file(self.manifest(name)).unwrap();
    }

    fn manifest(&self, name: &str) -> PathBuf {
        self.base().join("manifests").join(format!("{name}.json"))
    }

    /// All pods that the kubelet knows.
    pub async fn pods(&self) -> Vec<Value> {
        let Some(text) = http::get(READ_ONLY, "/pods").await else { return Vec::new() };
        let list: Value = serde_json::from_str(&text).unwrap_or_default();
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// Waits until the kubelet's word on a pod is as wanted.
    pub async fn pod(&self, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let full = format!("{name}-{NODE}");
        let mut last = Value::Null;
        let end = Instant::now() + LIMIT;
        while Instant::now() < end {
            if let Some(pod) = self.pods().await.into_iter().find(|p| p["metadata"]["name"] == full.as_str()) {
                if wanted(&pod) {
                    return pod;
                }
                last = pod["status"].clone();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("pod {name}: {what} was waited for in vain: {last:#}\n{}", self.logs());
    }

    /// Waits until something is there.
    pub async fn eventually<T>(&self, what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
        let end = Instant::now() + LIMIT;
        loop {
            if let Some(value) = condition().await {
                return value;
            }
            assert!(Instant::now() < end, "waited in vain: {what}\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The ends of both logs.
    pub fn logs(&self) -> String {
        ["berth.log", "kubelet.log"].map(|name| tail(&self.base().join(name))).join("\n")
    }

    /// Takes all pods away and ends both services; nothing may be left over.
    pub async fn finish(mut self) {
        for entry in std::fs::read_dir(self.base().join("manifests")).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
        let cri = self.cri().await;
        self.eventually("the kubelet stops the pods", async || {
            let ready = cri.pods().await.into_iter().any(|p| p.state == 0);
            (!ready && self.pods().await.is_empty()).then_some(())
        })
        .await;
        self.eventually("the kubelet removes the pods' slices", async || slices().is_empty().then_some(())).await;
        // Sandboxes that are stopped stay until its next round of collection, up to a minute away.
        for pod in cri.pods().await {
            cri.try_remove_pod(&pod.id).await.unwrap();
        }
        self.systemctl(&["stop", "kubelet.service"]);
        drop(self.plane.take());
        self.systemctl(&["stop", "berth.service"]);
        self.systemctl(&["stop", "kubepods.slice"]);
        let scope = Scope {
            roots: Vec::new(),
            words: vec![self.base().display().to_string(), "berth".into(), "kubepods".into()],
        };
        // The registry of this process is none of the node's.
        let leaks = berth_leaks::settle(&scope, &self.before, SETTLE).unwrap();
        assert!(leaks.is_empty(), "left over:\n{}", leaks.iter().map(|l| format!("  {l}\n")).collect::<String>());
    }
}

/// Slices of pods below the kubelet's own, by their directories.
pub fn slices() -> Vec<PathBuf> {
    let mut found = Vec::new();
    collect(Path::new("/sys/fs/cgroup/kubepods.slice"), &mut found);
    found.retain(|dir| dir.file_name().is_some_and(|n| n.to_string_lossy().contains("-pod")));
    found
}

fn collect(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            collect(&entry.path(), found);
            found.push(entry.path());
        }
    }
}

/// Of this node alone: what a failed test leaves must not fail the next one.
fn subnet() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("10.95.{}.0/24", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn node_document(subnet: &str) -> String {
    format!(
        "apiVersion: berth.dev/v1alpha1\nkind: RuntimeConfig\nmetadata: {{name: node}}\n\
         spec: {{network: {{mode: Builtin, subnet: {subnet}}}}}\n"
    )
}

/// The last lines of a log.
pub fn tail(path: &Path) -> String {
    let text = std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().filter(|l| !l.contains("h2::")).collect();
    format!("{}:\n{}\n", path.display(), lines[lines.len().saturating_sub(40)..].join("\n"))
}

impl Drop for Machine {
    fn drop(&mut self) {
        // After a failed test: the guest goes on with other tests.
        for unit in ["kubelet.service", "berth.service"] {
            let _ = Command::new("systemctl").args(["stop", unit]).output();
            let _ = std::fs::remove_file(Path::new(UNITS).join(unit));
        }
        let _ = Command::new("systemctl").arg("daemon-reload").output();
    }
}
