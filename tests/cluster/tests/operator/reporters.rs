//! Nodes with agents: the agent's own code on the API server, of which only the node behind it is replaced. Such a node is taken over in no
//! time, obeys, and cannot apply [`IMPOSSIBLE`]. Its daemon keeps what takes a restart until the next one, and may be of each version of
//! [`STAGED`]. Notes what it sees on the way.
use crate::api::{Api, PROXY};
use berth_agent::clock::Clock;
use berth_agent::credential::Credential;
use berth_agent::facts::{AdoptPhase, Adoption, Daemon, Facts};
use berth_agent::kubernetes::Kubernetes;
use berth_agent::node::{NodeSide, Permit, Policies, Trouble};
use berth_agent::observe::Metrics;
use berth_agent::plan::Wanted;
use berth_agent::run::Agent;
use berth_agent::store::Store;
use berth_crds::{Class, Disruption, KubeletConfig, RuntimeConfigSpec, RuntimeRevisionSpec};
use futures_util::future::join_all;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// A configuration with this limit of processes cannot be applied by any node, until somebody mends the nodes.
pub const IMPOSSIBLE: u64 = 66;
/// While nodes are held back, so many of them apply something all the same.
const FOREMOST: usize = 5;
/// How often something that is waited for is looked at.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a daemon takes to start: nodes that are at it together are seen to be.
const STARTS: Duration = Duration::from_millis(200);
/// What every node runs first.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// What a newer image of the agent would bring, and no node runs until it is told to.
pub const NEXT: &str = "99.0.0";
/// Versions that lie on every node.
const STAGED: [&str; 2] = [VERSION, NEXT];

/// What a node says of its way to a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// It was told, and begins.
    Begins(String),
    /// It has it, or does not take it.
    Ends(String),
}

#[derive(Debug, Default)]
pub struct Seen {
    /// Beginnings and ends of all nodes, in their order. An end is noted before the agent tells of it.
    pub work: Vec<Work>,
    /// The versions that each node's daemon was restarted as.
    pub restarts: BTreeMap<String, Vec<String>>,
    /// Nodes that were cordoned while their daemon was restarted, which moves no pod.
    pub needless_cordon: BTreeSet<String>,
    /// Most nodes that were cordoned at the same time.
    pub cordoned: usize,
    /// Nodes that ever tried each revision, and how often.
    pub tried: BTreeMap<String, BTreeMap<String, usize>>,
    /// Nodes that were taken over while pods could be scheduled to them: none, ever.
    pub without_cordon: BTreeSet<String>,
}

#[derive(Debug, Default)]
pub struct Reporters {
    pub stop: AtomicBool,
    /// The nodes are mended: they can do what is impossible.
    pub mended: AtomicBool,
    /// All nodes but the foremost ones take their time to apply a configuration, until this ends.
    pub held_back: AtomicBool,
    /// Nodes that hang when they are to be taken over.
    pub hang: Mutex<BTreeSet<String>>,
    pub seen: Mutex<Seen>,
    /// Ends the agent of a node.
    ends: Mutex<BTreeMap<String, watch::Sender<bool>>>,
}

impl Reporters {
    /// Runs an agent for each of these nodes until told to stop.
    pub fn run(&self, api: &Api, names: &[String]) {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Sockets are of the network that their thread is in.
                api.space().enter_network().unwrap();
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let clock = Clock::default();
                    let kubernetes = Kubernetes::plain(&format!("http://{PROXY}"), &clock).unwrap();
                    join_all(names.iter().map(|name| self.machines(api, name, &kubernetes, &clock))).await
                });
            });
            while !self.stop.load(Ordering::Relaxed) {
                // The API server may be slow; a look that fails is followed by the next one.
                if let Ok(nodes) = api.get("/api/v1/nodes") {
                    let nodes = nodes["items"].as_array().unwrap();
                    let cordoned = nodes.iter().filter(|n| n["spec"]["unschedulable"] == true).count();
                    let mut seen = self.seen.lock().unwrap();
                    seen.cordoned = seen.cordoned.max(cordoned);
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            for end in self.ends.lock().unwrap().values() {
                let _ = end.send(true);
            }
        });
    }

    /// The machine of that name goes, and another one of the same name comes, on which nothing of it is known.
    pub fn replace(&self, name: &str) {
        self.ends.lock().unwrap()[name].send(true).unwrap();
    }

    /// One after the other under one name, each with its agent.
    async fn machines(&self, api: &Api, name: &str, kubernetes: &Kubernetes, clock: &Clock) {
        for machine in 0.. {
            let (end, ended) = watch::channel(false);
            self.ends.lock().unwrap().insert(name.to_owned(), end);
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let metrics = Metrics::new(VERSION).unwrap();
            let store = Store::open(&api.space().base().join("agents").join(format!("{name}-{machine}"))).unwrap();
            let node = Node { api, reporters: self, name: name.to_owned(), has: Mutex::default() };
            let seen = kubernetes.watch(name, &metrics);
            Agent::new(node, kubernetes.clone(), store, clock.clone(), metrics).run(seen, ended).await;
        }
    }

    fn stands_still(&self, name: &str) -> bool {
        self.hang.lock().unwrap().contains(name) && !self.stop.load(Ordering::Relaxed)
    }

    /// Whether a node waits with a configuration.
    fn waits(&self, revision: &str) -> bool {
        let foremost = || self.seen.lock().unwrap().tried.get(revision).is_none_or(|tried| tried.len() < FOREMOST);
        self.held_back.load(Ordering::Relaxed) && !self.stop.load(Ordering::Relaxed) && !foremost()
    }
}

