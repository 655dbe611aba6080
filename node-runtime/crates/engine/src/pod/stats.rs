//! PodSandboxStats, ListPodSandboxStats and ListPodSandboxMetrics: one pass over the kernel's files for all pods.
//!
//! Owns: whose groups make up a pod. Must not: fail a list because of one pod, walk file systems.
use crate::clock;
use crate::container::create::written_reference;
use crate::context::{Engine, blocking};
use crate::record::Life;
use crate::table::{ContainerView, PodFilter, PodView};
use berth_cgroups::{CgroupPath, Cgroups};
use berth_model::{ContainerId, NamespaceMode, PodId, PodState, Resources, Result};
use berth_stats::metrics::{Sample, Subject, container_samples, pod_samples};
use berth_stats::{
    ContainerStats, FileSystem, PodGroups, PodStats, WritableLayer, container_stats, file_system, network_usage_in,
    pod_stats, process_usage,
};
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

/// A pod's readings, with its running containers'.
#[derive(Debug, Clone)]
pub struct PodReading {
    /// The pod.
    pub view: PodView,
    /// Its readings.
    pub stats: PodStats,
    /// Nanoseconds of CPU time a second.
    pub nano_cores: u64,
    /// Its running containers and theirs.
    pub containers: Vec<(ContainerView, ContainerStats)>,
}

/// A pod's samples, with its running containers'.
#[derive(Debug, Clone)]
pub struct PodSamples {
    /// The pod.
    pub pod: PodId,
    /// Its samples.
    pub samples: Vec<Sample>,
    /// Its running containers and theirs.
    pub containers: Vec<(ContainerId, Vec<Sample>)>,
}

/// What is read of one pod: decided before anything is read.
struct Target {
    view: PodView,
    containers: Vec<ContainerView>,
    groups: PodGroups,
    /// Where the pod's own group or its init's lies, for the `id` of its samples.
    name: String,
    netns: Option<PathBuf>,
}

impl Engine {
    /// Readings of one pod. One that is NOTREADY uses nothing. Errors: `NotFound`, `InvalidArgument` for an ambiguous prefix.
    pub async fn pod_stats(self: &Arc<Self>, id: &str) -> Result<PodReading> {
        let view = self.pod(id)?;
        let mut read = self.read_pods(vec![view]).await?;
        read.pop().ok_or_else(|| berth_model::Error::internal("a pod was read and is not there"))
    }

    /// Readings of the READY pods that match.
    pub async fn list_pod_stats(self: &Arc<Self>, filter: &PodFilter) -> Result<Vec<PodReading>> {
        self.read_pods(self.table.pods(&PodFilter { state: Some(PodState::Ready), ..filter.clone() })).await
    }

    /// Samples of all READY pods and their running containers.
    pub async fn pod_metrics(self: &Arc<Self>) -> Result<Vec<PodSamples>> {
        let views = self.table.pods(&PodFilter { state: Some(PodState::Ready), ..PodFilter::default() });
        let targets = self.targets(views);
        let mut layers = self.layers(running(&targets)).await;
        let (cgroups, layer_directory) = (self.cgroups.clone(), self.images.fs_usage()?.mountpoint);
        blocking(move || {
            // Without it the samples of file systems are left out.
            let fs = file_system(&layer_directory).ok();
            let networks = networks(&targets);
            let read = |(target, network)| samples(&cgroups, target, network, &mut layers, fs.as_ref());
            Ok(targets.iter().zip(networks).map(read).collect())
        })
        .await
    }

    async fn read_pods(self: &Arc<Self>, views: Vec<PodView>) -> Result<Vec<PodReading>> {
        let targets = self.targets(views);
        let mut layers = self.layers(running(&targets)).await;
        let engine = self.clone();
        blocking(move || {
            let cgroups = &engine.cgroups;
            let networks = networks(&targets);
            let read = |(target, network): (Target, _)| {
                let mut stats = pod_stats(cgroups, &target.groups, clock::now());
                stats.network = network;
                let view = target.view;
                let total = stats.usage.cpu.as_ref().map_or(0, |cpu| cpu.total);
                let nano_cores = engine.rates.rate(&view.id, view.record.created_at, stats.usage.taken_at, total);
                let containers = target.containers.into_iter().filter_map(|view| {
                    let stats = container_stats(cgroups, &view.record.cgroup, layers.remove(&view.id))?;
                    Some((view, stats))
                });
                PodReading { containers: containers.collect(), view, stats, nano_cores }
            };
            Ok(targets.into_iter().zip(networks).map(read).collect())
        })
        .await
    }

