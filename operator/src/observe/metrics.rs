//! The operator's series. Must not: have a label whose values grow with the cluster.
use prometheus::{
    Encoder, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// All series. Clones are the same.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    reconciles: IntCounterVec,
    durations: HistogramVec,
    watches: IntCounterVec,
    writes: IntCounterVec,
    leader: IntGauge,
    frozen: IntGaugeVec,
    nodes: IntGaugeVec,
    bad: IntGauge,
    clock: IntGauge,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Errors: a name stands twice, which is a mistake of this file.
    pub fn new(version: &str) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let gauge = |name: &str, help: &str, labels: &[&str]| IntGaugeVec::new(Opts::new(name, help), labels);
        let seconds = "berth_operator_reconcile_duration_seconds";
        let metrics = Self {
            reconciles: counter(
                "berth_operator_reconcile_total",
                "Passes of a controller.",
                &["controller", "result"],
            )?,
            durations: HistogramVec::new(HistogramOpts::new(seconds, "How long passes took."), &["controller"])?,
            watches: counter(
                "berth_operator_watch_errors_total",
                "Watches that failed and were begun again.",
                &["kind"],
            )?,
            writes: counter(
                "berth_operator_writes_total",
                "Changes asked of the API server.",
                &["kind", "verb", "code"],
            )?,
            leader: IntGauge::new("berth_operator_leader", "1 while this process holds the lease.")?,
            frozen: gauge(
                "berth_operator_frozen_objects",
                "Objects that this version cannot parse or accept.",
                &["kind"],
            )?,
            nodes: gauge("berth_operator_nodes", "Nodes that RuntimeConfigs select, by their state.", &["state"])?,
            bad: IntGauge::new("berth_operator_bad_revisions", "Revisions that broke nodes.")?,
            clock: IntGauge::new(
                "berth_operator_clock_ahead_seconds",
                "How far this process's clock is ahead of the API server's, which counts.",
            )?,
            registry,
        };
        let build = GaugeVec::new(Opts::new("berth_operator_build_info", "1, with the version."), &["version"])?;
        build.with_label_values(&[version]).set(1.0);
        let all: [Box<dyn prometheus::core::Collector>; 10] = [
            Box::new(metrics.reconciles.clone()),
            Box::new(metrics.durations.clone()),
            Box::new(metrics.watches.clone()),
            Box::new(metrics.writes.clone()),
            Box::new(metrics.leader.clone()),
            Box::new(metrics.frozen.clone()),
            Box::new(metrics.nodes.clone()),
            Box::new(metrics.bad.clone()),
            Box::new(metrics.clock.clone()),
            Box::new(build),
        ];
        all.into_iter().try_for_each(|series| metrics.registry.register(series))?;
        Ok(metrics)
    }

    /// A controller's pass is over.
    pub fn reconciled(&self, controller: &str, seconds: f64, ok: bool) {
        self.reconciles.with_label_values(&[controller, if ok { "ok" } else { "error" }]).inc();
        self.durations.with_label_values(&[controller]).observe(seconds);
    }

    /// A watch failed.
    pub fn watch_failed(&self, kind: &str) {
        self.watches.with_label_values(&[kind]).inc();
    }

    /// A change was asked for.
    pub fn written(&self, kind: &str, verb: &str, code: &str) {
        self.writes.with_label_values(&[kind, verb, code]).inc();
    }

    /// Whether this process leads.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
        if !leads {
            // What another replica counts now must not be counted twice.
            self.nodes.reset();
            self.frozen.reset();
            self.bad.set(0);
        }
    }

    /// How many objects of a kind are frozen.
    pub fn frozen(&self, kind: &str, count: usize) {
        self.frozen.with_label_values(&[kind]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// How many nodes are in a state.
    pub fn nodes(&self, state: &str, count: u32) {
        self.nodes.with_label_values(&[state]).set(i64::from(count));
    }

    /// How many revisions are known to be bad.
    pub fn bad_revisions(&self, count: usize) {
        self.bad.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// By how many seconds this process's clock is ahead of the API server's.
    pub fn clock_ahead(&self, seconds: i64) {
        self.clock.set(seconds);
    }

    /// All series, as Prometheus reads them.
    pub fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            Ok(()) => text,
            Err(e) => format!("# {e}\n").into_bytes(),
        }
    }
}
