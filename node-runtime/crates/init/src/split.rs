//! The moment at which the task's process comes into being.
//!
//! Owns: the clone, the hand-over to the monitor, and their order. Must not: do set-up.
use crate::failure::{Explain, Failure, Result};
use crate::talk::Talk;
use berth_monitor_api::child::ChildMessage;
use berth_sys::clone::{Clone, Side, clone};
use berth_sys::task;
use std::io;
use std::os::fd::AsFd;

/// Which process returned.
pub enum Split {
    /// Init: the child is the monitor's now, and nothing is left to do.
    Init,
    /// The task's process.
    Task(Task),
}

/// The task's process, as it knows itself.
pub struct Task {
    /// Its id in the monitor's PID namespace.
    pub pid: u32,
    /// It began in its v2 group (`CLONE_INTO_CGROUP`), so it need not join: a write to `cgroup.procs` waits for an RCU grace
    /// period, some 10 ms.
    pub placed: bool,
}

/// Clones the task's process as a child of the monitor. It runs on only after the monitor has its pidfd, so the monitor never
/// meets an end whose beginning it does not know; if init dies before that, it ends.
pub fn split(talk: &Talk, how: &Clone<'_>) -> Result<Split> {
    let (wait, tell) = task::pipe().explain(|| "make a pipe")?;
    // SAFETY: this program never starts a thread.
    let (side, placed) = unsafe { fall_back(how) }.map_err(explain_clone)?;
    match side {
        Side::Parent { pid, pidfd } => {
            drop(wait);
            talk.tell_monitor(ChildMessage::Child { pid }, pidfd.as_fd())?;
            task::write(&tell, &pid.to_ne_bytes()).explain(|| "release the child")?;
            Ok(Split::Init)
        }
        Side::Child => {
            drop(tell);
            let mut pid = [0; 4];
            match task::read(&wait, &mut pid) {
                Ok(4) => Ok(Split::Task(Task { pid: u32::from_ne_bytes(pid), placed })),
                // Init has told why, or was killed.
                _ => task::exit_now(1),
            }
        }
    }
}

/// `CLONE_INTO_CGROUP` is refused for threaded groups and for groups of another namespace's tree (and by sandboxes that forbid clone3
/// in that form); then the child joins by itself, and says why if it cannot. Also tells whether the child began in the group.
///
/// # Safety
/// As [`clone`].
unsafe fn fall_back(how: &Clone<'_>) -> io::Result<(Side, bool)> {
    // SAFETY: the caller's promise.
    match unsafe { clone(how) } {
        Err(_) if how.cgroup.is_some() => {
            let plain = Clone { cgroup: None, ..*how };
            // SAFETY: the caller's promise.
            unsafe { clone(&plain) }.map(|side| (side, false))
        }
        other => other.map(|side| (side, how.cgroup.is_some())),
    }
}

fn explain_clone(error: io::Error) -> Failure {
    let errno = error.raw_os_error().unwrap_or(0);
    // A PID namespace whose PID 1 is dead takes no new process: ENOMEM (kernel/pid.c, alloc_pid).
    let hint = if error.kind() == io::ErrorKind::OutOfMemory { "; the container's PID 1 may have ended" } else { "" };
    Failure { errno, detail: format!("clone: {error}{hint}"), exit: 1 }
}
