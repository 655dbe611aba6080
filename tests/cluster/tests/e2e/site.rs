//! A cluster of one node on containerd, with the images of operator and agent in its registry. Owns: its parts and their order, what has
//! been reached. Must not: know single cases.
use berth_cluster_tests::control_plane::{ControlPlane, proxy_is_healthy};
use berth_cluster_tests::helm::helm;
use berth_cluster_tests::kubectl::Kubectl;
use berth_cluster_tests::runtime::{self, Kind, Runtime};
use berth_cluster_tests::service::Service;
use berth_cluster_tests::space::NodeSpace;
use berth_cluster_tests::{Diagnose, cgroups, cluster, images, kubelet, processes, programs, script_kubelet, wait_for};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// The release's namespace.
pub const NAMESPACE: &str = "berth-system";
/// How long any one step may take: an operator's pass, a drain, a kubelet's start.
pub const LIMIT: Duration = Duration::from_secs(240);
/// Lines of events that are shown when a case failed.
const EVENTS: usize = 40;

/// The cluster.
pub struct Site {
    space: Logged,
    registry: Service,
    containerd: Runtime,
    plane: Mutex<ControlPlane>,
    /// The release is installed.
    pub installed: OnceLock<()>,
    /// The node is taken over.
    pub managed: OnceLock<()>,
}

struct Logged(NodeSpace);

impl Diagnose for Logged {
    fn diagnosis(&self) -> String {
        self.0.log_tails()
    }
}

impl Site {
    /// Starts it, and waits until the node is ready on containerd.
    pub fn start() -> Self {
        Self::start_with(|_| {})
    }

    /// The same for cases that kill: a kubelet waits for minutes otherwise before it starts anew what ended again and again.
    pub fn start_to_kill() -> Self {
        Self::start_with(|config| config["crashLoopBackOff"] = json!({"maxContainerRestartPeriod": "3s"}))
    }

    fn start_with(change: impl FnOnce(&mut Value)) -> Self {
        let space = Logged(NodeSpace::new());
        let built = programs::path_from_env("BERTH_CLUSTER_IMAGES");
        let next = crate::upgrade::layouts();
        let layouts = [("berth-operator", &built), ("berth-agent", &built), ("berth-agent", &next)];
        let layouts = layouts.map(|(name, dir)| (name.to_owned(), dir.join(name)));
        let registry = images::start_with(&space.0, &space, &layouts);
        let containerd = Runtime::start(&space.0, &space, Kind::Containerd);
        let mut plane = ControlPlane::start(&space.0, &space);
        let mut options = plane.kubelet_options();
        change(&mut options.config);
        script_kubelet::prepare(&space.0, &containerd.endpoint(), &options);
        script_kubelet::run(&space.0, "start");
        plane.start_proxy(&space.0);
        let (plane, installed, managed) = (Mutex::new(plane), OnceLock::new(), OnceLock::new());
        let site = Self { space, registry, containerd, plane, installed, managed };
        site.owns();
        // Nothing but a RuntimeConfig of the cluster says what the node's network is.
        std::fs::create_dir_all(site.root().join("etc")).unwrap();
        let kubectl = site.kubectl("default");
        site.wait("the node is ready", || {
            let node = kubectl.get("node", kubelet::NODE_NAME)?;
            let ready = cluster::has_condition(&node, "Ready");
            if ready { Ok(()) } else { Err(node["status"]["conditions"].to_string()) }
        });
        site.wait("kube-proxy is healthy", || proxy_is_healthy(site.space()));
        site
    }

    /// How the names of control groups begin that Berth makes for this root.
    fn group(&self) -> String {
        format!("berth-{:08x}", fnv1a(self.root().as_os_str().as_encoded_bytes()))
    }

    /// Control groups of whoever took the node over or gave it back.
    pub fn groups_of_adopters(&self) -> Vec<PathBuf> {
        cgroups::directories(&format!("{}-adopt", self.group()))
    }

    /// Control groups at the top that Berth makes for this root, and its logs.
    fn owns(&self) {
        let name = self.group();
        for group in [name.clone(), format!("{name}-adopt"), format!("{name}-runtime")] {
            self.space.0.owns_group(&group);
        }
        for (name, path) in [("berth", "log/berth.log"), ("deadman", "lib/adopt/deadman.log")] {
            self.space.0.watch_log(name, self.root().join(path));
        }
    }

    pub fn space(&self) -> &NodeSpace {
        &self.space.0
    }

    /// The ends of all logs, without a question to the API server.
    pub fn logs(&self) -> &impl Diagnose {
        &self.space
    }

    pub fn plane(&self) -> MutexGuard<'_, ControlPlane> {
        self.plane.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn base(&self) -> &Path {
        self.space.0.base()
    }

    /// Berth's root.
    pub fn root(&self) -> PathBuf {
        self.base().join("berth")
    }

