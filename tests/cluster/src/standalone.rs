//! A kubelet without an API server: static pods from files, their state from the kubelet's own read-only port.
//!
//! Owns: the node, and words for pods on it. Must not: know single cases.
use crate::kubelet::{self, Kubelet, READ_ONLY};
use crate::runtime::{self, Runtime};
use crate::service::Service;
use crate::space::NodeSpace;
use crate::wait::{Diagnose, wait_for};
use crate::{cgroups, http, images};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// How long a pod may take to do what it should: the machine may be busy with others.
pub const LIMIT: Duration = Duration::from_secs(90);

/// A node with a runtime, a kubelet and a registry.
pub struct Standalone {
    space: Logged,
    registry: Service,
    runtime: Mutex<Runtime>,
    kubelet: Mutex<Kubelet>,
    pods: Mutex<BTreeSet<String>>,
}

/// The node's namespaces, whose logs say what happened.
struct Logged(NodeSpace);

impl Diagnose for Logged {
    fn diagnosis(&self) -> String {
        self.0.log_tails()
    }
}

impl Standalone {
    /// Starts one.
    pub fn start(kind: runtime::Kind, options: kubelet::Options) -> Self {
        let space = Logged(NodeSpace::new());
        let registry = images::start(&space.0, &space);
        let runtime = Runtime::start(&space.0, &space, kind);
        let kubelet = Kubelet::start(&space.0, &space, &runtime.endpoint(), options);
        Self { space, registry, runtime: Mutex::new(runtime), kubelet: Mutex::new(kubelet), pods: Mutex::default() }
    }

    /// The namespaces.
    pub fn space(&self) -> &NodeSpace {
        &self.space.0
    }

    /// The runtime.
    pub fn runtime(&self) -> MutexGuard<'_, Runtime> {
        self.runtime.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The kubelet.
    pub fn kubelet(&self) -> MutexGuard<'_, Kubelet> {
        self.kubelet.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// SIGKILL to the daemon of the runtime, and a new start.
    pub fn kill_runtime(&self) {
        self.runtime().kill_and_start(&self.space.0, &self.space);
    }

    /// SIGKILL to the kubelet, and a new start, with other options if given.
    pub fn restart_kubelet(&self, options: Option<kubelet::Options>) {
        let mut kubelet = self.kubelet();
        kubelet.kill();
        kubelet.start_again(&self.space.0, &self.space, options);
    }

    /// What crictl says.
    ///
    /// # Panics
    /// If it fails.
    pub fn crictl(&self, args: &[&str]) -> String {
        let endpoint = self.runtime().endpoint();
        match runtime::crictl(&self.space.0, &endpoint, args) {
            Ok(text) => text,
            Err(text) => panic!("crictl {args:?}: {text}"),
        }
    }

    /// Puts a static pod there: `spec` as in a manifest. It is called `NAME-node` from then on, as kubelets do.
    pub fn add(&self, name: &str, spec: &Value) {
        self.add_with(name, &json!({}), spec);
    }