/// What is behind an agent.
struct Node<'a> {
    api: &'a Api,
    reporters: &'a Reporters,
    name: String,
    has: Mutex<Has>,
}

#[derive(Default)]
struct Has {
    taken: bool,
    configuration: Option<String>,
    /// What is in that.
    settings: Option<RuntimeConfigSpec>,
    /// Fields of it that wait for a restart.
    pending: Vec<String>,
    policies: Option<String>,
    kubelet: KubeletConfig,
    /// The daemon's version; `None`: [`VERSION`].
    version: Option<String>,
    /// How often it was restarted.
    restarts: u32,
    /// It is on its way to a configuration.
    works: bool,
}

impl Has {
    /// Fields that a daemon must be restarted for to have those settings.
    fn after_a_restart(&self, settings: &RuntimeConfigSpec) -> Vec<String> {
        let Some(has) = &self.settings else { return Vec::new() };
        let changes = berth_crds::changes(has, settings).into_iter();
        changes.filter(|change| change.class == Class::DaemonRestart).map(|change| change.path.to_owned()).collect()
    }
}

impl Node<'_> {
    fn begins(&self) {
        if !std::mem::replace(&mut self.has.lock().unwrap().works, true) {
            self.reporters.seen.lock().unwrap().work.push(Work::Begins(self.name.clone()));
        }
    }

    fn ends(&self) {
        if std::mem::take(&mut self.has.lock().unwrap().works) {
            self.reporters.seen.lock().unwrap().work.push(Work::Ends(self.name.clone()));
        }
    }
}

/// What its daemon does.
impl Node<'_> {
    fn tries(&self, revision: &str) {
        let mut seen = self.reporters.seen.lock().unwrap();
        *seen.tried.entry(revision.to_owned()).or_default().entry(self.name.clone()).or_default() += 1;
    }

    /// Whether it has all of them without a restart.
    fn takes(&self, revision: &str, settings: RuntimeConfigSpec) -> bool {
        let mut has = self.has.lock().unwrap();
        has.pending = has.after_a_restart(&settings);
        has.configuration = Some(revision.to_owned());
        has.settings = Some(settings);
        has.pending.is_empty()
    }

    fn notes_restart(&self, version: &str, cordoned: bool) {
        let mut seen = self.reporters.seen.lock().unwrap();
        seen.restarts.entry(self.name.clone()).or_default().push(version.to_owned());
        if cordoned {
            seen.needless_cordon.insert(self.name.clone());
        }
    }

    /// Whether something had waited for it.
    fn starts(&self, version: &str) -> bool {
        let mut has = self.has.lock().unwrap();
        has.restarts += 1;
        has.version = Some(version.to_owned());
        !std::mem::take(&mut has.pending).is_empty()
    }
}

/// What a revision has a daemon do.
fn settings(json: &str) -> RuntimeConfigSpec {
    serde_json::from_str::<RuntimeRevisionSpec>(json).unwrap().config().unwrap()
}

