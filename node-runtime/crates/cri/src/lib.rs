//! The CRI's gRPC edge: one file per call, each decode → engine → encode.
//!
//! Owns: what a request must look like, status codes, call metrics. Wire types end here.
//! Must not: decide anything that the engine should, do I/O.
//! Calls that are not built yet answer `Unimplemented`, and nothing claims them (`service.rs` lists them).
#![forbid(unsafe_code)]

mod decode;
mod encode;
mod error;
mod image;
mod metrics;
mod runtime;
mod service;
mod stream;

pub use metrics::CallMetrics;
pub use service::{CriService, StreamingUrl};

/// Longest message taken in, in bytes: what the kubelet itself uses.
pub const MAX_MESSAGE: usize = 16 << 20;
