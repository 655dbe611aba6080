//! What is known of a node that is to be taken over: plain values, gathered by whoever asks for a plan.
//!
//! Owns: the types. Must not: read anything.
use super::{Commands, Handed, Install, PodName, Profile};
use crate::kubelet::Configuration;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// All of it.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Name for the operation.
    pub id: String,
    /// This boot (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
    /// Unix time in seconds.
    pub now: u64,
    /// Unix time in seconds after which it has to be walked back.
    pub deadline: u64,
    /// The running kubelet.
    pub kubelet: KubeletProcess,
    /// Profile that was asked for.
    pub profile: Option<Profile>,
    /// Commands that were given.
    pub commands: Option<Commands>,
    /// Files that the kubelet's command line comes from.
    pub carriers: Vec<Carrier>,
    /// kubeadm's instance-config.yaml (1.35 and later), if it is there: where, and its text.
    pub instance_config: Option<(PathBuf, String)>,
    /// The runtime that the kubelet is on.
    pub old: Runtime,
    /// Berth.
    pub new: Runtime,
    /// The configuration that Berth is handed.
    pub handed: Handed,
    /// Pods of the old runtime that run.
    pub pods: Vec<Pod>,
    /// Static pods as the kubelet's directory has them, whether they run or not.
    pub manifests: Vec<Manifest>,
    /// Where the programs go.
    pub install: Install,
    /// Who allows it.
    pub permission: Permission,
    /// Whether nodes of the control plane may be taken over.
    pub control_plane: bool,
    /// Leave the kubelet's way of counting what pods use as it is.
    pub keep_stats: bool,
    /// Permissions and owners of the files that are there.
    pub attributes: Vec<(PathBuf, (u32, u32, u32))>,
    /// Files that the plan may create and that are there already.
    pub existing: Vec<PathBuf>,
}

/// A running kubelet.
#[derive(Debug, Clone, Default)]
pub struct KubeletProcess {
    /// Process.
    pub pid: u32,
    /// What it was told.
    pub configuration: Configuration,
    /// Unit of systemd that it runs in.
    pub unit: Option<String>,
    /// The process that the unit stands for.
    pub unit_process: Option<u32>,
    /// Whether kubeadm configures that unit.
    pub kubeadm: bool,
}

/// What kind of file a part of the kubelet's command line comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CarrierKind {
    /// Lines `NAME=VALUE`; changed in place.
    Environment,
    /// A unit or a drop-in of systemd; overridden by a drop-in of ours.
    Unit,
}

/// A file that a part of the kubelet's command line comes from.
#[derive(Debug, Clone)]
pub struct Carrier {
    /// Where.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
    /// What it is.
    pub kind: CarrierKind,
}

/// A runtime.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Runtime {
    /// Its socket.
    pub socket: PathBuf,
    /// Its name, as it tells it.
    pub name: String,
    /// Its version, as it tells it.
    pub version: String,
    /// `cgroupfs` or `systemd`, if it tells (the CRI RuntimeConfig call).
    pub cgroup_driver: Option<String>,
}

impl Runtime {
    /// As kubelets are told.
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.socket.display())
    }
}

/// A pod that runs.
#[derive(Debug, Clone)]
pub struct Pod {
    /// Its name.
    pub name: PodName,
    /// Whether it comes from a file of the node (`kubernetes.io/config.source`).
    pub is_static: bool,
    /// Images of its running containers, as they were asked for.
    pub images: Vec<String>,
    /// The same of its containers that have ended: those that come first (`initContainers`) have, and run again on the other side.
    pub ended: Vec<String>,
}

/// A static pod's file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    /// The pod's namespace, `default` where it names none (as the kubelet has it).
    pub namespace: String,
    /// The pod's name there, without the node's.
    pub name: String,
    /// Images of its containers.
    pub images: Vec<String>,
}

/// Reads a static pod's file, YAML or JSON. `None` where it is none.
pub fn manifest(text: &str) -> Option<Manifest> {
    let pod = crate::yaml::fields(text).ok()?;
    if pod.get("kind")?.as_str()? != "Pod" {
        return None;
    }
    let metadata = pod.get("metadata")?;
    let name = metadata.get("name")?.as_str()?.to_owned();
    let namespace = metadata.get("namespace").and_then(|n| n.as_str()).filter(|n| !n.is_empty()).unwrap_or("default");
    let spec = pod.get("spec")?;
    let containers = ["initContainers", "containers"].into_iter().filter_map(|field| spec.get(field)?.as_array());
    let images = containers.flatten().filter_map(|container| container.get("image")?.as_str());
    Some(Manifest { namespace: namespace.to_owned(), name, images: images.map(str::to_owned).collect() })
}

/// A permission to interrupt the node's pods, from the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// Its name.
    pub id: String,
    /// Unix time in seconds after which it does not count.
    pub expires: u64,
}

/// Who allows that the node's pods are interrupted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Permission {
    /// Whoever cordoned and drained the node.
    Grant(Grant),
    /// A person, on a node without a cluster.
    Person,
    /// Nobody.
    Nobody,
}

impl Facts {
    /// Images that the node itself needs: those of its static pods, also of those that do not run just now.
    pub(super) fn own_images(&self) -> Vec<String> {
        let running = self.pods.iter().filter(|p| p.is_static).flat_map(|p| p.images.clone());
        sorted(running.chain(self.manifests.iter().flat_map(|m| m.images.clone())))
    }

    /// Images of all other containers that are here now: after a drain these are the node's own too (DaemonSets), and no registry may have them.
    pub(super) fn wished_images(&self) -> Vec<String> {
        let own = self.own_images();
        let all = self.pods.iter().flat_map(|pod| pod.images.iter().chain(&pod.ended).cloned());
        sorted(all.filter(|image| !own.contains(image)))
    }

    /// The node's static pods.
    pub(super) fn own_pods(&self) -> Vec<PodName> {
        let mut pods: Vec<PodName> = self.pods.iter().filter(|p| p.is_static).map(|p| p.name.clone()).collect();
        pods.sort();
        pods
    }
}

fn sorted(images: impl Iterator<Item = String>) -> Vec<String> {
    images.collect::<BTreeSet<_>>().into_iter().collect()
}
