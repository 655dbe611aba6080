//! The engine's parts and where things lie. Wiring (the `berth` binary) makes the parts; use cases take them from here.
use crate::apparmor::AppArmorProfiles;
use crate::container::layers::Layers;
use crate::events::Events;
use crate::inflight::Inflight;
use crate::metrics::{Metrics, Now};
use crate::pod::Pod;
use crate::pod::rates::Rates;
use crate::prefetch::Prefetch;
use crate::record::PodRecord;
use crate::session::Sessions;
use crate::starts::Starts;
use crate::table::{ContainerFilter, ContainerView, PodFilter, PodView, Table};
use crate::troubles::Troubles;
use crate::verdict::PolicyCache;
use berth_cgroups::{Apart, Cgroups};
use berth_images::Images;
use berth_model::{ContainerConfig, ContainerId, ContainerMetadata, Error, PodConfig, PodId, PodKey, Result};
use berth_network::Networks;
use berth_oci::monitor::Launcher;
use berth_oci::pod_dir::PodDir;
use berth_oci::spec::NodeFacts;
use berth_settings::{Settings, Standing};
use berth_store::Records;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tokio::sync::watch;

/// Where the daemon keeps things.
#[derive(Debug, Clone)]
pub struct Paths {
    /// `/var/lib/berth` or `ROOT/lib`.
    pub lib: PathBuf,
    /// `/run/berth` or `ROOT/run`.
    pub run: PathBuf,
    /// Cgroup parent of pods that name none, and (with `-monitors`) of monitors: `berth-<hash of the root>`.
    pub cgroup_parent: String,
}

impl Paths {
    /// Parent of the pods' tmpfs directories.
    pub fn pod_base(&self) -> PathBuf {
        self.run.join("pods")
    }

    pub(crate) fn pod_dir(&self, id: &PodId) -> PodDir {
        PodDir::new(&self.pod_base(), id)
    }

    /// Parent of the pods' records.
    pub fn records(&self) -> PathBuf {
        self.lib.join("pods")
    }

    /// Parent of the cgroups of the runtime's own processes, outside of the pods'.
    pub fn runtime_group(&self) -> String {
        format!("{}-runtime", self.cgroup_parent.trim_end_matches(".slice"))
    }
}

/// What the engine is made of.
pub struct Parts {
    /// Where things lie.
    pub paths: Paths,
    /// Images.
    pub images: Images,
    /// Control groups.
    pub cgroups: Cgroups,
    /// The network of pods.
    pub network: Networks,
    /// Monitor and init programs.
    pub launcher: Launcher,
    /// What this node can do.
    pub facts: NodeFacts,
    /// Settings, as they change.
    pub standing: Standing,
    /// Figures.
    pub metrics: Metrics,
}

/// The engine. All use cases hang on `Arc<Engine>`.
pub struct Engine {
    pub(crate) paths: Paths,
    pub(crate) images: Images,
    pub(crate) cgroups: Cgroups,
    pub(crate) network: Networks,
    pub(crate) launcher: Launcher,
    pub(crate) facts: NodeFacts,
    pub(crate) apparmor: AppArmorProfiles,
    pub(crate) apart: OnceLock<Apart>,
    /// Held while a pod chooses its SELinux level.
    pub(crate) levels: Mutex<()>,
    pub(crate) settings: watch::Receiver<Arc<Settings>>,
    pub(crate) standing: Standing,
    pub(crate) metrics: Metrics,
    pub(crate) table: Table,
    pub(crate) records: Arc<Records<PodRecord>>,
    /// Pods whose record cannot be read, with the reason: UNKNOWN, and left alone.
    pub(crate) unknown: Mutex<BTreeMap<String, String>>,
    pub(crate) boot_id: String,
    pub(crate) policy: PolicyCache,
    pub(crate) layers: Layers,
    pub(crate) sessions: Sessions,
    pub(crate) events: Arc<Events>,
    pub(crate) rates: Rates,
    pub(crate) starts: Starts,
    pub(crate) troubles: Troubles,
    pub(crate) prefetch: Prefetch,
    pub(crate) runs: Inflight<PodKey, PodConfig, PodId>,
    pub(crate) creates: Inflight<(PodId, ContainerMetadata), ContainerConfig, ContainerId>,
}

/// The runtime's version. That of a build which stands for the next one is a newer one of the same minor version.
pub const VERSION: &str = if cfg!(feature = "next-version") {
    concat!(env!("CARGO_PKG_VERSION_MAJOR"), ".", env!("CARGO_PKG_VERSION_MINOR"), ".99")
} else {
    env!("CARGO_PKG_VERSION")
};
/// Version of the pod record's format.
const RECORD_VERSION: u32 = if cfg!(feature = "next-version") { 2 } else { 1 };

