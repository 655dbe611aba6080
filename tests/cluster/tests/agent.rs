//! The agent of one node: a real API server with the chart's rights and its admission policy, a real kubelet on a real daemon, and
//! `berth-agent` as a process with a token that is bound to the node. What it does is read from its RuntimeNode and from the daemon.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // A case fails by panicking.

#[path = "agent/credentials.rs"]
mod credentials;
#[path = "agent/faults.rs"]
mod faults;
#[path = "agent/kills.rs"]
mod kills;
#[path = "agent/node.rs"]
mod node;
#[path = "agent/revisions.rs"]
mod revisions;
#[path = "agent/wishes.rs"]
mod wishes;

use berth_cluster_tests::suite::{self, Case};
use node::Node;

/// They share one node, whose state each of them changes.
const CASES: &[Case<Node>] = &[
    Case::alone("applied_and_reported", revisions::applied_and_reported),
    Case::alone("policies_are_enforced_and_counted", revisions::policies),
    Case::alone("refused_revisions_leave_the_former_in_force", revisions::refused),
    Case::alone("a_restart_waits_for_leave", revisions::restart_with_leave),
    Case::alone("there_is_nothing_to_give_a_native_node_back_to", revisions::native),
    Case::alone("probes_and_metrics", revisions::metrics),
    Case::alone("credentials_are_handed_over_and_never_written", credentials::handed_over),
    Case::alone("killed_at_each_step", kills::at_each_step),
    Case::alone("killed_at_a_restart", kills::at_a_restart),
    Case::alone("the_api_server_is_away", faults::api_server_away),
    Case::alone("a_deleted_object_freezes_the_node", faults::deleted),
    Case::alone("drift_is_seen", faults::drift),
    Case::alone("a_wrong_clock_makes_no_grant_good_and_ends_none", faults::clock),
    Case::alone("a_token_that_counts_no_more_is_read_again", faults::token),
];

fn main() {
    berth_cluster_tests::dispatch();
    suite::main(CASES, Node::start, Node::finish);
}
