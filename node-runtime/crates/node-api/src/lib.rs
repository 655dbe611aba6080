//! The node API's gRPC edge: what the command line (and later the agent) asks of the daemon over node.sock.
//!
//! Owns: decode → engine → encode for these calls. Wire types end here. Must not: decide anything.
#![forbid(unsafe_code)]

mod exec;
mod info;
mod inspect;
mod pull;
mod service;

pub use service::{DaemonFacts, NodeService};
