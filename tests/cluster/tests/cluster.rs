//! Kubernetes 1.37 with its control plane around Berth: what users do with kubectl and helm.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // A case fails by panicking.

#[path = "cluster/workloads.rs"]
mod workloads;

use berth_cluster_tests::cluster::Cluster;
use berth_cluster_tests::runtime;
use berth_cluster_tests::suite::{self, Case};

const CASES: &[Case<Cluster>] = &[Case::new("deployment", workloads::deployment)];

fn main() {
    berth_cluster_tests::dispatch();
    suite::main(CASES, || Cluster::start(runtime::Kind::Berth), Cluster::finish);
}