    fn targets(&self, views: Vec<PodView>) -> Vec<Target> {
        let mut owners: HashMap<String, HashSet<String>> = HashMap::new();
        for pod in self.table.pods(&PodFilter { state: Some(PodState::Ready), ..PodFilter::default() }) {
            let config = &pod.record.config;
            owners.entry(config.cgroup_parent.clone()).or_default().insert(config.metadata.uid.clone());
        }
        views.into_iter().map(|view| self.target(view, &owners)).collect()
    }

    fn target(&self, view: PodView, owners: &HashMap<String, HashSet<String>>) -> Target {
        let record = view.record.clone();
        let config = &record.config;
        let ready = record.state() == PodState::Ready;
        let containers: Vec<ContainerView> = record
            .containers
            .iter()
            .filter(|(_, c)| matches!(c.life, Life::Running { .. }))
            .map(|(id, c)| ContainerView {
                id: id.clone(),
                pod: view.id.clone(),
                pod_record: record.clone(),
                record: c.clone(),
            })
            .collect();
        // A parent that is no group at all is refused when a container is created; such a pod has nothing to read.
        let init = self.cgroups.path(&config.cgroup_parent, &self.paths.cgroup_parent, view.id.as_str()).ok();
        // A parent that the kubelet made is the pod's alone; crictl and critest put several pods into one.
        let alone = !config.cgroup_parent.is_empty() && owners.get(&config.cgroup_parent).is_none_or(|o| o.len() <= 1);
        let parent = init.as_ref().and_then(CgroupPath::parent).filter(|_| alone && ready);
        let name = parent.as_ref().or(init.as_ref()).map_or_else(String::new, ToString::to_string);
        let groups = match parent {
            Some(parent) => PodGroups::Own(parent),
            None => {
                let running = containers.iter().map(|c| c.record.cgroup.clone());
                PodGroups::Parts(running.chain(record.init_cgroup.clone()).collect::<Vec<CgroupPath>>())
            }
        };
        let own_network = ready && config.security.namespaces.network != NamespaceMode::Node;
        let netns = own_network.then(|| self.paths.pod_dir(&view.id).namespace("net"));
        Target { containers, groups, name, netns, view }
    }
}

fn running(targets: &[Target]) -> Vec<ContainerId> {
    targets.iter().flat_map(|target| target.containers.iter().map(|container| container.id.clone())).collect()
}

/// Interfaces of each target's network, in their order.
fn networks(targets: &[Target]) -> Vec<Option<Vec<berth_stats::InterfaceUsage>>> {
    let paths: Vec<PathBuf> = targets.iter().filter_map(|t| t.netns.clone()).collect();
    let mut read = network_usage_in(&paths).into_iter();
    targets.iter().map(|t| t.netns.as_ref().and_then(|_| read.next().flatten())).collect()
}

fn samples(
    cgroups: &Cgroups,
    target: &Target,
    network: Option<Vec<berth_stats::InterfaceUsage>>,
    layers: &mut HashMap<ContainerId, WritableLayer>,
    fs: Option<&FileSystem>,
) -> PodSamples {
    let record = &target.view.record;
    let key = &record.config.metadata;
    let of_pod = || Subject { namespace: key.namespace.clone(), pod: key.name.clone(), ..Subject::default() };
    let stats = pod_stats(cgroups, &target.groups, clock::now());
    let limits = match &target.groups {
        PodGroups::Own(path) => cgroups.read_back(path).unwrap_or_default(),
        PodGroups::Parts(_) => Resources::default(),
    };
    let subject = Subject { id: target.name.clone(), ..of_pod() };
    let read = (&stats.usage, &limits, stats.processes);
    let of_container = |view: &ContainerView| {
        let config = &view.record.config;
        let group = &view.record.cgroup;
        let stats = container_stats(cgroups, group, layers.remove(&view.id))?;
        let subject = Subject {
            container: config.metadata.name.clone(),
            id: group.to_string(),
            image: written_reference(config).to_owned(),
            name: view.id.to_string(),
            ..of_pod()
        };
        let limits = cgroups.read_back(group).unwrap_or_default();
        let processes = process_usage(&cgroups.pids(group).unwrap_or_default(), view.record.pid());
        let started_at = view.record.started_at();
        Some((view.id.clone(), container_samples(subject, started_at, (&stats, &limits), &processes, fs)))
    };
    let containers = target.containers.iter().filter_map(of_container).collect();
    let samples = pod_samples(subject, record.created_at, read, &network.unwrap_or_default());
    PodSamples { pod: target.view.id.clone(), samples, containers }
}
