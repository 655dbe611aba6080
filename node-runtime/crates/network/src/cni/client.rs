//! Attaching and detaching pods, durable at each step.
//! Must not: decide when something is tried again (`background`), or which network it is (`follow`).
use super::call::Target;
use super::chain::Chain;
use super::follow::State;
use super::ledger::Ledger;
use super::load::Network;
use super::netns::{Held, is_pinned};
use super::places::Places;
use super::record::{Attachment as Record, Stage, Store};
use super::request::{self, INTERFACE};
use super::secrets::Secrets;
use super::version::CHECK_FROM;
use super::{CniConfig, CniReport, PendingDelete, Tell, background, beside, follow, strays, template, written};
use crate::{Attachment, loopback_up};
use berth_model::{Error, ErrorKind, PodConfig, PodId, Result, ResultExt};
use berth_store::Sync;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, RwLock, watch};
use tokio::time::{Instant, timeout};

/// How long the first try of a DEL may take: somebody waits for it. The kubelet gives StopPodSandbox two minutes.
const FIRST_DELETE: Duration = Duration::from_secs(60);

/// The CNI client. Cheap to clone.
#[derive(Clone)]
pub struct Cni {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) config: watch::Sender<CniConfig>,
    pub(super) state: watch::Sender<Arc<State>>,
    /// What the state is of.
    pub(super) looked: watch::Sender<Option<CniConfig>>,
    pub(super) store: Store,
    pub(super) ledger: Ledger,
    /// Ids of the attachments whose records cannot be read: they exist, and collections spare them.
    pub(super) unreadable: Vec<String>,
    /// ADD, DEL and CHECK share it, GC has it alone (specification 1.1, section 4: GC).
    pub(super) gate: RwLock<()>,
    /// ADDs under way.
    places: Places,
    /// Whether pods get their network by it: else no configuration is written.
    pub(super) chosen: AtomicBool,
    /// One writes the configuration of a document at a time.
    writing: Mutex<()>,
    /// Wakes the task that deletes.
    pub(super) wake: Notify,
    /// Kept for plugins that declare `ipRanges`.
    pod_cidrs: Mutex<Vec<IpNet>>,
    pub(super) tell: Tell,
}

impl std::fmt::Debug for Cni {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cni").field("config", &*self.inner.config.borrow()).finish_non_exhaustive()
    }
}

