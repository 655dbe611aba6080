//! Figures of the engine. Labels are closed sets: no series grows with pods that come and go.
use crate::table::Table;
use berth_model::{ContainerState, Error, Phase, PodState, Result};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};
use std::time::Duration;

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
    pull_seconds: HistogramVec,
    decisions: IntCounterVec,
    exits: IntCounterVec,
    events: IntCounterVec,
}

fn broken(e: prometheus::Error) -> Error {
    Error::internal(format!("metrics: {e}"))
}

impl Metrics {
    /// Creates and registers all of them. Errors: `Internal`, when two have one name.
    pub fn new() -> Result<Self> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let gauge = |name: &str, help: &str, labels: &[&str]| IntGaugeVec::new(Opts::new(name, help), labels);
        let histogram = |name: &str, help: &str, buckets: &[f64], labels: &[&str]| {
            HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)
        };
        let build = || -> std::result::Result<Self, prometheus::Error> {
            Ok(Self {
                registry: registry.clone(),
                phases: histogram(
                    "berth_phase_seconds",
                    "Time of each named step of run, create, start, stop, remove and pull.",
                    STEP_BUCKETS,
                    &["operation", "phase"],
                )?,
                pods: gauge("berth_pods", "Pod sandboxes by state.", &["state"])?,
                containers: gauge("berth_containers", "Containers by state.", &["state"])?,
                pulls: counter("berth_pulls_total", "Image pulls by result.", &["result"])?,
                pull_seconds: histogram("berth_pull_seconds", "Time of image pulls.", PULL_BUCKETS, &["result"])?,
                decisions: counter(
                    "berth_policy_decisions_total",
                    "Decisions of image policy by stage (pull, create) and verdict (allow, warn, audit, deny).",
                    &["stage", "verdict"],
                )?,
                exits: counter("berth_container_exits_total", "Ended containers by reason.", &["reason"])?,
                events: counter(
                    "berth_events_total",
                    "Things that should not happen: monitors lost, records torn, undo steps failed, settings refused.",
                    &["event"],
                )?,
            })
        };
        let all = build().map_err(broken)?;
        all.register().map_err(broken)?;
        all.start_at_zero();
        Ok(all)
    }

    fn register(&self) -> std::result::Result<(), prometheus::Error> {
        self.registry.register(Box::new(self.phases.clone()))?;
        self.registry.register(Box::new(self.pods.clone()))?;
        self.registry.register(Box::new(self.containers.clone()))?;
        self.registry.register(Box::new(self.pulls.clone()))?;
        self.registry.register(Box::new(self.pull_seconds.clone()))?;
        self.registry.register(Box::new(self.decisions.clone()))?;
        self.registry.register(Box::new(self.exits.clone()))?;
        self.registry.register(Box::new(self.events.clone()))
    }

    /// Series that alert rules ask for exist before anything happens.
    fn start_at_zero(&self) {
        for result in ["ok", "denied", "error"] {
            self.pulls.with_label_values(&[result]);
        }
        for event in ["monitor_lost", "record_torn", "undo_failed", "settings_refused"] {
            self.events.with_label_values(&[event]);
        }
        for stage in ["pull", "create"] {
            for verdict in ["allow", "warn", "audit", "deny"] {
                self.decisions.with_label_values(&[stage, verdict]);
            }
        }
    }

    /// The registry that others add to and that is scraped.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(crate) fn phase(&self, operation: &str, phase: &str, took: Duration) {
        self.phases.with_label_values(&[operation, phase]).observe(took.as_secs_f64());
    }

    /// A phase that `berth-init` measured; its names are a closed set of that program.
    pub(crate) fn inner_phase(&self, operation: &str, phase: &Phase) {
        let seconds = phase.micros as f64 / 1e6;
        self.phases.with_label_values(&[operation, &format!("init.{}", phase.name)]).observe(seconds);
    }

    pub(crate) fn pull(&self, result: &str, took: Duration) {
        self.pulls.with_label_values(&[result]).inc();
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
