//! `clone3(2)`, used as a fork that can put the child into namespaces and a cgroup at once.
//!
//! Owns: the call. Must not: share memory with the child.
use crate::clone_args::{CLONE_CLEAR_SIGHAND, CLONE_INTO_CGROUP, CloneArgs, flag};
use crate::namespace::Kinds;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// How to clone.
#[derive(Debug, Default)]
pub struct Clone<'a> {
    /// Namespaces to make for the child.
    pub namespaces: Kinds,
    /// The child becomes a sibling: its parent is the caller's, which is told of its end as it would be of the caller's.
    pub sibling: bool,
    /// Directory of the cgroup v2 group that the child starts in (5.7).
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// On which side of the clone the code runs.
#[derive(Debug)]
pub enum Side {
    /// In the caller.
    Parent {
        /// The child's process id as the caller sees it.
        pid: u32,
        /// The child.
        pidfd: OwnedFd,
    },
    /// In the child.
    Child,
}

/// Clones the calling process. Signal handlers of the child are reset (`CLONE_CLEAR_SIGHAND`, 5.5).
///
/// # Safety
/// The process must have one thread: in the child, locks held by other threads would stay locked for ever.
pub unsafe fn clone(how: &Clone<'_>) -> io::Result<Side> {
    let mut pidfd: i32 = -1;
    let mut args = CloneArgs {
        flags: u64::from(how.namespaces.bits())
            | flag(libc::CLONE_PIDFD)
            | CLONE_CLEAR_SIGHAND
            | if how.sibling { flag(libc::CLONE_PARENT) } else { 0 },
        pidfd: (&raw mut pidfd).expose_provenance() as u64,
        // A sibling has its maker's exit signal (clone(2)).
        exit_signal: if how.sibling { 0 } else { flag(libc::SIGCHLD) },
        ..CloneArgs::default()
    };
    if let Some(cgroup) = how.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::try_from(cgroup.as_raw_fd()).unwrap_or_default();
    }
    let size = args.size();
    // SAFETY: `args` has the kernel's layout and at least the size that is given; `pidfd` outlives the call. Without CLONE_VM the
    // child runs on its own copy of this stack. The caller answers for threads.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size) };
    match pid {
        0 => Ok(Side::Child),
        pid if pid > 0 => {
            // SAFETY: the kernel stored a new descriptor there that nothing else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Side::Parent { pid: u32::try_from(pid).unwrap_or_default(), pidfd })
        }
        _ => Err(io::Error::last_os_error()),
    }
}
