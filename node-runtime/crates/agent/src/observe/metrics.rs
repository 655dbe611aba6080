//! The agent's series. Their names begin with `berth_agent_`, its own process's too: they are served together with the daemon's, which has
//! the names without. Must not: have a label whose values grow with the cluster or the node's pods.
use berth_crds::{NodeState, Phase, RuntimeNodeStatus};
use prometheus::{Encoder, Gauge, GaugeVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

const PHASES: [Phase; 10] = [
    Phase::Idle,
    Phase::Preparing,
    Phase::AwaitingGrant,
    Phase::AwaitingPolicies,
    Phase::Draining,
    Phase::Applying,
    Phase::Verifying,
    Phase::RollingBack,
    Phase::Quarantined,
    Phase::Unsupported,
];
const STATES: [NodeState; 3] = [NodeState::Foreign, NodeState::Managed, NodeState::Absent];

/// All series, and when the agent's loop was seen last. Clones are the same.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    phase: IntGaugeVec,
    state: IntGaugeVec,
    healthy: IntGauge,
    drift: IntGauge,
    crashes: IntGauge,
    revisions: GaugeVec,
    steps: IntCounterVec,
    reports: IntCounterVec,
    watches: IntCounterVec,
    clock: Gauge,
    daemon: IntGauge,
    memory: Gauge,
    beat: Arc<Mutex<Beat>>,
}

#[derive(Debug, Clone, Copy)]
struct Beat {
    at: Instant,
    answered: bool,
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
        let add = |series: Box<dyn prometheus::core::Collector>| registry.register(series);
        let gauges = |name: &str, help: &str, labels: &[&str]| -> Result<IntGaugeVec, prometheus::Error> {
            let series = IntGaugeVec::new(Opts::new(name, help), labels)?;
            add(Box::new(series.clone())).map(|()| series)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let series = IntGauge::new(name, help)?;
            add(Box::new(series.clone())).map(|()| series)
        };
        let number = |name: &str, help: &str| -> Result<Gauge, prometheus::Error> {
            let series = Gauge::new(name, help)?;
            add(Box::new(series.clone())).map(|()| series)
        };
        let counter = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
            let series = IntCounterVec::new(Opts::new(name, help), labels)?;
            add(Box::new(series.clone())).map(|()| series)
        };
        let build = gauges("berth_agent_build_info", "1, with the version.", &["version"])?;
        build.with_label_values(&[version]).set(1);
        let revisions = Opts::new("berth_agent_revision_info", "1, with the revision that the daemon has loaded.");
        let revisions = GaugeVec::new(revisions, &["kind", "revision"])?;
        add(Box::new(revisions.clone()))?;
        let metrics = Self {
            phase: gauges("berth_agent_phase", "1 for what the agent is at.", &["phase"])?,
            state: gauges("berth_agent_node_state", "1 for who runs the node's pods.", &["state"])?,
            healthy: gauge("berth_agent_node_healthy", "1 while daemon and kubelet are well.")?,
            drift: gauge("berth_agent_drifted_files", "Files of the product that somebody else has changed.")?,
            crashes: gauge("berth_agent_daemon_crashes", "Ends of the daemon that nobody asked for.")?,
            revisions,
            steps: counter("berth_agent_steps_total", "Steps taken on the node.", &["step", "result"])?,
            reports: counter("berth_agent_reports_total", "Writes of the node's status.", &["result"])?,
            watches: counter("berth_agent_watch_errors_total", "Watches that failed and were begun again.", &[])?,
            clock: number("berth_agent_clock_ahead_seconds", "How far the node's clock is ahead of the API server's.")?,
            daemon: gauge("berth_agent_daemon_up", "1 if the daemon's series are in this answer.")?,
            memory: number("berth_agent_process_resident_memory_bytes", "Resident memory of the agent in bytes.")?,
            beat: Arc::new(Mutex::new(Beat { at: Instant::now(), answered: false })),
            registry,
        };
        metrics.start_at_zero();
        Ok(metrics)
    }

    /// Series that alert rules ask for exist before anything happens.
    fn start_at_zero(&self) {
        for result in ["ok", "error"] {
            self.reports.with_label_values(&[result]);
        }
        self.watches.with_label_values::<&str>(&[]);
        self.standing(&RuntimeNodeStatus::default());
    }

    /// What the node's status says.
    pub fn standing(&self, status: &RuntimeNodeStatus) {
        for phase in PHASES {
            self.phase.with_label_values(&[&format!("{phase:?}")]).set(i64::from(phase == status.phase));
        }
        for state in STATES {
            self.state.with_label_values(&[&format!("{state:?}")]).set(i64::from(state == status.state));
        }
        self.healthy.set(i64::from(status.healthy));
        self.drift.set(i64::try_from(status.drift.len()).unwrap_or(i64::MAX));
        self.crashes.set(i64::from(status.crash_count));
        self.revisions.reset();
        for (kind, name) in [("configuration", &status.loaded_revision), ("policies", &status.policy_revision)] {
            if let Some(name) = name {
                self.revisions.with_label_values(&[kind, name]).set(1.0);
            }
        }
    }

    /// A step was taken; `result` is `ok` or `later`.
    pub fn step(&self, step: &str, result: &str) {
        self.steps.with_label_values(&[step, result]).inc();
    }

    /// A status was written, or could not be.
    pub fn reported(&self, ok: bool) {
        self.reports.with_label_values(&[if ok { "ok" } else { "error" }]).inc();
    }

    /// The watch failed.
    pub fn watch_failed(&self) {
        self.watches.with_label_values::<&str>(&[]).inc();
    }

    /// The loop is alive; `answered`: the API server has said what there is for this node, in this life of the agent.
    pub fn beats(&self, answered: bool) {
        let mut beat = self.beat();
        *beat = Beat { at: Instant::now(), answered: beat.answered || answered };
    }

    /// Since when nothing was heard of the loop.
    pub fn silence(&self) -> std::time::Duration {
        self.beat().at.elapsed()
    }

    /// Whether the API server has answered.
    pub fn answered(&self) -> bool {
        self.beat().answered
    }

    fn beat(&self) -> std::sync::MutexGuard<'_, Beat> {
        self.beat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All series, as Prometheus reads them, and behind them those of the daemon, if it gave some.
    pub fn text(&self, daemon: Option<&[u8]>, ahead: i64) -> Vec<u8> {
        self.daemon.set(i64::from(daemon.is_some()));
        #[allow(clippy::cast_precision_loss)] // Of a clock that is wrong by 2^52 seconds nobody wants the last digit.
        self.clock.set(ahead as f64);
        if let Some(kibibytes) = resident() {
            self.memory.set(kibibytes * 1024.0);
        }
        let mut text = Vec::new();
        if let Err(e) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            return format!("# {e}\n").into_bytes();
        }
        text.extend_from_slice(daemon.unwrap_or_default());
        text
    }
}

