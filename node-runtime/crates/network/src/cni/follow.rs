//! Follows the directory of configurations and the state of the network's plugins, and publishes what pods can have.
//!
//! The directory is watched (inotify), and looked at again every few seconds: a directory that is made later, replaced or
//! mounted over is noticed too. A network is published when its plugins were asked, so that readiness does not flicker.
//! Must not: attach anything.
use super::chain::Chain;
use super::client::{Inner, blocking};
use super::load::{Found, Network, load};
use super::version::STATUS_FROM;
use super::{CniConfig, beside};
use berth_model::Result;
use futures_util::StreamExt;
use inotify::{Inotify, WatchMask};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

/// Pause between two looks while all is well, and while it is not.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
const LOOK_SOON: Duration = Duration::from_secs(1);
/// Writers often touch several files; what comes within this time is read together.
const SETTLE: Duration = Duration::from_millis(100);
/// How long STATUS, or VERSION of one plugin, may take.
const ASK_LIMIT: Duration = Duration::from_secs(10);
/// Pause between two STATUS of a network that is ready, also after a strike.
const STATUS_EVERY: Duration = Duration::from_secs(10);
/// A network that was ready is not ready any more when STATUS fails as often as this: an agent that restarts takes no node
/// away.
const STRIKES: u32 = 2;
/// How long the daemon's start, or a change of its settings, waits for the first answer.
pub(super) const FIRST_LIMIT: Duration = Duration::from_secs(3);

/// What pods can have.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct State {
    pub(super) network: Option<Arc<Network>>,
    pub(super) problem: Option<String>,
    pub(super) refused: Vec<String>,
    pub(super) unused: Vec<String>,
}

/// Starts the task, and waits for its first answer.
pub(super) async fn start(inner: Arc<Inner>) {
    let (tell, told) = oneshot::channel();
    let follower = Follower { inner, versions: HashMap::new(), asked: None, strikes: 0, former: None };
    tokio::spawn(follower.run(tell));
    let _ = timeout(FIRST_LIMIT, told).await;
}

/// A program as it was asked for its versions: where, since when, how long, and for which version.
type Asked = (PathBuf, Option<SystemTime>, u64, String);

struct Follower {
    inner: Arc<Inner>,
    versions: HashMap<Asked, Option<String>>,
    /// When STATUS was asked for last.
    asked: Option<Instant>,
    strikes: u32,
    /// What the last round looked at.
    former: Option<(CniConfig, Found)>,
}

