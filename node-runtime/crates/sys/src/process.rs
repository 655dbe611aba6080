//! What a supervising process sets for itself: session, subreaper, ignored signals, limits, inherited descriptors.
//!
//! Owns: one-line safe forms of these calls. Must not: start or stop other processes (`spawn`, `pidfd`).
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// From now on, descendants whose parent has ended become children of the caller (`PR_SET_CHILD_SUBREAPER`).
pub fn become_subreaper() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// Names the process in lists (`comm`), at most 15 bytes. A program that was executed from a memory file is named after that.
pub fn set_name(name: &std::ffi::CStr) {
    // The one error is a pointer that is not one.
    let _ = rustix::thread::set_name(name);
}

/// Starts a session; the caller may be a group's leader already, and then nothing changes.
pub fn start_session() {
    // The one error is EPERM for a group's leader, which has what it needs.
    let _ = rustix::process::setsid();
}

/// Ignores signals by number. Children inherit that, unless they are started by [`crate::spawn`].
pub fn ignore_signals(signals: &[i32]) -> io::Result<()> {
    for signal in signals {
        // SAFETY: SIG_IGN runs no code of ours.
        if unsafe { libc::signal(*signal, libc::SIG_IGN) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// A descriptor that can be read when a child has ended. It blocks SIGCHLD for the calling thread: call it in a process with
/// one thread, or before others are started.
#[derive(Debug)]
pub struct ChildSignal(OwnedFd);

impl ChildSignal {
    /// Blocks SIGCHLD and opens the descriptor, non-blocking and close-on-exec.
    pub fn new() -> io::Result<Self> {
        // SAFETY: an empty set is initialised by sigemptyset before anything reads it; the calls take valid pointers.
        let fd = unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, libc::SIGCHLD);
            let error = libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
            if error != 0 {
                return Err(io::Error::from_raw_os_error(error));
            }
            libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened, owned by nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Takes what is pending; the signal says nothing about how many children there are.
    pub fn clear(&self) {
        // One signalfd_siginfo; SIGCHLD is not queued more than once.
        let mut buffer = [0; size_of::<libc::signalfd_siginfo>()];
        while rustix::io::read(&self.0, &mut buffer).is_ok_and(|n| n > 0) {}
    }
}

impl AsFd for ChildSignal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Takes over an open descriptor that the process was started with, and makes it close-on-exec; `None` if it is not open. Call
/// it first of all: a number that the program itself has opened since must not be taken.
pub fn take_inherited(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: fcntl(2) on a number that is not open fails with EBADF and has no effect.
    if number <= 2 || unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return None;
    }
    // SAFETY: it is open, and by this function's contract nothing in this process owns it yet.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Closes every descriptor from `first` on. Call it before the program has opened any of its own.
pub fn close_inherited_from(first: RawFd) -> io::Result<()> {
    let first = first.max(3).cast_unsigned();
    // SAFETY: by this function's contract nothing in this process owns any of them.
    if unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Raises the soft limit of open files to the hard one. Returns both as they were, for children.
pub fn raise_nofile() -> io::Result<(u64, u64)> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: before.maximum, maximum: before.maximum })?;
    // In the kernel's own words "unlimited" is all ones.
    Ok((before.current.unwrap_or(u64::MAX), before.maximum.unwrap_or(u64::MAX)))
}

/// Sets the mask for modes of new files; returns the one before.
pub fn set_umask(mask: u32) -> u32 {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask)).as_raw_mode()
}

/// Effective user id.
pub fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}
