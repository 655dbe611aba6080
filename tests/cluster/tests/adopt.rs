//! `berth adopt`: a node whose kubelet runs on containerd 2.4 is taken over and given back, and the adopter dies at each of its steps. Whatever
//! happens, the node is wholly on one runtime, with its pods.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // A case fails by panicking.

#[path = "adopt/cases.rs"]
mod cases;
#[path = "adopt/images.rs"]
mod images;
#[path = "adopt/network.rs"]
mod network;
#[path = "adopt/node.rs"]
mod node;
#[path = "adopt/revision.rs"]
mod revision;
#[path = "adopt/settings.rs"]
mod settings;

use berth_cluster_tests::suite::{self, Case};
use node::Nodes;

/// Each has a node for itself; there are two.
const CASES: &[Case<Nodes>] = &[
    Case::new("killed_before_the_kubelet_is_touched", |nodes| {
        cases::killed_before_the_kubelet_is_touched(&nodes.take())
    }),
    Case::new("killed_when_the_kubelet_is_stopped", |nodes| cases::killed_when_the_kubelet_is_stopped(&nodes.take())),
    Case::new("killed_after_the_switch", |nodes| cases::killed_after_the_switch(&nodes.take())),
    Case::new("killed_with_its_dead_man", |nodes| cases::killed_with_its_dead_man(&nodes.take())),
    Case::new("killed_when_it_is_proven", |nodes| cases::killed_when_it_is_proven(&nodes.take())),
    Case::new("a_revision_is_needed", |nodes| revision::needed(&nodes.take())),
    Case::new("a_revision_is_walked_back", |nodes| revision::walked_back(&nodes.take())),
    Case::new("a_revision_with_policies", |nodes| revision::with_policies(&nodes.take())),
    Case::new("a_revision_is_refused", |nodes| revision::refused(&nodes.take())),
    Case::new("a_revision_for_a_daemon_that_runs", |nodes| revision::a_daemon_that_runs(&nodes.take())),
    Case::new("images_of_other_pods", |nodes| images::of_other_pods(&nodes.take())),
    Case::new("a_network_comes_late", |nodes| network::comes_late(&nodes.take())),
    Case::new("a_network_of_a_document", |nodes| network::of_a_document(&nodes.take())),
    Case::new("killed_on_the_way_back", |nodes| cases::killed_on_the_way_back(&nodes.take())),
    Case::new("there_and_back_by_the_file", |nodes| cases::there_and_back_by_the_file(&nodes.take())),
    Case::new("a_dead_daemon_walks_back", |nodes| cases::a_dead_daemon_walks_back(&nodes.take())),
    Case::new("a_killed_daemon_is_waited_for", |nodes| cases::a_killed_daemon_is_waited_for(&nodes.take())),
    Case::new("supervised", |nodes| cases::supervised(&nodes.take())),
    Case::new("abandoned", |nodes| cases::abandoned(&nodes.take())),
    Case::new("cut_off_in_the_stop_command", |nodes| cases::cut_off_in_the_stop_command(&nodes.take())),
    Case::new("a_full_disk_walks_back", |nodes| cases::a_full_disk_walks_back(&nodes.take())),
    Case::new("switched_off", |nodes| cases::switched_off(&nodes.take())),
    Case::new("another_version", |nodes| cases::another_version(&nodes.take())),
    Case::new("a_dead_daemon_is_left", |nodes| cases::a_dead_daemon_is_left(&nodes.take())),
    Case::new("changed_by_others_since", |nodes| cases::changed_by_others_since(&nodes.take())),
    Case::new("settings_of_the_kubelet", |nodes| settings::of_the_kubelet(&nodes.take())),
    Case::new("refusals", |nodes| cases::refusals(&nodes.take())),
    Case::alone("there_and_back_by_a_drop_in", |nodes| cases::there_and_back_by_a_drop_in(&nodes.take())),
];

fn main() {
    berth_cluster_tests::dispatch();
    suite::main(CASES, Nodes::start, Nodes::finish);
}
