//! A kubelet 1.37 without an API server on Berth: static pods and everything that a kubelet does for them by itself.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // A case fails by panicking.

#[path = "standalone/pods.rs"]
mod pods;

use berth_cluster_tests::standalone::Standalone;
use berth_cluster_tests::suite::{self, Case};
use berth_cluster_tests::{kubelet, runtime};

const CASES: &[Case<Standalone>] = &[Case::new("pod_with_limits_and_probes", pods::limits_and_probes)];

fn main() {
    berth_cluster_tests::dispatch();
    let start = || Standalone::start(runtime::Kind::Berth, kubelet::Options::default());
    suite::main(CASES, start, Standalone::finish);
}
