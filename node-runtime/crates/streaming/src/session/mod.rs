//! What happens in a session, whatever the wire format is.
//!
//! Owns: processes' ends, copying, connections into pods. Must not: know wire formats.
mod attach;
mod copying;
mod exec;
mod monitors;
mod netns;
mod port_forward;
mod pump;

pub use attach::attach;
pub use exec::exec;
pub use monitors::Monitors;
pub use netns::connect as connect_in;
pub use port_forward::port_forward;

use crate::daemon::{Daemon, Denied};
use crate::protocol::{Refusal, Size};
use crate::streams::Line;
use crate::wire::status::Outcome;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// How long a terminal's size is waited for: clients send it right after they have opened their streams, and a program that asks for
/// it first of all should get it.
const FIRST_SIZE: Duration = Duration::from_millis(50);

/// What a session needs.
pub struct Context {
    /// To begin.
    pub daemon: Daemon,
    /// To learn of ends.
    pub monitors: Monitors,
    /// The client's connection.
    pub line: Line,
    /// The token that was taken.
    pub token: String,
}

/// The size to begin with.
async fn first_size(size: &mut watch::Receiver<Option<Size>>) -> Option<Size> {
    match timeout(FIRST_SIZE, size.wait_for(Option::is_some)).await {
        Ok(Ok(size)) => *size,
        _ => None,
    }
}

/// What a client is told whose session could not begin.
fn not_begun(what: &str, denied: Denied) -> Outcome {
    match denied {
        Denied::Refused(Refusal::Command { code }, why) => Outcome::NotExecuted { code, why },
        Denied::Refused(_, why) => Outcome::Failed(format!("{what}: {why}")),
        Denied::Gone => Outcome::Failed(format!("{what}: the runtime is restarting, try again")),
    }
}
