//! The monitor protocol from the side of those who ask: the daemon, and the streaming process.
//!
//! Owns: a connection to a monitor, the conversation with init during a start, and the asynchronous ends of a task's streams. Must not:
//! start monitors, decide what to start, or what an exit means. No call waits without a limit, and none blocks a thread of the runtime.
#![forbid(unsafe_code)]

pub mod channel;
mod client;
pub mod figures;
pub mod pipes;
mod program;
mod start;
pub mod terminal;

pub use client::{Closed, Monitor, SpawnRequest, TaskStdio};
pub use program::Program;
pub use start::{Event, Failure, Start};

/// How long a call may take, unless it says otherwise.
pub const CALL_LIMIT: std::time::Duration = std::time::Duration::from_secs(10);
