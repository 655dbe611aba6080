//! The two conversations: with the daemon (phases, `Ready`, `Go`) and with the monitor (the child, its terminal).
//!
//! Owns: both sockets and the name of the running step. Must not: decide what is said when.
use crate::failure::{Explain, Failure, Result};
use berth_monitor_api::child::ChildMessage;
use berth_monitor_api::sync::{self, FromInit, Identity, MAX_MESSAGE, ToInit};
use berth_sys::socket::{self, Wait};
use berth_sys::task;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Instant;

/// Longest `Failed.detail`, in bytes, so that the message always fits.
const MAX_DETAIL: usize = 8 * 1024;

/// Both sockets.
pub struct Talk {
    sync: OwnedFd,
    monitor: Option<OwnedFd>,
    step: &'static str,
    since: Instant,
}

impl Talk {
    /// Over these sockets.
    pub fn new(sync: OwnedFd, monitor: OwnedFd) -> Self {
        Self { sync, monitor: Some(monitor), step: "", since: Instant::now() }
    }

    /// Begins a step; the one before it is reported as done.
    pub fn phase(&mut self, name: &'static str) -> Result<()> {
        if !self.step.is_empty() {
            let micros = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.say(&FromInit::Phase { name: self.step.to_owned(), micros })?;
        }
        self.step = name;
        self.since = Instant::now();
        Ok(())
    }

    /// The process is there and waits to be moved into its cgroup.
    pub fn paused(&self, pid: u32) -> Result<()> {
        self.say(&FromInit::Paused { pid })?;
        self.wait_for(ToInit::Continue)
    }

    /// Set-up is complete; returns when the program may run.
    pub fn ready(&mut self, pid: u32, identity: Identity) -> Result<()> {
        self.phase("exec")?;
        self.say(&FromInit::Ready { pid, identity })?;
        self.wait_for(ToInit::Go)
    }

    /// The sandbox is made.
    pub fn done(&mut self, pid: Option<u32>) -> Result<()> {
        self.phase("done")?;
        self.say(&FromInit::Done { pid })
    }

    /// Names what is done from now on, for a failure. Unlike [`Talk::phase`] it says nothing now.
    pub fn now(&mut self, step: &'static str) {
        self.step = step;
    }

    /// What follows is `execve`. One `write(2)`: the seccomp filter may be loaded already.
    pub fn exec_next(&self) -> Result<()> {
        self.say(&FromInit::ExecNext)
    }

    /// The last word. Nothing is left to do if it cannot be said.
    pub fn failed(&self, failure: &Failure) {
        let mut detail = failure.detail.clone();
        if detail.len() > MAX_DETAIL {
            detail.truncate((0..=MAX_DETAIL).rev().find(|n| detail.is_char_boundary(*n)).unwrap_or(0));
        }
        let _ = self.say(&FromInit::Failed { step: self.step.to_owned(), errno: failure.errno, detail });
    }

    /// Hands a process or a terminal to the monitor.
    pub fn tell_monitor(&self, message: ChildMessage, fd: BorrowedFd<'_>) -> Result<()> {
        let Some(monitor) = &self.monitor else {
            return Err(Failure::refused("the monitor's socket is closed already"));
        };
        socket::send(monitor.as_fd(), &message.encode(), &[fd], Wait::Yes).explain(|| "tell the monitor")
    }

    /// Nothing more to tell the monitor.
    pub fn leave_monitor(&mut self) {
        self.monitor = None;
    }

    /// Closes every descriptor from 3 on except the socket to the daemon. Values that own one must be gone.
    pub fn close_all_others(&mut self) -> Result<()> {
        self.leave_monitor();
        let sync = self.sync.as_raw_fd().cast_unsigned();
        if sync > 3 {
            task::close_between(3, sync - 1).explain(|| "close descriptors")?;
        }
        task::close_between(sync + 1, u32::MAX).explain(|| "close descriptors")
    }

    fn say(&self, message: &FromInit) -> Result<()> {
        let bytes = sync::encode(message);
        if bytes.len() > MAX_MESSAGE {
            return Err(Failure::refused(format!(
                "a message of {} bytes is over the limit of {MAX_MESSAGE}",
                bytes.len()
            )));
        }
        task::write(&self.sync, &bytes).explain(|| "tell the daemon").map(drop).map_err(abandoned)
    }

    fn wait_for(&self, wanted: ToInit) -> Result<()> {
        let mut buffer = [0; 64];
        let (len, _) = socket::recv(self.sync.as_fd(), &mut buffer, Wait::Yes)
            .explain(|| "hear from the daemon")
            .map_err(abandoned)?;
        if len == 0 {
            return Err(abandoned(Failure::refused("the daemon went away before it said go")));
        }
        match sync::decode::<ToInit>(&buffer[..len]) {
            Ok(said) if said == wanted => Ok(()),
            other => Err(Failure::refused(format!("the daemon said {other:?} where {wanted:?} was due"))),
        }
    }
}

/// There is no daemon to wait for the start any more.
fn abandoned(failure: Failure) -> Failure {
    Failure { exit: sync::ABANDONED, ..failure }
}