impl Cni {
    /// Reads the attachments in `directory`, and ends what plugins of a former daemon still do to those that were under way. No
    /// network is looked for before [`Self::follow`], and nothing is deleted before [`Self::recover`].
    /// Errors: the directory cannot be read.
    pub async fn open(directory: PathBuf, config: CniConfig, tell: Tell) -> Result<Self> {
        let (store, ledger, unreadable) = blocking(move || open(directory)).await?;
        let pod_cidrs = Mutex::new(store.read_cidrs());
        let places = Places::new(config.parallel_adds);
        let inner = Inner {
            config: watch::Sender::new(config),
            state: watch::Sender::new(Arc::default()),
            looked: watch::Sender::new(None),
            store,
            ledger,
            unreadable,
            gate: RwLock::default(),
            places,
            chosen: AtomicBool::new(false),
            writing: Mutex::default(),
            wake: Notify::new(),
            pod_cidrs,
            tell,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Looks for the network, watches its directory, and asks its plugins for STATUS from now on. Returns when the first answer
    /// is there, or after three seconds.
    pub async fn follow(&self) {
        self.inner.chosen.store(true, Ordering::Relaxed);
        follow::start(self.inner.clone()).await;
    }

    /// Uses other directories, another deadline, or what else is new from now on. Returns when what pods can have follows from it, or after a
    /// few seconds: who asked for the change is not to be told that the former network is ready.
    pub async fn set_config(&self, config: CniConfig) {
        let wanted = Some(config.clone());
        self.inner.places.set(config.parallel_adds);
        self.inner.config.send_if_modified(|current| {
            let changed = *current != config;
            *current = config;
            changed
        });
        self.inner.hurry();
        if self.inner.chosen.load(Ordering::Relaxed) {
            let mut looked = self.inner.looked.subscribe();
            let _ = timeout(follow::FIRST_LIMIT, looked.wait_for(|looked| *looked == wanted)).await;
        }
    }

    /// The node's pod CIDRs, one of each family: for plugins that declare the capability `ipRanges`. They are kept: the kubelet
    /// tells them once, and this daemon may not be the one that it told. Where the disk is full, they count for this one only.
    pub async fn set_pod_cidrs(&self, cidrs: Vec<IpNet>) {
        self.inner.pod_cidrs.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&cidrs);
        let inner = self.inner.clone();
        if let Err(e) = blocking(move || inner.store.write_cidrs(&cidrs)).await {
            tracing::error!(error = %e, "the pod CIDRs cannot be kept; the next daemon has the former ones");
        }
        if let Err(e) = self.write_configuration().await {
            tracing::error!(error = %e, "the CNI configuration of a document is not written");
        }
    }

    /// Writes the configuration that a document has, or removes the one that it had; also done at each look at the directory. Where
    /// pods get no network by CNI, there is none. Errors: those of the template with this node's pod CIDRs, of a file that is somebody
    /// else's, and of the disk.
    pub async fn write_configuration(&self) -> Result<()> {
        let inner = self.inner.clone();
        blocking(move || inner.write_configuration()).await.map(drop)
    }

    /// Gives a pod its network: loopback, then ADD of every plugin. After an error, [`Self::detach`] undoes what was done.
    /// Errors: `Unavailable` when there is no network; `InvalidArgument` naming a field or annotation of the pod; what a plugin
    /// says, with network, plugin and operation.
    pub async fn attach(&self, pod: &PodId, netns: &Path, config: &PodConfig) -> Result<Attachment> {
        let inner = &self.inner;
        let network = inner.network()?;
        let cidrs = inner.pod_cidrs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let target = request::target(pod, netns, config, &network.config, &cidrs)?;
        loopback_up(netns).await?;
        if !config.ports.is_empty() && !network.config.wants("portMappings") {
            tracing::info!(%pod, network = network.config.name, "no plugin declares portMappings: host ports are left to the network add-on");
        }
        let patience = inner.config.borrow().timeout;
        let Some(_place) = inner.places.enter(patience).await else {
            let problem = format!(
                "network of pod {}: {} other ADDs were under way for {} s (spec.network.cni.maxParallelAdds, timeout)",
                pod.short(),
                inner.places.limit(),
                patience.as_secs()
            );
            return Err(Error::new(ErrorKind::Unavailable, problem));
        };
        let _shared = inner.gate.read().await;
        let lock = inner.ledger.enter(pod, &network.config.name, &target.interface, Stage::Adding);
        let _one = lock.lock().await;
        inner.add(pod, &network, target).await.context(|| format!("network of pod {}", pod.short()))
    }

    /// Takes a pod's network back. Idempotent. A DEL that fails is tried again in the background, with the namespace kept for
    /// it: the caller goes on. Errors: none that trying again would mend.
    pub async fn detach(&self, pod: &PodId) -> Result<()> {
        let inner = &self.inner;
        let lock = inner.ledger.with(pod, |entry| entry.pending.is_none().then(|| entry.lock.clone())).flatten();
        let Some(lock) = lock else { return Ok(()) };
        let _shared = inner.gate.read().await;
        let _one = lock.lock().await;
        let limit = inner.config.borrow().timeout.min(FIRST_DELETE);
        let netns = inner.mark(pod).await;
        let Err(e) = inner.delete(pod, Instant::now() + limit).await else { return Ok(()) };
        inner.ledger.postpone(pod, netns);
        inner.delete_failed(pod, &e);
        Ok(())
    }

    /// As [`Self::detach`], with nothing waited for: at the daemon's start, where plugins may need what only starts later.
    pub async fn detach_later(&self, pod: &PodId) {
        self.inner.keep_for_later(pod).await;
    }

    /// Deletes the attachments of all pods but the `live` ones, checks those of the live ones, and collects, all in the
    /// background, and from then on. Returns the pods whose attachments nobody owned.
    pub async fn recover(&self, live: &[PodId]) -> Vec<PodId> {
        let inner = &self.inner;
        let strays =
            inner.ledger.collect(|pod, entry| (entry.pending.is_none() && !live.contains(pod)).then(|| pod.clone()));
        for pod in &strays {
            inner.keep_for_later(pod).await;
        }
        background::start(inner);
        strays
    }

    /// Whether pods can get a network; else a sentence for the condition NetworkReady.
    pub fn ready(&self) -> Result<(), String> {
        self.inner.state.borrow().problem.clone().map_or(Ok(()), Err)
    }

    /// Whether there is a network to attach pods to. Errors: `Unavailable`, saying why there is none.
    pub fn check_usable(&self) -> Result<()> {
        self.inner.network().map(drop)
    }

    /// The state, for people.
    pub fn report(&self) -> CniReport {
        let state = self.inner.state.borrow().clone();
        let ledger = &self.inner.ledger;
        CniReport {
            network: state.network.as_ref().map(|n| n.config.name.clone()),
            file: state.network.as_ref().map(|n| n.file.clone()),
            problem: state.problem.clone(),
            refused: state.refused.clone(),
            unused: state.unused.clone(),
            pending: ledger.collect(|pod, entry| {
                let pending = entry.pending.as_ref()?;
                let (failures, problem) = (pending.failures, pending.problem.clone());
                Some(PendingDelete { pod: pod.clone(), failures, problem })
            }),
            broken: ledger.collect(|pod, entry| Some((pod.clone(), entry.check.clone()?))),
        }
    }
}

/// Loads the records, and the ids of those that cannot be read. Those that were being added or deleted are to be deleted.
fn open(directory: PathBuf) -> Result<(Store, Ledger, Vec<String>)> {
    let store = Store::open(directory)?;
    let (records, unreadable) = store.load()?;
    for torn in &unreadable {
        tracing::error!(pod = torn.id, problem = torn.problem, "CNI attachment cannot be read; it is left alone");
    }
    let cut_short = records.iter().filter(|(_, r)| r.stage != Stage::Attached);
    let containers: Vec<String> = cut_short.map(|(_, r)| r.target.container.clone()).collect();
    let killed = strays::kill_all(&strays::Of::Containers(containers));
    if killed > 0 {
        tracing::warn!(killed, "CNI plugins that a former daemon started are killed");
    }
    let ledger = Ledger::default();
    for (pod, record) in records {
        let name = record.config.get("name").and_then(|n| n.as_str()).unwrap_or_default();
        ledger.enter(&pod, name, &record.target.interface, record.stage);
        if record.stage != Stage::Attached {
            ledger.postpone(&pod, Held::at(&record.target.netns));
        }
    }
    Ok((store, ledger, unreadable.into_iter().map(|torn| torn.id).collect()))
}

impl Inner {
    /// Blocks. Returns what the configuration of a document waits for, if it does.
    pub(super) fn write_configuration(&self) -> Result<Option<String>> {
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let (directory, template) = {
            let config = self.config.borrow();
            (config.conf_dir.clone(), config.conf_list.clone().filter(|_| self.chosen.load(Ordering::Relaxed)))
        };
        let Some(template) = template else {
            return written::keep(&self.store.written(), &directory, None).map(|()| None);
        };
        let cidrs = self.pod_cidrs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match template::render(&template, &cidrs)? {
            Some(text) => self.keep_configuration(&directory, &text).map(|()| None),
            // What stands there is of other pod CIDRs, and better than nothing.
            None => Ok(Some(format!("{} waits for the pod CIDR that the kubelet tells", template::FIELD))),
        }
    }

