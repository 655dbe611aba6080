//! Waiting for the signal to end. As PID 1 of a container a process gets no signal that it does not ask for.
//!
//! Owns: SIGTERM and SIGINT. Must not: install handlers; the signals are blocked and waited for, which PID 1 may do too.
use nix::sys::signal::{SigSet, Signal};
use std::io;
use std::time::Duration;

/// Blocks the two signals in this thread and in those that it starts from now on.
pub fn block() -> io::Result<SigSet> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block()?;
    Ok(signals)
}

/// Waits for one of them. The exit code is 0.
pub fn wait() -> io::Result<u8> {
    block()?.wait()?;
    Ok(0)
}

/// The same, for so many seconds at most, or for ever.
pub fn sleep(seconds: Option<u64>) -> io::Result<u8> {
    block()?;
    if let Some(seconds) = seconds {
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs(seconds));
            std::process::exit(0);
        });
    }
    wait()
}
