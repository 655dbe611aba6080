//! Nodes with agents: the agent's own code on the API server, of which only the node behind it is replaced. Such a node is taken over in no
//! time, obeys, and cannot apply [`IMPOSSIBLE`]. Notes what it sees on the way.
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
use berth_crds::{Disruption, KubeletConfig};
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
const VERSION: &str = env!("CARGO_PKG_VERSION");

#[derive(Debug, Default)]
pub struct Seen {
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
    policies: Option<String>,
    kubelet: KubeletConfig,
}

impl NodeSide for Node<'_> {
    async fn look(&self) -> Facts {
        let has = self.has.lock().unwrap();
        let phase = if has.taken { AdoptPhase::Adopted } else { AdoptPhase::NotAdopted };
        let daemon = Daemon {
            version: VERSION.to_owned(),
            pid: 1,
            configuration: has.configuration.clone(),
            policies: has.policies.clone(),
            ..Daemon::default()
        };
        Facts {
            boot_id: "simulated".to_owned(),
            adoption: Adoption { phase, kubelet: Some(has.kubelet.clone()), ..Adoption::default() },
            daemon: Some(daemon),
            kubelet: true,
            ..Facts::default()
        }
    }

    async fn check(
        &self,
        _revision: &str,
        _wanted: &Wanted,
        foreign: bool,
        _policies: Option<Policies<'_>>,
    ) -> Result<Disruption, Trouble> {
        Ok(if foreign { Disruption::Drain } else { Disruption::Live })
    }

    async fn apply(&self, revision: &str, json: &str) -> Result<(), Trouble> {
        let content: Value = serde_json::from_str(json).unwrap();
        if content["policies"].is_array() {
            self.has.lock().unwrap().policies = Some(revision.to_owned());
            return Ok(());
        }
        while self.reporters.waits(revision) {
            tokio::time::sleep(PAUSE).await;
        }
        let mut seen = self.reporters.seen.lock().unwrap();
        *seen.tried.entry(revision.to_owned()).or_default().entry(self.name.clone()).or_default() += 1;
        let impossible = content["runtime"]["config"]["runtime"]["pidsLimit"] == IMPOSSIBLE;
        if impossible && !self.reporters.mended.load(Ordering::Relaxed) {
            return Err(Trouble::Refused("pids.max: out of range".to_owned()));
        }
        self.has.lock().unwrap().configuration = Some(revision.to_owned());
        Ok(())
    }

    async fn hand_over(&self, _credentials: Vec<Credential>) -> Result<(), Trouble> {
        Err(Trouble::Refused("no configuration here names any".to_owned()))
    }

    async fn restart(&self, version: &str) -> Result<(), Trouble> {
        Err(Trouble::Refused(format!("{version} is not staged here")))
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

    async fn configure_kubelet(&self, wanted: &Wanted, _permit: Option<Permit<'_>>) -> Result<(), Trouble> {
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

    async fn recover(&self) -> Result<(), Trouble> {
        Err(Trouble::Refused("nothing is ever left here".to_owned()))
    }
}

/// Now, as RFC 3339 in UTC.
pub fn timestamp() -> String {
    berth_agent::time::text(berth_agent::time::now())
}
