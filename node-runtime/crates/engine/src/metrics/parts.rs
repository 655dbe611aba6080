//! Figures of what the parts of the node tell (`berth_model::Observation`): pulls, collections, networks, leaks.
//!
//! Owns: those series and the bounds of their labels. Must not: do anything else; a part waits for this.
use super::bounded::Hosts;
use super::make::Make;
use berth_model::{ByteSource, Leak, NetworkOperation, Observation, Observe, PullPhase};
use berth_settings::Settings;
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};

const PULL_PHASE: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];
const NETWORK: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];
const COLLECTION: &[f64] = &[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0];

/// The series.
pub(super) struct Parts {
    pub(super) hosts: Hosts,
    pull_phases: HistogramVec,
    pull_bytes: IntCounterVec,
    layers: IntCounterVec,
    collections: IntCounterVec,
    collection_seconds: Histogram,
    collected: IntCounterVec,
    reclaimed: IntCounter,
    network: IntCounterVec,
    network_seconds: HistogramVec,
    leaks: IntCounterVec,
}

impl Parts {
    pub(super) fn new(make: &Make<'_>) -> Result<Self, prometheus::Error> {
        let parts = Self {
            hosts: Hosts::default(),
            pull_phases: make.histogram(
                "berth_pull_phase_seconds",
                "Time of the steps of pulls by registry; those that no document names are \"other\".",
                PULL_PHASE,
                &["registry", "phase"],
            )?,
            pull_bytes: make.counter(
                "berth_pull_bytes_total",
                "Bytes of blobs that pulls needed, by where they came from: the registry, a mirror, or present on the node.",
                &["source"],
            )?,
            layers: make.counter(
                "berth_pull_layers_total",
                "Layers that pulls needed, by how they came: fetched, or shared with what was present.",
                &["how"],
            )?,
            collections: make.counter("berth_gc_runs_total", "Runs of the image collector by result.", &["result"])?,
            collection_seconds: make.plain_histogram(
                "berth_gc_seconds",
                "Time of runs of the image collector.",
                COLLECTION,
            )?,
            collected: make.counter(
                "berth_gc_removed_total",
                "What the image collector removed, by kind (snapshot, blob).",
                &["kind"],
            )?,
            reclaimed: make
                .plain_counter("berth_gc_reclaimed_bytes_total", "Bytes that the image collector gave back to the disk.")?,
            network: make.counter(
                "berth_network_operations_total",
                "Operations of pod networks by kind (builtin, cni), operation and result.",
                &["kind", "operation", "result"],
            )?,
            network_seconds: make.histogram(
                "berth_network_operation_seconds",
                "Time of operations of pod networks by kind (builtin, cni) and operation.",
                NETWORK,
                &["kind", "operation"],
            )?,
            leaks: make.counter(
                "berth_leaks_total",
                "Things that a reconciler found without an owner and removed, by kind.",
                &["kind"],
            )?,
        };
        parts.start_at_zero();
        Ok(parts)
    }

    /// Series that alert rules and rates ask for exist before anything happens.
    fn start_at_zero(&self) {
        for source in ByteSource::ALL {
            self.pull_bytes.with_label_values(&[source.as_str()]);
        }
        for how in ["fetched", "shared"] {
            self.layers.with_label_values(&[how]);
        }
        for result in ["ok", "error"] {
            self.collections.with_label_values(&[result]);
        }
        for kind in ["snapshot", "blob"] {
            self.collected.with_label_values(&[kind]);
        }
        for leak in Leak::ALL {
            self.leaks.with_label_values(&[leak.as_str()]);
        }
        for phase in PullPhase::ALL {
            self.pull_phases.with_label_values(&[super::bounded::OTHER, phase.as_str()]);
        }
        for result in ["ok", "error"] {
            self.network.with_label_values(&["builtin", NetworkOperation::Attach.as_str(), result]);
        }
        self.network_seconds.with_label_values(&["builtin", NetworkOperation::Attach.as_str()]);
    }

    /// Takes over which hosts have series of their own.
    pub(super) fn follow(&self, settings: &Settings) {
        self.hosts.follow(settings);
    }
}

impl Observe for Parts {
    fn observe(&self, what: Observation<'_>) {
        let result = |ok: bool| if ok { "ok" } else { "error" };
        match what {
            Observation::PullPhase { registry, phase, took } => {
                let registry = self.hosts.label(registry);
                self.pull_phases.with_label_values(&[&registry, phase.as_str()]).observe(took.as_secs_f64());
            }
            Observation::PullBytes { source, bytes } => {
                self.pull_bytes.with_label_values(&[source.as_str()]).inc_by(bytes)
            }
            Observation::Layer { shared } => {
                self.layers.with_label_values(&[if shared { "shared" } else { "fetched" }]).inc();
            }
            Observation::Collected { snapshots, blobs, bytes, took, ok } => {
                self.collections.with_label_values(&[result(ok)]).inc();
                self.collection_seconds.observe(took.as_secs_f64());
                self.collected.with_label_values(&["snapshot"]).inc_by(snapshots);
                self.collected.with_label_values(&["blob"]).inc_by(blobs);
                self.reclaimed.inc_by(bytes);
            }
            Observation::Network { cni, operation, took, ok } => {
                let kind = if cni { "cni" } else { "builtin" };
                self.network.with_label_values(&[kind, operation.as_str(), result(ok)]).inc();
                self.network_seconds.with_label_values(&[kind, operation.as_str()]).observe(took.as_secs_f64());
            }
            Observation::Leaked { what, count } => self.leaks.with_label_values(&[what.as_str()]).inc_by(count),
        }
    }
}