    /// The same with annotations.
    pub fn add_with(&self, name: &str, annotations: &Value, spec: &Value) {
        let mut spec = spec.clone();
        if spec["terminationGracePeriodSeconds"].is_null() {
            // A shell as process 1 ignores SIGTERM.
            spec["terminationGracePeriodSeconds"] = 1.into();
        }
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default",
            "annotations": annotations}, "spec": spec});
        // Whole from one moment to the next: the kubelet watches the directory.
        let spool = self.space.0.base().join("spool").join(name);
        std::fs::write(&spool, pod.to_string()).unwrap();
        std::fs::rename(spool, self.manifest(name)).unwrap();
        self.pods.lock().unwrap().insert(name.to_owned());
    }

    /// Takes the pod away, and waits until the runtime has nothing of it.
    pub fn remove(&self, name: &str) {
        std::fs::remove_file(self.manifest(name)).unwrap();
        self.pods.lock().unwrap().remove(name);
        self.wait(&format!("{name} is gone"), || {
            let left =
                self.crictl(&["pods", "-q", "--name", &format!("^{name}-{}$", kubelet::NODE_NAME), "--state", "ready"]);
            if left.trim().is_empty() { Ok(()) } else { Err(left) }
        });
    }

    fn manifest(&self, name: &str) -> std::path::PathBuf {
        kubelet::manifests(&self.space.0).join(format!("{name}.json"))
    }

    /// The pod as the kubelet sees it.
    pub fn pod(&self, name: &str) -> Result<Value, String> {
        let list = http::json(&self.space.0, READ_ONLY, "/pods").map_err(|e| e.to_string())?;
        let full = format!("{name}-{}", kubelet::NODE_NAME);
        let mut items = list["items"].as_array().into_iter().flatten();
        items.find(|pod| pod["metadata"]["name"] == full).cloned().ok_or_else(|| format!("no pod {full}"))
    }

    /// Waits until `condition` holds of the pod, and gives the pod.
    pub fn wait_pod(&self, name: &str, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        self.wait(&format!("{name}: {what}"), || {
            let pod = self.pod(name)?;
            if condition(&pod) { Ok(pod) } else { Err(pod["status"].to_string()) }
        })
    }

    /// Waits until the pod is ready.
    pub fn wait_ready(&self, name: &str) -> Value {
        self.wait_pod(name, "ready", is_ready)
    }

    /// Waits until the container has ended for good or for now, and gives its `terminated` state.
    pub fn wait_ended(&self, pod: &str, container: &str) -> Value {
        let pod = self.wait_pod(pod, &format!("{container} has ended"), |pod| ended(pod, container).is_some());
        ended(&pod, container).cloned().unwrap_or_default()
    }

    /// The container's id without the runtime's name.
    pub fn id(&self, pod: &Value, container: &str) -> String {
        let id = self::container(pod, container)["containerID"].as_str().unwrap_or_default().to_owned();
        match id.split_once("://") {
            Some((name, id)) if name == self.runtime().kind().name() => id.to_owned(),
            _ => panic!("{id:?} is not a container of this runtime: {}", pod["status"]),
        }
    }

    /// The container's control groups.
    pub fn groups(&self, pod: &Value, container: &str) -> Vec<std::path::PathBuf> {
        cgroups::find(self.space.0.group(), &self.id(pod, container))
    }

    /// Waits for anything.
    pub fn wait<T>(&self, what: &str, condition: impl FnMut() -> Result<T, String>) -> T {
        wait_for(self, what, LIMIT, condition)
    }

    /// Kubelet's JSON at a path of its read-only port.
    pub fn kubelet_json(&self, path: &str) -> Result<Value, String> {
        http::json(&self.space.0, READ_ONLY, path).map_err(|e| e.to_string())
    }

    /// Removes all pods, ends everything, and counts what is left over.
    pub fn finish(self) {
        let names: Vec<String> = self.pods.lock().unwrap().iter().cloned().collect();
        for name in &names {
            std::fs::remove_file(self.manifest(name)).unwrap();
        }
        self.wait("the kubelet has ended all pods", || {
            let left = self.crictl(&["pods", "-q", "--state", "ready"]);
            if left.trim().is_empty() { Ok(()) } else { Err(left) }
        });
        self.kubelet.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).finish();
        self.runtime.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).finish(&self.space.0);
        self.registry.kill();
        self.space.0.finish();
    }
}

impl Diagnose for Standalone {
    fn diagnosis(&self) -> String {
        self.space.diagnosis()
    }
}

/// Whether the pod's condition `Ready` is true.
pub fn is_ready(pod: &Value) -> bool {
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// The container's `terminated` state, current or last.
pub fn ended<'a>(pod: &'a Value, name: &str) -> Option<&'a Value> {
    let status = container(pod, name);
    [&status["state"]["terminated"], &status["lastState"]["terminated"]].into_iter().find(|state| !state.is_null())
}

/// The status of one container, of whatever kind.
pub fn container<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let kinds = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];
    let mut all = kinds.iter().flat_map(|kind| pod["status"][kind].as_array().into_iter().flatten());
    all.find(|status| status["name"] == name).unwrap_or(&Value::Null)
}
