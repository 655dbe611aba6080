//! The node that the agent runs on: the daemon by node.sock, and `berth` of the host, started in the namespaces of the kubelet.
//!
//! Never in those of process 1: a node may be a namespace of its machine, and it is the kubelet that says where its node is.
//! Owns: which program is called with which words. Must not: decide when.
pub mod adopt;
pub mod enter;
mod enter_call;
mod kubelet;
mod release;
mod restart;

pub use kubelet::Kubelet;

use crate::credential::Credential;
use crate::facts::{AdoptPhase, Daemon, Facts};
use crate::node::{NodeSide, Permit, Policies, Trouble};
use crate::node_sock::NodeSock;
use crate::plan::Wanted;
use crate::stage::{Problem, Stager};
use berth_crds::{Capabilities, Disruption};
use berth_proto::node::InfoResponse;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The node.
#[derive(Debug, Clone)]
pub struct Host {
    /// The daemon's socket.
    pub sock: NodeSock,
    /// Directory of the programs' versions on the host, and of `current`.
    pub prefix: PathBuf,
    /// Directory of what the daemon keeps, as the agent sees it.
    pub state: PathBuf,
    /// Root directory of the daemon on the host; `None` is the system's own.
    pub root: Option<PathBuf>,
    /// The version whose `berth` takes the node over: the agent's own.
    pub version: String,
    /// Which process the kubelet is.
    pub kubelet: Kubelet,
    /// Commands that stop and start a kubelet that no service manager runs.
    pub commands: Option<adopt::Commands>,
    /// The programs that the image carries; `None`: somebody else puts them there.
    pub stager: Option<Arc<Stager>>,
    /// Whether the kubelet's feature gate PodAndContainerStatsFromCRI is left as it is.
    pub keep_stats: bool,
    /// Whether the kubelet is on Berth by itself, as it was found out last.
    pub native: adopt::Native,
}

impl Host {
    /// `berth` of that version on the host, with the words that say which daemon is meant.
    fn berth(&self, version: &str) -> (PathBuf, Vec<String>) {
        let root = self.root.iter().flat_map(|root| ["--root".to_owned(), root.display().to_string()]).collect();
        (self.prefix.join(version).join("berth"), root)
    }

    /// Whose `berth` is asked how things are: the one that the node runs, where the agent's own could not be staged.
    fn asked(&self, staging: Option<&Problem>) -> String {
        if staging.is_some() { "current".to_owned() } else { self.version.clone() }
    }
}

impl NodeSide for Host {
    async fn look(&self) -> Facts {
        let kubelet = self.kubelet.find();
        let found = self.sock.look().await;
        let applied = match &found {
            Some((daemon, _)) => daemon.configuration.is_some() || daemon.policies.is_some(),
            None => release::is_needed(&self.state),
        };
        let staging = match &self.stager {
            Some(stager) => stager.ensure().await,
            None => None,
        };
        let mut adoption = adopt::look(self, &self.asked(staging.as_ref())).await;
        if let (Some(problem), AdoptPhase::Unknown) = (&staging, adoption.phase) {
            adoption.message = Some(problem.to_string());
        }
        let (daemon, info) = found.unzip();
        let started = |pid: Option<u32>| pid.and_then(kubelet::started);
        let (kubelet, former) = (kubelet.ok(), daemon.as_ref().map(|d: &Daemon| d.pid));
        Facts {
            boot_id: text("/proc/sys/kernel/random/boot_id"),
            adoption,
            daemon,
            kubelet,
            kubelet_is_older: matches!((started(kubelet), started(former)), (Some(own), Some(its)) if own < its),
            unsupervised: restart::is_unsupervised(&self.sock.path),
            applied,
            capabilities: capabilities(info.as_ref()),
            versions: restart::staged(self),
            staging: staging.map(|problem| (problem.reason(), problem.to_string())),
        }
    }

    async fn check(
        &self,
        revision: &str,
        wanted: &Wanted,
        foreign: bool,
        policies: Option<Policies<'_>>,
    ) -> Result<Disruption, Trouble> {
        if foreign {
            return adopt::check(self, revision, wanted, policies).await;
        }
        let disruption = self.sock.preflight(revision, &wanted.json).await?;
        // What takes all pods of a node that stays ours is another cgroup driver, which a kubelet asks for when it starts.
        adopt::check_kubelet(self, wanted, disruption == Disruption::Drain).await?;
        Ok(disruption)
    }

    async fn apply(&self, revision: &str, json: &str) -> Result<(), Trouble> {
        self.sock.apply(revision, json).await
    }

    async fn hand_over(&self, credentials: Vec<Credential>) -> Result<(), Trouble> {
        self.sock.hand_over(credentials).await
    }

    async fn restart(&self, version: &str) -> Result<(), Trouble> {
        restart::restart(self, version).await
    }

    async fn adopt(
        &self,
        revision: &str,
        wanted: &Wanted,
        policies: Option<Policies<'_>>,
        permit: Permit<'_>,
    ) -> Result<(), Trouble> {
        adopt::start(self, revision, wanted, policies, permit).await
    }

    async fn give_back(&self, permit: Permit<'_>) -> Result<(), Trouble> {
        adopt::give_back(self, permit).await
    }

    async fn configure_kubelet(
        &self,
        wanted: &Wanted,
        restart: bool,
        permit: Option<Permit<'_>>,
    ) -> Result<(), Trouble> {
        adopt::configure_kubelet(self, wanted, restart, permit).await
    }

    async fn release(&self) -> Result<(), Trouble> {
        match self.sock.look().await {
            Some(_) => self.sock.release().await,
            None => release::remove(&self.state),
        }
    }

    async fn supervise(&self) -> Result<(), Trouble> {
        restart::supervise(self).await
    }

    async fn recover(&self) -> Result<(), Trouble> {
        adopt::recover(self).await
    }
}

fn text(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// Of the kernel; what only the daemon knows is missing while it does not answer.
fn capabilities(info: Option<&InfoResponse>) -> Capabilities {
    let modules = text("/sys/kernel/security/lsm");
    let user_namespaces = text("/proc/sys/user/max_user_namespaces").parse::<u64>().is_ok_and(|most| most > 0);
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    Capabilities {
        kernel: text("/proc/sys/kernel/osrelease"),
        architecture: architecture.to_owned(),
        cgroups: info.map(|info| info.cgroup_layout.clone()).unwrap_or_default(),
        // What the journal says of the kubelet (`report`).
        cgroup_driver: String::new(),
        security_modules: modules.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
        user_namespaces,
        handlers: info.map(|info| info.handlers.clone()).unwrap_or_default(),
    }
}
