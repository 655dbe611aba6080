//! A kubelet 1.37 without an API server on Berth: static pods and everything that a kubelet does for them by itself.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // A case fails by panicking.

#[path = "standalone/cancels.rs"]
mod cancels;
#[path = "standalone/lifecycle.rs"]
mod lifecycle;
#[path = "standalone/pods.rs"]
mod pods;
#[path = "standalone/restarts.rs"]
mod restarts;
#[path = "standalone/stats.rs"]
mod stats;
#[path = "standalone/volumes.rs"]
mod volumes;

use berth_cluster_tests::standalone::Standalone;
use berth_cluster_tests::suite::{self, Case};
use berth_cluster_tests::{kubelet, runtime};
use serde_json::json;

const CASES: &[Case<Standalone>] = &[
    Case::new("log_rotation", volumes::log_rotation),
    Case::new("stats_summary", stats::stats_summary),
    Case::new("exec_probes", pods::exec_probes),
    Case::new("limits_and_probes", pods::limits_and_probes),
    Case::new("grpc_probe", pods::grpc_probe),
    Case::new("back_off", lifecycle::back_off),
    Case::new("init_and_sidecar", lifecycle::init_and_sidecar),
    Case::new("hooks", lifecycle::hooks),
    Case::new("termination_messages", lifecycle::termination_messages),
    Case::new("out_of_memory", lifecycle::out_of_memory),
    Case::new("volumes", volumes::volumes),
    Case::new("image_volumes", volumes::image_volumes),
    Case::new("user_namespace", pods::user_namespace),
    Case::alone("kubelet_killed_in_mid_start", restarts::kubelet_killed_in_mid_start),
    Case::alone("runtime_killed_under_load", restarts::runtime_killed_under_load),
    Case::alone("kubelet_cancels_in_mid_call", cancels::kubelet_cancels_in_mid_call),
    Case::alone("evented_pleg", cancels::evented_pleg),
    Case::alone("stats_from_the_runtime", stats::stats_from_the_runtime),
    Case::alone("image_collection", restarts::image_collection),
];

/// Small logs and short back-off, so that both show within seconds.
fn options() -> kubelet::Options {
    let config = json!({
        "containerLogMaxSize": "16Ki", "containerLogMaxFiles": 20, "containerLogMonitorInterval": "3s",
        "volumeStatsAggPeriod": "3s",
        "crashLoopBackOff": {"maxContainerRestartPeriod": "3s"},
    });
    kubelet::Options { kubeconfig: None, config }
}

fn main() {
    berth_cluster_tests::dispatch();
    suite::main(CASES, || Standalone::start(runtime::Kind::from_env(), options()), Standalone::finish);
}
