//! Figures of the engine and of what its parts tell. Labels are closed sets or bounded: no series grows with pods that come and go,
//! or with what a node is asked for.
mod bounded;
mod hosts;
mod make;
mod node;
mod parts;
mod registry;
#[cfg(test)]
mod tests;

use crate::table::Table;
use berth_model::{ContainerState, Error, NetworkOperation, Observation, Observe, Observer, Phase, PodState, Result};
use berth_settings::Settings;
use make::Make;
use node::Node;
pub(crate) use node::Now;
use parts::Parts;
use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec, Registry};
use registry::Requests;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Buckets in seconds for steps that take from a tenth of a millisecond to seconds.
const STEP_BUCKETS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const PULL_BUCKETS: &[f64] = &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];

/// Handles to the engine's metrics; cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    phases: HistogramVec,
    pods: IntGaugeVec,
    containers: IntGaugeVec,
    pulls: IntCounterVec,
    registry_pulls: IntCounterVec,
    pull_seconds: HistogramVec,
    decisions: IntCounterVec,
    exits: IntCounterVec,
    events: IntCounterVec,
    node: Node,
    parts: Arc<Parts>,
    requests: Arc<Requests>,
    counting: Arc<Mutex<()>>,
}

impl Metrics {
    /// Creates and registers all of them. Errors: `Internal`, when two have one name.
    pub fn new() -> Result<Self> {
        Self::build().map_err(|e| Error::internal(format!("metrics: {e}")))
    }

    fn build() -> std::result::Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let make = Make(&registry);
        let parts = Arc::new(Parts::new(&make)?);
        let all = Self {
            phases: make.histogram(
                "berth_phase_seconds",
                "Time of each named step of run, create, start, stop, remove and pull.",
                STEP_BUCKETS,
                &["operation", "phase"],
            )?,
            pods: make.gauge("berth_pods", "Pod sandboxes by state.", &["state"])?,
            containers: make.gauge("berth_containers", "Containers by state.", &["state"])?,
            pulls: make.counter("berth_pulls_total", "Image pulls by result.", &["result"])?,
            registry_pulls: make.counter(
                "berth_registry_pulls_total",
                "Image pulls by registry and result; registries that no document names are \"other\".",
                &["registry", "result"],
            )?,
            pull_seconds: make.histogram("berth_pull_seconds", "Time of image pulls.", PULL_BUCKETS, &["result"])?,
            decisions: make.counter(
                "berth_policy_decisions_total",
                "Decisions of image policy by stage (pull, create) and verdict (allow, warn, audit, deny).",
                &["stage", "verdict"],
            )?,
            exits: make.counter("berth_container_exits_total", "Ended containers by reason.", &["reason"])?,
            events: make.counter(
                "berth_events_total",
                "Things that should not happen: monitors lost, records torn, undo steps failed, settings refused, network repaired.",
                &["event"],
            )?,
            node: Node::new(&make)?,
            requests: Arc::new(Requests::new(&make, parts.clone())?),
            parts,
            counting: Arc::default(),
            registry: registry.clone(),
        };
        all.start_at_zero();
        Ok(all)
    }

    /// Series that alert rules ask for exist before anything happens.
    fn start_at_zero(&self) {
        for result in ["ok", "denied", "error"] {
            self.pulls.with_label_values(&[result]);
            self.registry_pulls.with_label_values(&[bounded::OTHER, result]);
        }
        for event in ["monitor_lost", "record_torn", "undo_failed", "settings_refused", "network_repaired"] {
            self.events.with_label_values(&[event]);
        }
        for stage in ["pull", "create"] {
            for verdict in ["allow", "warn", "audit", "deny"] {
                self.decisions.with_label_values(&[stage, verdict]);
            }
        }
        for reason in ["Completed", "Error", "OOMKilled"] {
            self.exits.with_label_values(&[reason]);
        }
    }

    /// The registry that others add to and that is scraped.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Where the parts of the node tell what happens.
    pub fn observer(&self) -> Observer {
        Observer::new(self.parts.clone())
    }

    /// Where the registry client tells what happens.
    pub fn registry_observer(&self) -> Arc<dyn berth_registry::Observer> {
        self.requests.clone()
    }

    /// Takes over from the settings which registries have series of their own.
    pub fn follow(&self, settings: &Settings) {
        self.parts.follow(settings);
    }

    /// Notes what was told.
    pub(crate) fn tell(&self, what: Observation<'_>) {
        self.parts.observe(what);
    }

    /// Runs an operation of a network (`builtin` or `cni`), and counts it.
    pub(crate) async fn network<T>(
        &self,
        name: &str,
        operation: NetworkOperation,
        what: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let begun = Instant::now();
        let result = what.await;
        let (took, ok, cni) = (begun.elapsed(), result.is_ok(), name != "builtin");
        self.tell(Observation::Network { cni, operation, took, ok });
        result
    }

    pub(crate) fn phase(&self, operation: &str, phase: &str, took: Duration) {
        self.phases.with_label_values(&[operation, phase]).observe(took.as_secs_f64());
    }

    /// A phase that `berth-init` measured; its names are a closed set of that program.
    pub(crate) fn inner_phase(&self, operation: &str, phase: &Phase) {
        let seconds = phase.micros as f64 / 1e6;
        self.phases.with_label_values(&[operation, &format!("init.{}", phase.name)]).observe(seconds);
    }

    /// A pull has ended; `registry` is the host in its reference, empty where that is malformed.
    pub(crate) fn pull(&self, result: &str, registry: &str, took: Duration) {
        self.pulls.with_label_values(&[result]).inc();
        self.registry_pulls.with_label_values(&[&self.parts.hosts.label(registry), result]).inc();
        self.pull_seconds.with_label_values(&[result]).observe(took.as_secs_f64());
    }

    pub(crate) fn decision(&self, stage: &str, verdict: &str) {
        self.decisions.with_label_values(&[stage, verdict]).inc();
    }

    pub(crate) fn exit(&self, reason: &str) {
        self.exits.with_label_values(&[reason]).inc();
    }

    /// Counts something that should not happen.
    pub fn event(&self, event: &str) {
        self.events.with_label_values(&[event]).inc();
    }

    /// Figures of commands, sessions and monitors.
    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    /// Held while figures are taken over from elsewhere: two scrapes at once would both add what is new to a counter.
    pub(crate) fn counting(&self) -> MutexGuard<'_, ()> {
        self.counting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the gauges from the table; called before each scrape.
    pub(crate) fn count(&self, table: &Table) {
        let (mut ready, mut not_ready) = (0, 0);
        let mut by_state = [0; 4];
        for view in table.pods(&crate::PodFilter::default()) {
            match view.record.state() {
                PodState::Ready => ready += 1,
                PodState::NotReady => not_ready += 1,
            }
            for container in view.record.containers.values() {
                by_state[container.state() as usize] += 1;
            }
        }
        self.pods.with_label_values(&["ready"]).set(ready);
        self.pods.with_label_values(&["notready"]).set(not_ready);
        let states =
            [ContainerState::Created, ContainerState::Running, ContainerState::Exited, ContainerState::Unknown];
        for (state, name) in states.into_iter().zip(["created", "running", "exited", "unknown"]) {
            self.containers.with_label_values(&[name]).set(by_state[state as usize]);
        }
    }
}
