//! The daemon's side of the monitor protocol.
//!
//! Owns: starting monitors, talking to them, and the conversation with init during a start. Must not: decide what to start, or what
//! an exit means. No call waits without a limit, and none blocks a thread of the runtime.
pub(crate) mod channel;
mod client;
mod launcher;
mod start;

pub use client::{Closed, Monitor, SpawnRequest, TaskStdio};
pub use launcher::{LaunchOptions, Launcher, MonitorProcess, Program};
pub use start::{Event, Failure, Start};

/// How long a call may take, unless it says otherwise.
pub const CALL_LIMIT: std::time::Duration = std::time::Duration::from_secs(10);
