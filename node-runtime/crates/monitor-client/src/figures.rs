//! Counts of calls to monitors, of this process.
//!
//! Owns: the counters, one pair for each kind of request. Must not: know whose monitor was asked.
use berth_monitor_api::frame::Request;
use std::sync::atomic::{AtomicU64, Ordering};

/// Kinds of requests, as figures name them.
const NAMES: [&str; 12] = [
    "hello",
    "spawn",
    "signal",
    "reopen_log",
    "attach",
    "resize",
    "close_stdin",
    "list",
    "forget",
    "subscribe",
    "cgroup",
    "shutdown",
];

/// Calls, and those of them that failed: refused, not answered in time, or cut off.
static COUNTS: [[AtomicU64; 2]; NAMES.len()] = [const { [const { AtomicU64::new(0) }; 2] }; NAMES.len()];

/// One kind of call to monitors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Calls {
    /// Which: `spawn`, `signal`.
    pub name: &'static str,
    /// How many since this process began.
    pub calls: u64,
    /// How many of them failed.
    pub failed: u64,
}

/// All kinds of calls, in a fixed order.
pub fn calls() -> impl Iterator<Item = Calls> {
    NAMES.iter().zip(&COUNTS).map(|(name, [calls, failed])| Calls {
        name,
        calls: calls.load(Ordering::Relaxed),
        failed: failed.load(Ordering::Relaxed),
    })
}

/// The place of a request in the counters.
pub(crate) fn place(request: &Request) -> usize {
    match request {
        Request::Hello => 0,
        Request::Spawn(_) => 1,
        Request::Signal { .. } => 2,
        Request::ReopenLog { .. } => 3,
        Request::Attach { .. } => 4,
        Request::Resize { .. } => 5,
        Request::CloseStdin { .. } => 6,
        Request::List => 7,
        Request::Forget { .. } => 8,
        Request::Subscribe => 9,
        Request::Cgroup { .. } => 10,
        Request::Shutdown => 11,
    }
}

/// Counts a call that is over.
pub(crate) fn count(place: usize, failed: bool) {
    let [calls, failures] = &COUNTS[place];
    calls.fetch_add(1, Ordering::Relaxed);
    failures.fetch_add(failed.into(), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_counted_by_themselves() {
        // No other test of this crate attaches.
        let attach = place(&Request::Attach { id: "c1".into() });
        count(attach, false);
        count(attach, true);
        let found = calls().find(|c| c.name == "attach").unwrap();
        assert_eq!((found.calls, found.failed), (2, 1));
        assert_eq!(NAMES[place(&Request::Shutdown)], "shutdown");
    }
}
