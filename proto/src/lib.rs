//! Wire types and service traits: CRI v1 and the node API, generated at build time, and the status codes of our errors.
//!
//! Only the two edges (`cri`, `node-api`), the daemon's wiring and their clients may depend on this crate.
#![forbid(unsafe_code)]

mod status;

pub use status::{exec_code, status};

/// CRI v1, package `runtime.v1` (cri-api 0.37).
pub mod cri {
    #![allow(
        missing_docs,
        clippy::all,
        clippy::too_many_lines,
        clippy::panic,
        clippy::unwrap_used,
        reason = "generated"
    )]
    tonic::include_proto!("runtime.v1");
}

/// The node API, package `berth.node.v1`.
pub mod node {
    #![allow(
        missing_docs,
        clippy::all,
        clippy::too_many_lines,
        clippy::panic,
        clippy::unwrap_used,
        reason = "generated"
    )]
    tonic::include_proto!("berth.node.v1");
}
