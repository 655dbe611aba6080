//! Settings that change while the daemon runs: each field is applied where it belongs, and what cannot be applied is told.
//!
//! Must not: judge documents (they were accepted); restart anything. A field that fails leaves what was in force before, but
//! for a profile: containers that name it are refused until it can be loaded.
use super::http::Http;
use super::logging;
use super::streaming::Streaming;
use super::wire;
use crate::layout::Layout;
use berth_engine::{Engine, Metrics};
use berth_images::Images;
use berth_network::{Bridge, CONF_LIST_FIELD, Cni};
use berth_settings::{Settings, Standing};
use prometheus::{IntGauge, Opts};
use std::sync::Arc;
use std::time::Duration;

/// How often the CNI configuration of a document is looked at: somebody may put a file in its place, or take it away.
const CONF_LIST_AGAIN: Duration = Duration::from_secs(5);

/// What follows the settings.
pub struct Followers {
    /// The log's level.
    pub log: logging::Handle,
    /// Loads profiles.
    pub engine: Arc<Engine>,
    /// The limits of images; the registry client follows by itself.
    pub images: Images,
    /// The built-in network, if it is on.
    pub bridge: Option<Bridge>,
    /// The CNI client.
    pub cni: Cni,
    /// The streaming process.
    pub streaming: Arc<Streaming>,
    /// The metrics server, and the address that counts without a document; none when an option names the address.
    pub metrics: Option<(Http, String)>,
    /// Paths.
    pub layout: Layout,
}

/// Figures of the settings themselves.
struct Gauges {
    refused: IntGauge,
    pending: IntGauge,
    problems: IntGauge,
}

impl Gauges {
    fn new(metrics: &Metrics) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::with_opts(Opts::new(name, help))?;
            metrics.registry().register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        Ok(Self {
            refused: gauge("berth_settings_refused", "1 while the documents on disk are not the ones in force.")?,
            pending: gauge("berth_settings_pending_restart", "Changed fields that wait for the daemon's next start.")?,
            problems: gauge("berth_settings_problems", "Changed fields that could not be applied.")?,
        })
    }

    fn set(&self, standing: &Standing) {
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.refused.set(i64::from(!standing.refused().is_empty()));
        self.pending.set(count(standing.pending().len()));
        self.problems.set(count(standing.problems().len()));
    }
}

/// Follows the settings from what the daemon was started with.
pub fn follow(standing: Standing, mut followers: Followers, metrics: &Metrics) -> Result<(), prometheus::Error> {
    let gauges = Gauges::new(metrics)?;
    let metrics = metrics.clone();
    let (mut current, mut refused) = (standing.live().current.clone(), standing.live().refused.clone());
    let part = standing.part();
    let mut in_force = standing.started();
    followers.log.set(in_force.log_level);
    // What changed during the start is applied in a first round.
    current.mark_changed();
    gauges.set(&standing);
    tokio::spawn(async move {
        loop {
            let kept = in_force.spec.network.cni.conf_list.is_some();
            tokio::select! {
                changed = current.changed() => match changed {
                    Ok(()) => {}
                    Err(_) => return,
                },
                changed = refused.changed() => match changed {
                    Ok(()) if !refused.borrow_and_update().is_empty() => metrics.event("settings_refused"),
                    Ok(()) => {}
                    Err(_) => return,
                },
                () = tokio::time::sleep(CONF_LIST_AGAIN), if kept || standing.problems().contains_key(CONF_LIST_FIELD) => {
                    told(&standing, CONF_LIST_FIELD, followers.cni.write_configuration().await);
                    gauges.set(&standing);
                    continue;
                }
            }
            let wanted = current.borrow_and_update().clone();
            metrics.follow(&wanted);
            followers.apply(&standing, &in_force, &wanted).await;
            let limit = followers.images.check_writable_limit(wanted.storage.writable_layer_limit);
            told(&standing, "spec.runtime.storage.writableLayerLimit", limit);
            tell_unused(&wanted);
            // Before each container that needs one, too; here for the words. Last: the parser may take its time.
            gauges.set(&standing);
            told(&standing, "spec.profiles", followers.engine.load_profiles(&wanted.spec.profiles).await);
            gauges.set(&standing);
            part.follows(wanted.clone());
            in_force = wanted;
        }
    });
    Ok(())
}

impl Followers {
    async fn apply(&mut self, standing: &Standing, old: &Settings, new: &Settings) {
        self.log.set(new.log_level);
        if old.limits != new.limits {
            self.images.set_limits(wire::images_config(&self.layout, new).limits);
        }
        if old.network.mtu != new.network.mtu
            && let Some(bridge) = &self.bridge
        {
            told(standing, "spec.network.mtu", bridge.set_mtu(new.network.mtu).await);
        }
        if old.spec.network.cni != new.spec.network.cni {
            self.cni.set_config(wire::cni_config(&self.layout, new)).await;
            told(standing, CONF_LIST_FIELD, self.cni.write_configuration().await);
        }
        if old.metrics_address != new.metrics_address
            && let Some((http, fallback)) = &mut self.metrics
        {
            let address = new.metrics_address.clone().unwrap_or_else(|| fallback.clone());
            told(standing, "spec.metrics.address", http.rebind(&address).await);
        }
        self.streaming.follow(&old.streaming, &new.streaming).await;
    }
}

/// Says what of the documents only a cluster follows: nobody shall wait for it.
fn tell_unused(settings: &Settings) {
    for source in settings.inputs.iter() {
        let fields = source.for_the_cluster();
        if !fields.is_empty() {
            tracing::info!(
                document = source.title(),
                fields = fields.join(", "),
                "a node alone does nothing of these fields"
            );
        }
    }
}

fn told<E: std::fmt::Display>(standing: &Standing, field: &str, applied: Result<(), E>) {
    let problem = applied.err().map(|e| format!("{e:#}"));
    if !standing.report(field, problem.clone()) {
        return;
    }
    match problem {
        Some(problem) => tracing::error!(field, problem, "a setting cannot be applied"),
        None => tracing::info!(field, "the setting is applied after all"),
    }
}
