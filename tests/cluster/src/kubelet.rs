//! A kubelet, unmodified, as a node's configuration starts it. Owns: its configuration file and its process. Must not: patch around what
//! a runtime should answer.
use crate::programs;
use crate::runtime::POD_NETWORK;
use crate::service::{Recipe, Service};
use crate::space::{NODE_ADDRESS, NodeSpace};
use crate::wait::{Diagnose, wait_for};
use crate::{cgroups, http};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Name of the node.
pub const NODE_NAME: &str = "node";
/// Plain HTTP, inside the node: `/pods`, `/stats/summary`, `/metrics/cadvisor`.
pub const READ_ONLY: &str = "127.0.0.1:10255";
const HEALTH: &str = "127.0.0.1:10248";
const START_LIMIT: Duration = Duration::from_secs(90);
const STOP_GRACE: Duration = Duration::from_secs(10);

/// What differs between kubelets.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// A node of a cluster; without, standalone.
    pub kubeconfig: Option<PathBuf>,
    /// Merged over the configuration's top level.
    pub config: Value,
}

/// A running kubelet.
#[derive(Debug)]
pub struct Kubelet {
    service: Option<Service>,
    endpoint: String,
    options: Options,
}

impl Kubelet {
    /// Starts one on the runtime at `endpoint` and waits until it calls itself healthy.
    pub fn start(space: &NodeSpace, node: &impl Diagnose, endpoint: &str, options: Options) -> Self {
        // The kubelet makes its pods' groups below this one, which must exist (go-route's table of v1 facts).
        cgroups::create(space.group()).unwrap();
        let recipe = recipe(space, endpoint, &options);
        let mut kubelet = Self { service: Some(Service::start(space, recipe)), endpoint: endpoint.to_owned(), options };
        kubelet.wait(space, node);
        kubelet
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.service.take().expect("the kubelet runs").kill();
    }

    /// A new start after [`Self::kill`], with other options if given.
    pub fn start_again(&mut self, space: &NodeSpace, node: &impl Diagnose, options: Option<Options>) {
        if let Some(options) = options {
            self.options = options;
        }
        self.service = Some(Service::start(space, recipe(space, &self.endpoint, &self.options)));
        self.wait(space, node);
    }

    /// Ends it. Pods stay.
    pub fn finish(mut self) {
        if let Some(service) = self.service.take() {
            service.stop(STOP_GRACE);
        }
    }

    fn wait(&mut self, space: &NodeSpace, node: &impl Diagnose) {
        let service = self.service.as_mut().expect("the kubelet runs");
        wait_for(node, "the kubelet is healthy", START_LIMIT, || {
            service.must_live();
            match http::get(space, HEALTH, "/healthz") {
                Ok((200, _)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }
}

/// Directory of static pods' manifests.
pub fn manifests(space: &NodeSpace) -> PathBuf {
    space.base().join("manifests")
}

/// How a kubelet on the runtime at `endpoint` is started; its configuration file is written.
pub fn recipe(space: &NodeSpace, endpoint: &str, options: &Options) -> Recipe {
    let file = space.base().join("kubelet.json");
    std::fs::write(&file, config(space, endpoint, options).to_string()).unwrap();
    let mut recipe = Recipe::new("kubelet", programs::kubernetes("kubelet"))
        .flag("config", file.display())
        .flag("hostname-override", NODE_NAME)
        .flag("node-ip", NODE_ADDRESS)
        .flag("runtime-cgroups", format!("/{}/runtime", space.group()))
        .flag("root-dir", "/var/lib/kubelet")
        .flag("v", 2);
    if let Some(kubeconfig) = &options.kubeconfig {
        recipe = recipe.flag("kubeconfig", kubeconfig.display());
    }
    recipe
}

/// KubeletConfiguration, v1beta1. What is not a matter of this harness (cgroup v1, no privileges beyond root's) is at its default.
fn config(space: &NodeSpace, endpoint: &str, options: &Options) -> Value {
    let base = space.base();
    std::fs::write(base.join("resolv.conf"), "nameserver 10.96.0.10\n").unwrap();
    let path = |name: &str| -> PathBuf { Path::new(base).join(name) };
    let mut config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": endpoint,
        "failCgroupV1": false,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", space.group()),
        "kubeletCgroups": format!("/{}/kubelet", space.group()),
        "enforceNodeAllocatable": ["pods"],
        "oomScoreAdj": 0,
        "staticPodPath": manifests(space),
        "fileCheckFrequency": "1s",
        "readOnlyPort": 10255,
        "serializeImagePulls": false,
        "maxParallelImagePulls": 5,
        "resolvConf": path("resolv.conf"),
        "volumePluginDir": path("volume-plugins"),
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "failSwapOn": false,
        "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow"},
        "clusterDomain": "cluster.local",
        "clusterDNS": ["10.96.0.10"],
    });
    if options.kubeconfig.is_none() {
        config["podCIDR"] = POD_NETWORK.into();
    }
    if let Some(more) = options.config.as_object() {
        config.as_object_mut().unwrap().extend(more.clone());
    }
    config
}
