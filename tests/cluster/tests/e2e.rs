//! Berth as a user of a cluster has it: `helm install` onto a node that runs on containerd, a RuntimeConfig that takes the node over, workloads
//! on it, and the way back. Nothing is simulated: images come from a registry, the agent is the DaemonSet's.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // A case fails by panicking.

#[path = "e2e/chain.rs"]
mod chain;
#[path = "e2e/chaos.rs"]
mod chaos;
#[path = "e2e/figures.rs"]
mod figures;
#[path = "e2e/kubelet.rs"]
mod kubelet;
#[path = "e2e/site.rs"]
mod site;
#[path = "e2e/steering.rs"]
mod steering;
#[path = "e2e/tour.rs"]
mod tour;
#[path = "e2e/upgrade.rs"]
mod upgrade;
#[path = "e2e/wish.rs"]
mod wish;

use berth_cluster_tests::suite::{self, Case};
use site::Site;

/// One after the other: each goes on where the one before it ended, and does what is missing if it is run alone.
const CASES: &[Case<Site>] = &[
    Case::alone("helm_install", chain::is_installed),
    Case::alone("a_runtime_config_takes_the_node_over", chain::is_taken_over),
    Case::alone("a_deployment_runs_and_is_entered", chain::runs_workloads),
    Case::alone("a_policy_denies_an_image", steering::denies_an_image),
    Case::alone("a_prometheus_scrapes_all_parts", figures::are_scraped),
    Case::alone("a_broken_configuration_comes_back_within_seconds", steering::comes_back),
    Case::alone("the_kubelet_is_configured", kubelet::is_configured),
    Case::alone("a_killed_supervisor_is_followed", steering::survives_its_supervisor),
    Case::alone("a_killed_leader_is_followed", steering::survives_its_leader),
    Case::alone("helm_upgrade_to_another_version_of_the_runtime", upgrade::is_upgraded),
    Case::alone("the_node_is_given_back_and_uninstalled", chain::is_uninstalled_only_once_given_back),
];

/// With that word alone: slow, and on a cluster of its own from `helm install` to the end.
const KILLED: &[Case<Site>] = &[Case::alone("kills_at_random_moments_heal", chaos::heals_by_itself)];

fn main() {
    berth_cluster_tests::dispatch();
    let mut words = std::env::args().skip(1);
    match words.next().as_deref() {
        Some(tour::WORD) => return tour::run(words.any(|word| word == "--keep")),
        Some(chaos::WORD) => suite::chain(KILLED, Site::start_to_kill, Site::finish),
        _ => {}
    }
    suite::chain(CASES, Site::start, Site::finish);
}
