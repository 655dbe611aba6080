//! What a cluster runs on each of its nodes. It is the only process of a node that talks to the API server: it watches the node's own
//! RuntimeNode, has the daemon check and apply what stands there over node.sock, has `berth adopt` take the node over and give it back,
//! and reports. Its image carries the runtime's programs, which `stage` puts onto the node's disk.
//!
//! `plan` decides (pure: no I/O, no clock), `journal` is what it remembers, `report` is what it says; `run` is the loop around them, over
//! two interfaces: [`node::NodeSide`], what is done on a node, and [`cluster::ClusterSide`], what is asked of the API server.
//! Must not: do anything to a node whose RuntimeNode is gone (it keeps what it has); cordon, drain or uncordon.
#![forbid(unsafe_code)]

mod backoff;
pub mod clock;
pub mod cluster;
pub mod credential;
pub mod facts;
mod hold;
pub mod host;
pub mod journal;
pub mod kubernetes;
pub mod node;
pub mod node_sock;
pub mod observe;
pub mod plan;
pub mod report;
pub mod run;
pub mod stage;
pub mod store;
pub mod time;