impl Engine {
    /// Opens the records and makes an engine that knows no pods yet; [`Engine::recover`] brings them in.
    pub fn new(parts: Parts) -> Result<Arc<Self>> {
        let records = Records::open(parts.paths.records(), "pod", RECORD_VERSION)?.with_spares();
        berth_oci::pod_dir::prepare_base(&parts.paths.pod_base())?;
        Ok(Arc::new(Self {
            paths: parts.paths,
            images: parts.images,
            cgroups: parts.cgroups,
            network: parts.network,
            launcher: parts.launcher,
            facts: parts.facts,
            apparmor: AppArmorProfiles::default(),
            apart: OnceLock::new(),
            levels: Mutex::default(),
            settings: parts.standing.live().current.clone(),
            standing: parts.standing,
            metrics: parts.metrics,
            table: Table::default(),
            records: Arc::new(records),
            unknown: Mutex::default(),
            boot_id: crate::clock::boot_id()?,
            policy: PolicyCache::default(),
            layers: Layers::default(),
            sessions: Sessions::default(),
            events: Arc::default(),
            rates: Rates::default(),
            starts: Starts::default(),
            troubles: Troubles::default(),
            prefetch: Prefetch::default(),
            runs: Inflight::default(),
            creates: Inflight::default(),
        }))
    }

    /// Settings in force.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.borrow().clone()
    }

    /// What of the settings is in force, waits, or could not be applied.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// The time that events are stamped with, in Unix nanoseconds.
    pub fn now(&self) -> berth_model::UnixNanos {
        crate::clock::now()
    }

    /// Where images and records lie.
    pub fn state_dir(&self) -> &std::path::Path {
        &self.paths.lib
    }

    /// Figures, for the edges to add theirs.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Sets the gauges; called before each scrape.
    pub fn count_states(&self) {
        let _one = self.metrics.counting();
        self.metrics.count(&self.table);
        let (subscribers, subscribers_lost) = self.events.subscribers();
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let cni = self.cni_report().unwrap_or_default();
        self.metrics.node().set(&Now {
            pools: self.address_pools(),
            cni: (count(cni.pending.len()), count(cni.broken.len())),
            monitors: self.monitors(),
            subscribers,
            subscribers_lost,
            tokens: self.sessions.waiting(),
            documents: count(self.settings().documents.len()),
            prefetch: self.prefetch_counts(),
        });
    }

    /// Monitors that should live, by version of their protocol; 0 do not answer.
    pub fn monitors(&self) -> BTreeMap<u16, u64> {
        let mut monitors = BTreeMap::new();
        for pod in self.table.all().iter().filter(|pod| pod.record().monitor.is_some()) {
            *monitors.entry(pod.monitor().map_or(0, |monitor| monitor.version())).or_default() += 1;
        }
        monitors
    }

    /// Where things lie.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Addresses of the built-in network: family, how many pods can have, how many have.
    pub fn address_pools(&self) -> Vec<(&'static str, u64, u64)> {
        self.network.builtin.as_ref().map(berth_network::Bridge::addresses).unwrap_or_default()
    }

    /// Fields of documents that were changed and wait for the daemon's next start.
    pub fn pending_settings(&self) -> Vec<String> {
        self.standing.pending().into_iter().map(|change| change.field).collect()
    }

    /// Pods that match.
    pub fn pods(&self, filter: &PodFilter) -> Vec<PodView> {
        self.table.pods(filter)
    }

    /// The pod by id or unique prefix. Errors: `NotFound`, `InvalidArgument`.
    pub fn pod(&self, id: &str) -> Result<PodView> {
        let pod = self.table.pod(id)?;
        Ok(PodView { id: pod.id.clone(), record: pod.record() })
    }

    /// Containers that match.
    pub fn containers(&self, filter: &ContainerFilter) -> Vec<ContainerView> {
        self.table.containers(filter)
    }

    /// The container by id or unique prefix. Errors: `NotFound`, `InvalidArgument`.
    pub fn container(&self, id: &str) -> Result<ContainerView> {
        let (pod, id) = self.table.container(id)?;
        let pod_record = pod.record();
        let record = pod_record.containers.get(&id).cloned().ok_or_else(|| Error::not_found("container", &id))?;
        Ok(ContainerView { id, pod: pod.id.clone(), pod_record, record })
    }

    /// Whether there is no pod, not even one that this build cannot read.
    pub fn is_idle(&self) -> bool {
        self.table.all().is_empty() && self.unknown_pods().is_empty()
    }

    /// Pods that are there and whose record this build cannot read, by id, with the reason. Nothing of them is touched.
    pub fn unknown_pods(&self) -> BTreeMap<String, String> {
        self.unknown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn enter(&self, id: PodId, record: PodRecord) -> Arc<Pod> {
        let pod = Pod::new(id, record, self.records.clone(), self.events.clone());
        self.table.insert(pod.clone());
        pod
    }
}

/// Runs blocking work (files, cgroups, mounts) off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::internal(format!("blocking work: {e}")))?
}
