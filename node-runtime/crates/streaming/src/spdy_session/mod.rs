//! Sessions over SPDY/3.1.
//!
//! Owns: which stream is what, by its headers. Must not: know frames, or what a session does.
//! Source: k8s.io/cri-streaming/pkg/streaming/{remotecommand,portforward}/httpstream.go.
mod forward;
mod remote;

pub use forward::pairs;
pub use remote::{SpdyFinish, remote};

use crate::spdy::StreamWriter;
use crate::streams::Resettable;

/// The header that says what a stream is.
const STREAM_TYPE: &str = "streamtype";

impl Resettable for StreamWriter {
    fn reset(&mut self) {
        Self::reset(self);
    }
}