    /// While another runtime has the node, it is kept where that does not look. Whoever takes the node over may end that at any moment.
    fn keep_configuration(&self, directory: &Path, text: &str) -> Result<()> {
        let record = self.store.written();
        if let Some(beside) = beside::directory(&record) {
            written::check_free(directory)?;
            match written::keep(&record, &beside, Some(text)) {
                Err(_) if beside::directory(&record).is_none() => {}
                kept => return kept,
            }
        }
        written::keep(&record, directory, Some(text))
    }

    /// The network that pods get now.
    fn network(&self) -> Result<Arc<Network>> {
        let state = self.state.borrow();
        let problem = || state.problem.clone().unwrap_or_else(|| "the CNI configuration is not read yet".to_owned());
        state
            .network
            .clone()
            .ok_or_else(|| Error::new(ErrorKind::Unavailable, format!("pod network is not ready: {}", problem())))
    }

    async fn add(self: &Arc<Self>, pod: &PodId, network: &Network, target: Target) -> Result<Attachment> {
        let (bin_dirs, limit) = {
            let config = self.config.borrow();
            (config.bin_dirs.clone(), config.timeout)
        };
        let mut record = Record {
            stage: Stage::Adding,
            file: network.file.display().to_string(),
            config: network.config.to_value(),
            target,
            result: None,
        };
        self.write(pod, record.clone(), Sync::Now).await?;
        let chain = Chain { network: &network.config, secrets: &network.secrets, bin_dirs: &bin_dirs };
        let result = chain.add(&record.target, Instant::now() + limit).await?;
        let assigned = result.assigned(INTERFACE).context(|| format!("CNI network {}", network.config.name))?;
        record.stage = Stage::Attached;
        record.result = Some(result.raw);
        self.write(pod, record, Sync::Later).await?;
        self.ledger.with(pod, |entry| entry.stage = Stage::Attached);
        Ok(Attachment {
            interface: INTERFACE.to_owned(),
            host_interface: assigned.host_interface,
            mac: assigned.mac,
            addresses: assigned.addresses,
            gateway: assigned.gateway.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            second_gateway: None,
        })
    }

