//! What daemon, monitor and init say to each other. Three conversations and a file, two kinds of contract:
//!
//! - [`frame`]: daemon to monitor, over a `SOCK_SEQPACKET` unix socket. **Frozen and versioned**: any daemon talks to any
//!   living monitor, so a message is only ever added, never changed.
//! - [`child`]: init to monitor, over a socket pair that the monitor makes. **Frozen** too: an old monitor runs the newest
//!   daemon's init.
//! - [`record`]: monitor to any later daemon, by way of tmpfs. Frozen too.
//! - [`spec`] and [`sync`]: daemon to init. Both are of one version (the daemon hands its own init to the monitor as a sealed
//!   memory fd), so these may change with every release. The monitor passes them on unread.
//!
//! Owns: types and codecs. Must not: do I/O. Every decoder is total: any bytes give a value or an error, never a panic,
//! and nothing is allocated beyond the length of the input. Fuzz targets: `monitor_frame`, `init_spec`.
#![forbid(unsafe_code)]

pub mod build;
pub mod child;
mod codec;
pub mod frame;
pub mod record;
pub mod spec;
pub mod sync;

pub use codec::DecodeError;

/// Name of a monitor's socket below its pod's runtime directory.
pub const SOCKET: &str = "monitor.sock";

/// Descriptor numbers that init finds open when the monitor executes it, beside 0, 1 and 2.
pub mod init_fd {
    /// The [`crate::spec::InitSpec`], a sealed memory fd, read from offset 0.
    pub const SPEC: i32 = 3;
    /// The socket to the daemon, see [`crate::sync`].
    pub const SYNC: i32 = 4;
    /// The socket to the monitor, see [`crate::child`].
    pub const CHILD: i32 = 5;
    /// The pidfd of the task named by `join`; open only if one was named.
    pub const TARGET: i32 = 6;
}
