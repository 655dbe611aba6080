//! Kubernetes 1.37 with its control plane around Berth: what users do with kubectl and helm.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // A case fails by panicking.

#[path = "cluster/config.rs"]
mod config;
#[path = "cluster/helm.rs"]
mod helm;
#[path = "cluster/logs.rs"]
mod logs;
#[path = "cluster/metrics.rs"]
mod metrics;
#[path = "cluster/refusals.rs"]
mod refusals;
#[path = "cluster/stalls.rs"]
mod stalls;
#[path = "cluster/streams.rs"]
mod streams;
#[path = "cluster/workloads.rs"]
mod workloads;

use berth_cluster_tests::cluster::Cluster;
use berth_cluster_tests::runtime;
use berth_cluster_tests::suite::{self, Case};

const CASES: &[Case<Cluster>] = &[
    Case::new("services", workloads::services),
    Case::new("deployment", workloads::deployment),
    Case::new("helm_release", helm::release),
    Case::new("config_volumes", config::volumes),
    Case::new("projected_token", config::token),
    Case::new("exec", streams::exec),
    Case::new("terminal", streams::terminal),
    Case::new("attach", streams::attach),
    Case::new("port_forward", streams::port_forward),
    Case::new("copy", streams::copy),
    Case::new("stalled_streams", stalls::stalled),
    Case::new("debug", streams::debug),
    Case::new("top", metrics::top),
    Case::new("logs", logs::of_a_pod),
    Case::new("logs_previous", logs::previous),
    Case::new("resize", workloads::resize),
    Case::new("refused_image", refusals::image),
    Case::new("refused_host_path", refusals::host_path),
    Case::new("refused_user", refusals::user),
    Case::new("refused_profile", refusals::profile),
    Case::new("refused_runtime_class", refusals::runtime_class),
    Case::new("refused_command", refusals::command),
    Case::alone("drain", workloads::drain),
];

fn main() {
    berth_cluster_tests::dispatch();
    suite::main(CASES, || Cluster::start(runtime::Kind::from_env()), Cluster::finish);
}
