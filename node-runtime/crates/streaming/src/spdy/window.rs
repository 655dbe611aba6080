//! How much may be sent to the peer: windows, where it counts them.
//!
//! SPDY/3.1 gives every stream, and the connection, 64 KiB; more only when the receiver says so (sections 2.6.8 and 2.8). moby/spdystream
//! never says so and takes everything, so a sender that obeyed it would stop for ever. A peer that counts shows it by SETTINGS or by
//! WINDOW_UPDATE. As long as it has done neither, its windows are obeyed; when one is used up, a PING goes out behind the data, and
//! if the answer (or [`PROBE_TIME`]) comes before an update, the peer does not count. An update that comes later is still obeyed:
//! the windows are kept in any case. Must not: do I/O.
use super::frame::MAX_31;
use std::time::Duration;

/// The window that everything begins with, in bytes.
pub const INITIAL: i64 = 64 * 1024;
/// How long a peer that does not answer the probe (a reader of its own may be slow) is taken for one that counts.
pub const PROBE_TIME: Duration = Duration::from_secs(1);

/// Whether the peer counts windows. Streams and connection apart: SPDY/3 has only the streams'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Peer {
    /// Not known yet.
    #[default]
    Unknown,
    /// It counts.
    Counts,
    /// It takes everything.
    Ignores,
}

impl Peer {
    /// Bytes that may go out now, by this window.
    pub fn allows(self, window: i64) -> usize {
        match self {
            Self::Ignores => usize::MAX,
            Self::Unknown | Self::Counts => usize::try_from(window).unwrap_or(0),
        }
    }
}

/// The window after an update. None: it would be larger than 2^31 − 1, which section 2.6.8 forbids.
pub fn widened(window: i64, delta: u32) -> Option<i64> {
    let window = window.checked_add(i64::from(delta))?;
    (window <= i64::from(MAX_31)).then_some(window)
}