impl Follower {
    async fn run(mut self, first: oneshot::Sender<()>) {
        let mut first = Some(first);
        let mut config = self.inner.config.subscribe();
        loop {
            let now = config.borrow_and_update().clone();
            // Listening starts before the look, so that nothing falls in between.
            let mut events = listen(&now.conf_dir);
            let settled = self.round(now).await;
            if let Some(first) = first.take() {
                let _ = first.send(());
            }
            let pause = if settled { LOOK_AGAIN } else { LOOK_SOON };
            let event = async {
                match &mut events {
                    Some(stream) => drop(stream.next().await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = event => sleep(SETTLE).await,
                changed = config.changed() => if changed.is_err() { return },
                () = sleep(pause) => {}
            }
        }
    }

    /// One look. Returns whether all is well.
    async fn round(&mut self, config: CniConfig) -> bool {
        let (dir, inner) = (config.conf_dir.clone(), self.inner.clone());
        let look = move || {
            // First what a document has the daemon write itself.
            let own = inner.write_configuration().unwrap_or_else(|e| Some(e.to_string()));
            load(&dir, beside::configuration(&inner.store.written())).map(|found| (found, own))
        };
        let (mut found, own) = match blocking(look).await {
            Ok(both) => both,
            Err(e) => (Found { refused: vec![e.to_string()], ..Found::default() }, None),
        };
        found.refused.extend(own);
        let looked = (config, found);
        let fresh = self.former.as_ref() != Some(&looked);
        if fresh {
            self.announce(&looked.0, &looked.1);
            (self.asked, self.strikes) = (None, 0);
        }
        let (config, found) = &looked;
        let problem = match &found.network {
            Some(network) => self.ask(network, &config.bin_dirs, fresh).await,
            None => found.problem(&config.conf_dir),
        };
        let state = State {
            network: found.network.clone().map(Arc::new),
            problem,
            refused: found.refused.clone(),
            unused: found.unused.clone(),
        };
        let well = state.problem.is_none();
        let of = looked.0.clone();
        self.former = Some(looked);
        self.publish(state);
        self.inner.looked.send_replace(Some(of));
        well
    }

    fn announce(&self, config: &CniConfig, found: &Found) {
        for refused in &found.refused {
            (self.inner.tell)("cni_configuration_refused");
            tracing::warn!(problem = refused, "CNI configuration is refused");
        }
        match &found.network {
            Some(n) => {
                tracing::info!(network = n.config.name, file = %n.file.display(), version = %n.config.version, "CNI network")
            }
            None => tracing::info!(directory = %config.conf_dir.display(), "no CNI network"),
        }
    }

    fn publish(&self, state: State) {
        let changed = self.inner.state.send_if_modified(|current| {
            let changed = **current != state;
            if changed {
                *current = Arc::new(state.clone());
            }
            changed
        });
        if !changed {
            return;
        }
        match &state.problem {
            Some(problem) => tracing::warn!(problem, "pod network is not ready"),
            None => tracing::info!("pod network is ready"),
        }
        // A plugin that came back, or an agent that is up again, may let a DEL succeed.
        self.inner.hurry();
    }

    /// What keeps the network's plugins from working.
    async fn ask(&mut self, network: &Network, bin_dirs: &[PathBuf], fresh: bool) -> Option<String> {
        let chain = Chain { network: &network.config, secrets: &network.secrets, bin_dirs };
        let programs = match chain.programs() {
            Ok(programs) => programs,
            Err(e) => return Some(e.to_string()),
        };
        for (number, program) in programs.iter().enumerate() {
            if let Some(problem) = self.speaks(chain, number, program).await {
                return Some(problem);
            }
        }
        if network.config.version < STATUS_FROM {
            return None;
        }
        let former = self.inner.state.borrow().problem.clone();
        let recent = self.asked.is_some_and(|asked| asked.elapsed() < STATUS_EVERY);
        // Strikes are as far apart; a network that is not ready is asked at every look.
        if recent && former.is_none() {
            return None;
        }
        let answer = chain.status(Instant::now() + ASK_LIMIT).await;
        self.asked = Some(Instant::now());
        match answer {
            Ok(()) => {
                self.strikes = 0;
                None
            }
            Err(e) => {
                self.strikes = self.strikes.saturating_add(1);
                let was_ready = !fresh && former.is_none();
                (!was_ready || self.strikes >= STRIKES).then(|| e.to_string())
            }
        }
    }

    /// Asks a program for its versions, once for as long as it is the same.
    async fn speaks(&mut self, chain: Chain<'_>, number: usize, program: &Path) -> Option<String> {
        let metadata = std::fs::metadata(program).ok()?;
        let version = chain.network.version.to_string();
        let key = (program.to_owned(), metadata.modified().ok(), metadata.len(), version);
        if let Some(known) = self.versions.get(&key) {
            return known.clone();
        }
        let answer: Result<()> = chain.speaks(number, Instant::now() + ASK_LIMIT).await;
        let problem = answer.err().map(|e| e.to_string());
        self.versions.retain(|(path, ..), _| path != program);
        self.versions.insert(key, problem.clone());
        problem
    }
}

fn listen(directory: &Path) -> Option<inotify::EventStream<[u8; 4096]>> {
    let inotify = Inotify::init().ok()?;
    let mask = WatchMask::CLOSE_WRITE
        | WatchMask::MOVE
        | WatchMask::DELETE
        | WatchMask::CREATE
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF;
    inotify.watches().add(directory, mask).ok()?;
    inotify.into_event_stream([0; 4096]).ok()
}

#[cfg(test)]
mod tests {
    use super::super::Cni;
    use super::*;
    use std::fs;

    /// Whoever has changed the settings, and asks whether the node is well, is told of the network that it is to have, and not of the former one.
    #[tokio::test]
    async fn a_change_of_settings_is_done_when_it_was_looked_at() {
        const LIST: &str = r#"{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "bridge"}]}"#;
        let dir = tempfile::tempdir().unwrap();
        let config = |name: &str| CniConfig {
            conf_dir: dir.path().join(name),
            bin_dirs: vec![dir.path().join("bin")],
            timeout: Duration::from_secs(1),
            conf_list: None,
            parallel_adds: 1,
        };
        fs::create_dir(dir.path().join("net.d")).unwrap();
        fs::write(dir.path().join("net.d/10-pods.conflist"), LIST).unwrap();
        let daemon = Cni::open(dir.path().join("cni"), config("net.d"), Box::new(|_| {})).await.unwrap();
        daemon.follow().await;
        assert_eq!(daemon.report().network.as_deref(), Some("pods"));
        for (conf_dir, network) in [("nowhere", None), ("net.d", Some("pods"))] {
            daemon.set_config(config(conf_dir)).await;
            assert_eq!(daemon.report().network.as_deref(), network);
        }
    }
}
