//! The definitions of our kinds and the operator, on a real API server. Nodes are objects, each with an agent: its
//! own code, with `operator/reporters.rs` instead of the node behind it.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // A case fails by panicking.

#[path = "operator/api.rs"]
mod api;
#[path = "operator/definitions.rs"]
mod definitions;
#[path = "operator/documents.rs"]
mod documents;
#[path = "operator/plugin.rs"]
mod plugin;
#[path = "operator/policies.rs"]
mod policies;
#[path = "operator/reporters.rs"]
mod reporters;
#[path = "operator/restarts.rs"]
mod restarts;
#[path = "operator/rollouts.rs"]
mod rollouts;
#[path = "operator/trouble.rs"]
mod trouble;

use api::Api;
use berth_cluster_tests::suite::{self, Case};

const CASES: &[Case<Api>] = &[
    Case::new("corpus", documents::corpus),
    Case::new("defaults", definitions::defaults),
    Case::new("revisions_never_change", definitions::revisions),
    Case::new("a_runtime_node_has_the_name_of_its_node", definitions::nodes),
    Case::alone("fifty_nodes_in_waves_a_way_back_and_a_dead_leader", rollouts::fleet),
];

fn main() {
    berth_cluster_tests::dispatch();
    suite::main(CASES, Api::start, Api::finish);
}
