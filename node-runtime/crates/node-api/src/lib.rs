//! The node API's gRPC edge: what the command line (and later the agent) asks of the daemon over node.sock.
//!
//! Owns: decode → engine → encode for these calls. Wire types end here. Must not: decide anything.
#![forbid(unsafe_code)]

mod attach;
mod config;
mod diagnose;
mod events;
mod exec;
mod explain;
mod info;
mod inspect;
mod kill;
mod pull;
mod restart;
mod service;
mod stats;
mod wait;

pub use service::{DaemonFacts, NodeService};
