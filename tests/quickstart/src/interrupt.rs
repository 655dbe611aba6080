//! Ctrl-C, SIGTERM and SIGHUP: noted, and heeded between and within steps, so that clean-up always runs.
//! Handlers, not blocked signals: a blocked one would stay blocked in every program that is started from here.
use crate::Result;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::signal::unix::{SignalKind, signal};

static ASKED: AtomicBool = AtomicBool::new(false);
static ENDING: AtomicBool = AtomicBool::new(false);

/// Starts to watch. From here on those signals end nothing by themselves.
pub fn watch() -> Result {
    let failed = |e: std::io::Error| format!("cannot watch for Ctrl-C: {e}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let (mut int, mut term, mut hup) = {
        let _context = runtime.enter();
        let of = |kind| signal(kind).map_err(failed);
        (of(SignalKind::interrupt())?, of(SignalKind::terminate())?, of(SignalKind::hangup())?)
    };
    let watcher = move || {
        runtime.block_on(async {
            loop {
                tokio::select! { _ = int.recv() => {}, _ = term.recv() => {}, _ = hup.recv() => {} }
                ASKED.store(true, Ordering::Release);
            }
        })
    };
    std::thread::Builder::new().name("signals".into()).spawn(watcher).map(drop).map_err(failed)
}

/// Error once it is asked to end; not while it ends.
pub fn check() -> Result {
    if ASKED.load(Ordering::Acquire) && !ENDING.load(Ordering::Acquire) {
        return Err("interrupted".into());
    }
    Ok(())
}

/// Clean-up begins: it is not to be interrupted.
pub fn ending() {
    ENDING.store(true, Ordering::Release);
}
