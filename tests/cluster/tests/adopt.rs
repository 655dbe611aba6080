//! `berth adopt`: a node whose kubelet runs on containerd 2.4 is taken over and given back, and the adopter dies at each of its steps. Whatever
//! happens, the node is wholly on one runtime, with its pods.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // A case fails by panicking.

#[path = "adopt/cases.rs"]
mod cases;
#[path = "adopt/node.rs"]
mod node;

use berth_cluster_tests::suite::{self, Case};
use node::Node;

const CASES: &[Case<Node>] = &[
    Case::alone("refusals", cases::refusals),
    Case::alone("there_and_back_by_a_drop_in", cases::there_and_back_by_a_drop_in),
    Case::alone("there_and_back_by_the_file", cases::there_and_back_by_the_file),
    Case::alone("killed_at_each_step", cases::killed_at_each_step),
    Case::alone("killed_on_the_way_back", cases::killed_on_the_way_back),
    Case::alone("a_dead_daemon_walks_back", cases::a_dead_daemon_walks_back),
    Case::alone("abandoned", cases::abandoned),
    Case::alone("supervised", cases::supervised),
];

fn main() {
    berth_cluster_tests::dispatch();
    suite::main(CASES, Node::start, Node::finish);
}
