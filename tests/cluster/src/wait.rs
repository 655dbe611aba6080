//! Waiting for what a node does in its own time. Owns: the deadline and the words when it passes. Must not: sleep longer than needed.
use std::time::{Duration, Instant};

/// What can say why it is not there yet: events, the ends of logs.
pub trait Diagnose {
    /// For people, many lines.
    fn diagnosis(&self) -> String;
}

/// Looks again and again until `condition` gives something.
///
/// # Panics
/// After `limit`, with what was waited for, the last answer, and the diagnosis.
pub fn wait_for<T>(
    node: &impl Diagnose,
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Result<T, String>,
) -> T {
    let end = Instant::now() + limit;
    loop {
        match condition() {
            Ok(value) => return value,
            Err(last) if Instant::now() > end => {
                panic!("waited {limit:?} in vain: {what}\nlast seen: {last}\n{}", node.diagnosis())
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