impl NodeSide for Node<'_> {
    async fn look(&self) -> Facts {
        let has = self.has.lock().unwrap();
        let phase = if has.taken { AdoptPhase::Adopted } else { AdoptPhase::NotAdopted };
        let daemon = Daemon {
            version: has.version.clone().unwrap_or_else(|| VERSION.to_owned()),
            pid: 1 + has.restarts,
            configuration: has.configuration.clone(),
            pending: has.pending.clone(),
            policies: has.policies.clone(),
            ..Daemon::default()
        };
        Facts {
            boot_id: "simulated".to_owned(),
            adoption: Adoption { phase, kubelet: Some(has.kubelet.clone()), ..Adoption::default() },
            daemon: Some(daemon),
            kubelet: Some(5),
            versions: STAGED.map(str::to_owned).to_vec(),
            ..Facts::default()
        }
    }

    async fn check(
        &self,
        _revision: &str,
        wanted: &Wanted,
        foreign: bool,
        _policies: Option<Policies<'_>>,
    ) -> Result<Disruption, Trouble> {
        self.begins();
        let lives = || self.has.lock().unwrap().after_a_restart(&settings(&wanted.json)).is_empty();
        Ok(if foreign {
            Disruption::Drain
        } else if lives() {
            Disruption::Live
        } else {
            Disruption::DaemonRestart
        })
    }

    async fn apply(&self, revision: &str, json: &str) -> Result<(), Trouble> {
        let content: Value = serde_json::from_str(json).unwrap();
        if content["policies"].is_array() {
            self.has.lock().unwrap().policies = Some(revision.to_owned());
            return Ok(());
        }
        self.begins();
        while self.reporters.waits(revision) {
            tokio::time::sleep(PAUSE).await;
        }
        self.tries(revision);
        let impossible = content["runtime"]["config"]["runtime"]["pidsLimit"] == IMPOSSIBLE;
        if impossible && !self.reporters.mended.load(Ordering::Relaxed) {
            self.ends();
            return Err(Trouble::Refused("pids.max: out of range".to_owned()));
        }
        if self.takes(revision, settings(json)) {
            self.ends();
        }
        Ok(())
    }

    async fn hand_over(&self, _credentials: Vec<Credential>) -> Result<(), Trouble> {
        Err(Trouble::Refused("no configuration here names any".to_owned()))
    }

    async fn restart(&self, version: &str) -> Result<(), Trouble> {
        if !STAGED.contains(&version) {
            return Err(Trouble::Refused(format!("{version} is not staged here")));
        }
        self.begins();
        let node = self.api.get(&format!("/api/v1/nodes/{}", self.name)).map_err(Trouble::Later)?;
        self.notes_restart(version, node["spec"]["unschedulable"] == true);
        tokio::time::sleep(STARTS).await;
        // One that comes before its configuration is half of the way.
        if self.starts(version) {
            self.ends();
        }
        Ok(())
    }

    async fn adopt(
        &self,
        _revision: &str,
        _wanted: &Wanted,
        _policies: Option<Policies<'_>>,
        _permit: Permit<'_>,
    ) -> Result<(), Trouble> {
        if self.reporters.stands_still(&self.name) {
            while self.reporters.stands_still(&self.name) {
                tokio::time::sleep(PAUSE).await;
            }
            return Err(Trouble::Later("it hung, and nothing was begun".to_owned()));
        }
        let node = self.api.get(&format!("/api/v1/nodes/{}", self.name)).map_err(Trouble::Later)?;
        if node["spec"]["unschedulable"] != true {
            self.reporters.seen.lock().unwrap().without_cordon.insert(self.name.clone());
        }
        self.has.lock().unwrap().taken = true;
        Ok(())
    }

    async fn configure_kubelet(
        &self,
        wanted: &Wanted,
        _restart: bool,
        _permit: Option<Permit<'_>>,
    ) -> Result<(), Trouble> {
        self.has.lock().unwrap().kubelet = wanted.kubelet.clone();
        Ok(())
    }

    async fn give_back(&self, _permit: Permit<'_>) -> Result<(), Trouble> {
        self.has.lock().unwrap().taken = false;
        Ok(())
    }

    async fn release(&self) -> Result<(), Trouble> {
        *self.has.lock().unwrap() = Has::default();
        Ok(())
    }

    async fn supervise(&self) -> Result<(), Trouble> {
        Err(Trouble::Refused("no supervisor is ever killed here".to_owned()))
    }

    async fn recover(&self) -> Result<(), Trouble> {
        Err(Trouble::Refused("nothing is ever left here".to_owned()))
    }
}

/// Now, as RFC 3339 in UTC.
pub fn timestamp() -> String {
    berth_agent::time::text(berth_agent::time::now())
}