    /// What the daemon's supervisor says (docs/formats/supervisor.md).
    pub fn supervisor(&self) -> Value {
        let text = std::fs::read(self.root().join("run/supervise.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    pub fn kubectl(&self, namespace: &str) -> Kubectl<'_> {
        Kubectl::new(self.space(), self.plane().admin(), namespace)
    }

    pub fn try_helm(&self, args: &[&str]) -> Result<String, String> {
        helm(self.space(), &self.plane().admin(), NAMESPACE, args)
    }

    pub fn helm(&self, args: &[&str]) -> String {
        self.try_helm(args).unwrap_or_else(|told| panic!("helm {args:?}: {told}\n{}", self.diagnosis()))
    }

    /// Waits for anything.
    pub fn wait<T>(&self, what: &str, condition: impl FnMut() -> Result<T, String>) -> T {
        wait_for(self, what, LIMIT, condition)
    }

    /// Waits until `condition` holds of the object, and gives it.
    pub fn wait_object(&self, kind: &str, name: &str, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        self.wait_object_in(NAMESPACE, kind, name, what, condition)
    }

    /// The same in that namespace.
    pub fn wait_object_in(
        &self,
        namespace: &str,
        kind: &str,
        name: &str,
        what: &str,
        condition: impl Fn(&Value) -> bool,
    ) -> Value {
        let kubectl = self.kubectl(namespace);
        self.wait(&format!("{kind} {name}: {what}"), || {
            let object = kubectl.get(kind, name)?;
            if condition(&object) { Ok(object) } else { Err(object["status"].to_string()) }
        })
    }

    /// What a step took, for the closing note.
    pub fn timed<T>(&self, what: &str, body: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let value = body();
        println!("  {what}: {:.1} s", began.elapsed().as_secs_f64());
        value
    }

    /// The values of this site's release.
    pub fn values(&self) -> Value {
        let (registry, space) = (images::ADDRESS, self.space());
        let image = |name: &str| json!({"registry": registry, "repository": name});
        json!({
            // What `helm test` runs: images::AGNHOST.
            "tests": {"image": {"registry": registry, "repository": "agnhost", "tag": "v1"}},
            "operator": {
                "image": image("berth-operator"),
                // The one node is also the one that is drained.
                "tolerations": [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule"}],
            },
            "agent": {
                "image": image("berth-agent"),
                "log": "info,berth_agent=debug",
                "host": {"prefix": self.base().join("opt"), "run": self.root().join("run"), "state": self.root().join("lib")},
                "kubelet": {"stop": script_kubelet::script(space, "stop"), "start": script_kubelet::script(space, "start")},
                "extraArgs": [format!("--root={}", self.root().display()), "--kubelet-pid-file=/node/kubelet"],
                "extraVolumes": [{"name": "node", "hostPath": {"path": script_kubelet::directory(space), "type": "Directory"}}],
                "extraVolumeMounts": [{"name": "node", "mountPath": "/node", "readOnly": true}],
            },
        })
    }

    /// Whether there are pods, and all of them are ready on this runtime. Error: they are not.
    pub fn pods_are_on(&self, kind: Kind) -> Result<(), String> {
        let list = self.kubectl("default").get("pods", "-A")?;
        let pods = list["items"].as_array().cloned().unwrap_or_default();
        let on = |pod: &Value| {
            let id = pod["status"]["containerStatuses"][0]["containerID"].as_str().unwrap_or_default();
            id.starts_with(&format!("{kind}://")) && cluster::has_condition(pod, "Ready")
        };
        if !pods.is_empty() && pods.iter().all(on) { Ok(()) } else { Err(list.to_string()) }
    }

    /// Asserts that all pods of the node run on this runtime, and the other one has none.
    pub fn is_on(&self, kind: Kind) {
        self.wait(&format!("all pods are ready on {kind}"), || self.pods_are_on(kind));
        if kind == Kind::Berth {
            let left = runtime::crictl(self.space(), &self.containerd.endpoint(), &["pods", "-q"]).unwrap();
            assert_eq!(left.trim(), "", "containerd has pods of the kubelet's");
        }
    }

    /// Memory of Berth's processes on this node, by program.
    pub fn memory(&self) -> Vec<(String, processes::Memory)> {
        let ours = processes::of(self.space())
            .into_iter()
            .filter(|p| p.words.first().is_some_and(|word| word.starts_with("berth") && word != "berth-test-registry"));
        let named = |words: &[String]| match words.iter().position(|word| word == "serve" || word == "supervise") {
            Some(at) => format!("{} {}", words[0], words[at]),
            None => words[0].clone(),
        };
        ours.filter_map(|p| Some((named(&p.words), p.memory()?))).collect()
    }

    /// Ends everything, and counts what is left over.
    pub fn finish(self) {
        script_kubelet::run(self.space(), "stop");
        self.plane.into_inner().unwrap_or_else(PoisonError::into_inner).finish();
        self.containerd.finish(&self.space.0);
        self.registry.kill();
        self.space.0.finish();
    }
}

impl Diagnose for Site {
    fn diagnosis(&self) -> String {
        let kubectl = self.kubectl(NAMESPACE);
        let ask = |args: &[&str]| {
            let ran = kubectl.try_run(args);
            format!("--- kubectl {}\n{}{}\n", args.join(" "), ran.text(), ran.err)
        };
        let events = kubectl.try_run(&["get", "events", "-A", "--sort-by=.metadata.creationTimestamp"]).text();
        let lines: Vec<&str> = events.lines().collect();
        let told: String = [
            &["get", "pods", "-A", "-o", "wide"][..],
            &["get", "nodes"],
            &["get", "runtimeconfigs,runtimerevisions,imagepolicies", "-o", "yaml"],
            &["get", "runtimenodes", "-o", "yaml"],
            &["logs", "daemonset/berth-agent", "--tail=80"],
            &["logs", "deployment/berth-operator", "--all-pods", "--tail=60"],
        ]
        .map(ask)
        .concat();
        let events = lines[lines.len().saturating_sub(EVENTS)..].join("\n");
        format!("--- events\n{events}\n{told}{}", self.space.diagnosis())
    }
}

/// FNV-1a, 32 bits: what Berth's names on a node end with.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, b| (hash ^ u32::from(*b)).wrapping_mul(0x0100_0193))
}