    /// DEL of everything that the record says, and then of the record.
    pub(super) async fn delete(self: &Arc<Self>, pod: &PodId, deadline: Instant) -> Result<()> {
        let record = match self.read(pod).await {
            Ok(record) => record,
            // Nothing was ever done, or a record that was deleted just now.
            Err(e) if e.kind() == ErrorKind::NotFound => {
                self.ledger.remove(pod);
                return Ok(());
            }
            Err(e) => return Err(e),
        };
        let network = record.network()?;
        let secrets = Secrets::of(&network);
        let bin_dirs = self.config.borrow().bin_dirs.clone();
        let chain = Chain { network: &network, secrets: &secrets, bin_dirs: &bin_dirs };
        let mut target = record.target;
        if !is_pinned(&target.netns) {
            let held = |entry: &mut super::ledger::Entry| entry.pending.as_ref()?.netns.as_ref().map(Held::path);
            target.netns = self.ledger.with(pod, held).flatten().unwrap_or_default();
        }
        // Before 0.4.0, DEL is not told the result.
        let previous = record.result.filter(|_| network.version >= CHECK_FROM);
        chain.del(&target, previous.as_ref(), deadline).await?;
        let (inner, id) = (self.clone(), pod.clone());
        blocking(move || inner.store.remove(&id)).await?;
        self.ledger.remove(pod);
        Ok(())
    }

    /// Leaves an attachment to the background.
    async fn keep_for_later(self: &Arc<Self>, pod: &PodId) {
        if self.ledger.with(pod, |entry| entry.pending.is_none()) == Some(true) {
            let netns = self.mark(pod).await;
            self.ledger.postpone(pod, netns);
            self.wake.notify_one();
        }
    }

    /// Records that an attachment is to be deleted, for a daemon that comes after this one; and keeps the namespace.
    async fn mark(self: &Arc<Self>, pod: &PodId) -> Option<Held> {
        let (inner, id) = (self.clone(), pod.clone());
        let mark = move || {
            let mut record = inner.store.read(&id)?;
            let netns = Held::at(&record.target.netns);
            record.stage = Stage::Deleting;
            if let Err(e) = inner.store.write(&id, &record, Sync::Later) {
                // The disk is full: a DEL needs no mark, but it does need the namespace.
                tracing::warn!(pod = %id, error = %e, "CNI attachment is not marked; it is deleted nevertheless");
            }
            Ok(netns)
        };
        blocking(mark).await.unwrap_or_else(|e| {
            // Nothing was recorded yet.
            tracing::debug!(%pod, error = %e, "CNI attachment is not marked");
            None
        })
    }

    /// Takes note of a DEL that failed, and tells it when that is news.
    pub(super) fn delete_failed(&self, pod: &PodId, e: &Error) {
        let failures = self.ledger.failed(pod, e.message());
        (self.tell)("cni_delete_failed");
        if failures.is_power_of_two() {
            tracing::warn!(%pod, failures, error = %e, "CNI DEL failed; it is tried again until it succeeds");
        }
        self.wake.notify_one();
    }

    /// Something changed that may help a DEL.
    pub(super) fn hurry(&self) {
        self.ledger.hurry();
        self.wake.notify_one();
    }

    pub(super) async fn read(self: &Arc<Self>, pod: &PodId) -> Result<Record> {
        let (inner, pod) = (self.clone(), pod.clone());
        blocking(move || inner.store.read(&pod)).await
    }

    async fn write(self: &Arc<Self>, pod: &PodId, record: Record, sync: Sync) -> Result<()> {
        let (inner, pod) = (self.clone(), pod.clone());
        blocking(move || inner.store.write(&pod, &record, sync)).await
    }
}

/// Runs work on a thread that may block.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::internal(format!("a task of the CNI client ended early: {e}")))?
}
