//! A cluster of one node: control plane, runtime, kubelet and registry in one set of namespaces, shared by the cases of one program.
//!
//! Owns: the order of start and end, and a namespace for each case. Must not: know single cases.
use crate::control_plane::{ControlPlane, proxy_is_healthy};
use crate::images;
use crate::kubectl::Kubectl;
use crate::kubelet::{self, Kubelet};
use crate::runtime::{self, Runtime};
use crate::service::Service;
use crate::space::NodeSpace;
use crate::standalone::LIMIT;
use crate::wait::{Diagnose, wait_for};
use serde_json::Value;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Lines of events that are shown when a case failed.
const EVENTS: usize = 30;

/// The cluster.
pub struct Cluster {
    space: Logged,
    plane: ControlPlane,
    registry: Service,
    runtime: Mutex<Runtime>,
    kubelet: Mutex<Kubelet>,
}

struct Logged(NodeSpace);

impl Diagnose for Logged {
    fn diagnosis(&self) -> String {
        self.0.log_tails()
    }
}

impl Cluster {
    /// Starts one and waits until its node is ready.
    pub fn start(kind: runtime::Kind) -> Self {
        let space = Logged(NodeSpace::new());
        let registry = images::start(&space.0, &space);
        let runtime = Runtime::start(&space.0, &space, kind);
        let mut plane = ControlPlane::start(&space.0, &space);
        let kubelet = Kubelet::start(&space.0, &space, &runtime.endpoint(), plane.kubelet_options());
        plane.start_proxy(&space.0);
        let cluster = Self { space, plane, registry, runtime: Mutex::new(runtime), kubelet: Mutex::new(kubelet) };
        let kubectl = cluster.kubectl("default");
        cluster.wait("the node is ready", || {
            let node = kubectl.get("node", kubelet::NODE_NAME)?;
            if has_condition(&node, "Ready") { Ok(()) } else { Err(node["status"]["conditions"].to_string()) }
        });
        cluster.wait("kube-proxy is healthy", || proxy_is_healthy(cluster.space()));
        cluster
    }

    /// The namespaces.
    pub fn space(&self) -> &NodeSpace {
        &self.space.0
    }

    /// The runtime.
    pub fn runtime(&self) -> MutexGuard<'_, Runtime> {
        self.runtime.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The administrator's kubectl.
    pub fn kubectl(&self, namespace: &str) -> Kubectl<'_> {
        Kubectl::new(self.space(), self.plane.admin(), namespace)
    }

    /// A namespace for one case, ready for pods. It is deleted when the case is through.
    pub fn namespace(&self, name: &str) -> Namespace<'_> {
        self.kubectl("default").run(&["create", "namespace", name]);
        let kubectl = self.kubectl(name);
        self.wait("the namespace has what pods need", || {
            kubectl.get("serviceaccount", "default")?;
            kubectl.get("configmap", "kube-root-ca.crt")
        });
        Namespace { cluster: self, kubectl }
    }

    /// Waits for anything.
    pub fn wait<T>(&self, what: &str, condition: impl FnMut() -> Result<T, String>) -> T {
        wait_for(self, what, LIMIT, condition)
    }

    /// Ends everything, and counts what is left over.
    pub fn finish(self) {
        self.kubelet.into_inner().unwrap_or_else(PoisonError::into_inner).finish();
        self.plane.finish();
        self.runtime.into_inner().unwrap_or_else(PoisonError::into_inner).finish(&self.space.0);
        self.registry.kill();
        self.space.0.finish();
    }
}

impl Diagnose for Cluster {
    fn diagnosis(&self) -> String {
        let kubectl = self.kubectl("default");
        let events = kubectl.try_run(&["get", "events", "-A", "--sort-by=.lastTimestamp"]).text();
        let lines: Vec<&str> = events.lines().collect();
        let pods = kubectl.try_run(&["get", "pods", "-A", "-o", "wide"]).text();
        let events = lines[lines.len().saturating_sub(EVENTS)..].join("\n");
        format!("--- events\n{events}\n--- pods\n{pods}\n{}", self.space.diagnosis())
    }
}

/// A namespace of one case.
pub struct Namespace<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// kubectl in this namespace.
    pub kubectl: Kubectl<'a>,
}

impl Namespace<'_> {
    /// Waits until `condition` holds of the object, and gives it.
    pub fn wait(&self, kind: &str, name: &str, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        self.cluster.wait(&format!("{kind} {name}: {what}"), || {
            let object = self.kubectl.get(kind, name)?;
            if condition(&object) { Ok(object) } else { Err(object["status"].to_string()) }
        })
    }

    /// Waits until the pod is ready.
    pub fn ready(&self, pod: &str) -> Value {
        self.wait("pod", pod, "ready", |pod| has_condition(pod, "Ready"))
    }

    /// Makes a pod of this spec, and waits until it is ready.
    pub fn pod(&self, name: &str, spec: &Value) -> Value {
        self.kubectl.apply(&pod(name, spec));
        self.ready(name)
    }
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        let name = self.kubectl.namespace().to_owned();
        let _ = self.cluster.kubectl("default").try_run(&["delete", "namespace", &name, "--wait=false"]);
    }
}

/// A pod object.
pub fn pod(name: &str, spec: &Value) -> Value {
    serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec})
}

/// Whether the object's condition of this type is true.
pub fn has_condition(object: &Value, kind: &str) -> bool {
    let mut conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|c| c["type"] == kind && c["status"] == "True")
}
