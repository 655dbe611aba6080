//! Figures of commands, sessions, monitors, events, settings and addresses; those that are states are set before each scrape.
//!
//! Owns: those series. Must not: look for their values; [`Now`] brings them.
use super::bounded::NONE;
use super::make::Make;
use crate::prefetch::PrefetchState;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use std::collections::BTreeMap;

/// States at the time of a scrape.
#[derive(Debug, Default)]
pub(crate) struct Now {
    /// Addresses of each pool: family (`ipv4`, `ipv6`), how many there are, how many are in use.
    pub(crate) pools: Vec<(&'static str, u64, u64)>,
    /// CNI attachments whose DEL has not succeeded yet, and pods whose network CHECK finds broken.
    pub(crate) cni: (u64, u64),
    /// Living monitors by version of the protocol; 0 are those that do not answer.
    pub(crate) monitors: BTreeMap<u16, u64>,
    /// Subscribers of events.
    pub(crate) subscribers: u64,
    /// Those that were too slow since the daemon began.
    pub(crate) subscribers_lost: u64,
    /// Tokens of streaming sessions that wait for their client.
    pub(crate) tokens: u64,
    /// Documents in force.
    pub(crate) documents: u64,
    /// Images to prefetch, by where they are.
    pub(crate) prefetch: BTreeMap<PrefetchState, u64>,
}

/// The series.
#[derive(Clone)]
pub(crate) struct Node {
    execs: IntCounterVec,
    sessions: IntCounterVec,
    tokens: IntGauge,
    oom_kills: IntCounter,
    subscribers: IntGauge,
    subscribers_lost: IntCounter,
    monitors: IntGaugeVec,
    monitor_calls: IntCounterVec,
    monitor_failures: IntCounterVec,
    pool_size: IntGaugeVec,
    pool_used: IntGaugeVec,
    cni_pending: IntGauge,
    cni_broken: IntGauge,
    documents: IntGauge,
    prefetch: IntGaugeVec,
}

impl Node {
    pub(super) fn new(make: &Make<'_>) -> Result<Self, prometheus::Error> {
        let build =
            "Always 1; the labels say what this daemon is: its version and the monitor protocol that it speaks.";
        let protocol = berth_monitor_api::frame::VERSION.to_string();
        make.gauge("berth_build_info", build, &["version", "monitor_protocol"])?
            .with_label_values(&[crate::VERSION, protocol.as_str()])
            .set(1);
        let node = Self {
            execs: make.counter(
                "berth_execs_total",
                "Commands that were to be run in containers, by kind (sync, stream) and result.",
                &["kind", "result"],
            )?,
            sessions: make.counter(
                "berth_streaming_sessions_total",
                "Streaming sessions that began, by kind (exec, attach, port_forward).",
                &["kind"],
            )?,
            tokens: make.plain_gauge("berth_streaming_tokens", "Streaming sessions that wait for their client.")?,
            oom_kills: make.plain_counter(
                "berth_oom_kills_total",
                "Processes of containers that the kernel killed for want of memory.",
            )?,
            subscribers: make.plain_gauge("berth_event_subscribers", "Subscribers of GetContainerEvents.")?,
            subscribers_lost: make.plain_counter(
                "berth_event_subscribers_lost_total",
                "Subscribers of GetContainerEvents that were too slow and were told to list again.",
            )?,
            monitors: make.gauge(
                "berth_monitors",
                "Monitors of pods by version of their protocol; \"none\" do not answer.",
                &["protocol"],
            )?,
            monitor_calls: make.counter(
                "berth_monitor_calls_total",
                "Calls to monitors of pods by request.",
                &["call"],
            )?,
            monitor_failures: make.counter(
                "berth_monitor_call_failures_total",
                "Calls to monitors of pods that failed or were refused, by request.",
                &["call"],
            )?,
            pool_size: make.gauge(
                "berth_address_pool_size",
                "Addresses that pods can have, by family.",
                &["family"],
            )?,
            pool_used: make.gauge("berth_address_pool_used", "Addresses that pods have, by family.", &["family"])?,
            cni_pending: make
                .plain_gauge("berth_cni_pending_deletes", "Pods' networks whose CNI DEL has not succeeded yet.")?,
            cni_broken: make.plain_gauge("berth_cni_broken_pods", "Pods whose network CNI CHECK found broken.")?,
            documents: make.plain_gauge("berth_settings_documents", "Documents in force.")?,
            prefetch: make.gauge(
                "berth_prefetch_images",
                "Images of spec.images.prefetch by state (waiting, pulling, present, removed, failed).",
                &["state"],
            )?,
        };
        node.start_at_zero();
        Ok(node)
    }

    fn start_at_zero(&self) {
        for kind in ["sync", "stream"] {
            for result in ["ok", "error"] {
                self.execs.with_label_values(&[kind, result]);
            }
        }
        for kind in ["exec", "attach", "port_forward"] {
            self.sessions.with_label_values(&[kind]);
        }
        self.monitors.with_label_values(&[berth_monitor_api::frame::VERSION.to_string().as_str()]);
        self.calls();
    }

    /// A command was run, or could not be.
    pub(crate) fn exec(&self, sync: bool, ok: bool) {
        let (kind, result) = (if sync { "sync" } else { "stream" }, if ok { "ok" } else { "error" });
        self.execs.with_label_values(&[kind, result]).inc();
    }

    /// A streaming session has begun.
    pub(crate) fn session(&self, kind: &str) {
        self.sessions.with_label_values(&[kind]).inc();
    }

    /// Processes were killed for want of memory.
    pub(crate) fn oom_kills(&self, count: u64) {
        self.oom_kills.inc_by(count);
    }

    /// Takes over the states of now. One at a time: see `Metrics::counting`.
    pub(crate) fn set(&self, now: &Now) {
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        for (family, size, used) in &now.pools {
            self.pool_size.with_label_values(&[family]).set(gauge(*size));
            self.pool_used.with_label_values(&[family]).set(gauge(*used));
        }
        self.monitors.reset();
        self.monitors.with_label_values(&[berth_monitor_api::frame::VERSION.to_string().as_str()]);
        for (version, count) in &now.monitors {
            let version = if *version == 0 { NONE.to_owned() } else { version.to_string() };
            self.monitors.with_label_values(&[version.as_str()]).set(gauge(*count));
        }
        self.subscribers.set(gauge(now.subscribers));
        self.subscribers_lost.inc_by(now.subscribers_lost.saturating_sub(self.subscribers_lost.get()));
        self.cni_pending.set(gauge(now.cni.0));
        self.cni_broken.set(gauge(now.cni.1));
        self.tokens.set(gauge(now.tokens));
        self.documents.set(gauge(now.documents));
        for (state, count) in &now.prefetch {
            self.prefetch.with_label_values(&[state.as_str()]).set(gauge(*count));
        }
        self.calls();
    }

    /// Counters that the monitors' client keeps.
    fn calls(&self) {
        for calls in berth_oci::monitor::figures::calls() {
            let (all, failed) = (
                self.monitor_calls.with_label_values(&[calls.name]),
                self.monitor_failures.with_label_values(&[calls.name]),
            );
            all.inc_by(calls.calls.saturating_sub(all.get()));
            failed.inc_by(calls.failed.saturating_sub(failed.get()));
        }
    }
}
