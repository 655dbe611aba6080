//! SPDY/3.1: many streams over one upgraded connection, as kubectl, the kubelet, crictl and critest speak it.
//!
//! Source: SPDY Protocol, Drafts 3 and 3.1, and what its one living counterpart does, github.com/moby/spdystream 0.5, which
//! - counts a stream as open, and lets its data in, only after the SYN_REPLY;
//! - answers PING with the same id when its parity is ours, and closes on control frames of types that it does not know;
//! - after a GOAWAY of ours handles what came before it, and closes; a GOAWAY of its own comes right before it closes;
//! - neither sends nor obeys SETTINGS and WINDOW_UPDATE. What that means for the two directions, `window.rs` and `state.rs` say.
//!
//! Owns: frames, header blocks, streams, windows, the order and the end of a connection. Must not: know HTTP, WebSocket, or what the
//! streams are for.
//!
//! ```
//! # async fn example(io: tokio::io::DuplexStream) -> berth_model::Result<()> {
//! use berth_streaming::spdy;
//! use tokio::io::AsyncWriteExt;
//!
//! let (connection, mut incoming) = spdy::serve(io, spdy::Limits::default());
//! while let Some(stream) = incoming.next().await {
//!     let (_reader, mut writer) = stream?.accept().await?;
//!     writer.write_all(b"hello").await?;
//!     writer.shutdown().await?;
//! }
//! connection.close().await
//! # }
//! ```
mod connection;
mod dictionary;
mod frame;
mod headers;
mod input;
mod output;
mod receiving;
mod sending;
mod state;
mod stream;
mod timer;
mod window;

#[cfg(test)]
mod tests;

pub use connection::{Connection, Incoming, client, serve};
pub use headers::Headers;
pub use stream::{Stream, StreamReader, StreamWriter};

use std::time::Duration;

/// What one connection may cost, and how long it may be silent.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Most streams at a time that the peer has opened; more are refused. The default has room for 1000 forwarded connections.
    pub streams: usize,
    /// Bytes that a peer which counts may send ahead on one stream. At least 64 KiB, the protocol's own beginning.
    pub stream_window: u32,
    /// Bytes that wait for readers, over all streams. When they are that many, nothing more is read from the connection: the only
    /// way to slow down a peer that does not count.
    pub buffered: usize,
    /// Send a PING after that long without a frame from the peer.
    pub ping_every: Option<Duration>,
    /// End the connection after that long without any frame but PING, in either direction.
    pub idle: Option<Duration>,
    /// How long [`Connection::close`] waits for a peer that takes nothing of what was written. Long by default, as idle connections of
    /// the kubelet's: behind `kubectl exec ... | less` sits somebody who reads.
    pub close_within: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            streams: 2000,
            stream_window: 256 * 1024,
            buffered: 8 * 1024 * 1024,
            ping_every: None,
            idle: None,
            close_within: Duration::from_secs(4 * 3600),
        }
    }
}

/// Why a stream is refused or reset: section 2.6.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Status {
    /// What the peer did is against the protocol.
    ProtocolError = 1,
    /// Data for a stream that was never opened.
    InvalidStream = 2,
    /// Not wanted, and nothing of it was looked at.
    RefusedStream = 3,
    /// No longer wanted.
    Cancel = 5,
    /// A fault of ours.
    InternalError = 6,
    /// More data than the window allows.
    FlowControlError = 7,
}