/// `VmRSS` of proc_pid_status(5), in KiB: whatever a page is here.
fn resident() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_both_and_one_phase_at_a_time() {
        let metrics = Metrics::new("1").unwrap();
        let status = RuntimeNodeStatus {
            phase: Phase::Applying,
            loaded_revision: Some("config-1".to_owned()),
            ..RuntimeNodeStatus::default()
        };
        metrics.standing(&status);
        metrics.step("Apply", "later");
        let text = String::from_utf8(metrics.text(Some(b"berth_pods 1\n"), -3)).unwrap();
        for line in [
            "berth_agent_phase{phase=\"Applying\"} 1",
            "berth_agent_phase{phase=\"Idle\"} 0",
            "berth_agent_revision_info{kind=\"configuration\",revision=\"config-1\"} 1",
            "berth_agent_steps_total{result=\"later\",step=\"Apply\"} 1",
            "berth_agent_clock_ahead_seconds -3",
            "berth_agent_daemon_up 1",
            "berth_pods 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        let bytes = text.lines().find_map(|l| l.strip_prefix("berth_agent_process_resident_memory_bytes ")).unwrap();
        assert!(bytes.parse::<f64>().unwrap() > 1e6, "{bytes}");
        metrics.standing(&RuntimeNodeStatus::default());
        let text = String::from_utf8(metrics.text(None, 0)).unwrap();
        assert!(!text.contains("config-1") && text.contains("berth_agent_daemon_up 0"), "{text}");
    }
}
