//! Processes by descriptor (pidfd_open(2), waitid(2)): a pidfd never means another process than the one it was opened for.
//!
//! Owns: opening, signalling, waiting. Must not: decide what an exit means.
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// It called exit with this code.
    Exited(i32),
    /// This signal ended it.
    Signaled(i32),
}

impl ExitStatus {
    /// The exit code as shells and the CRI count it: 128 + signal where a signal ended it.
    pub fn code(self) -> i32 {
        match self {
            Self::Exited(code) => code,
            Self::Signaled(signal) => 128 + signal,
        }
    }
}

/// Whom to wait for.
#[derive(Debug, Clone, Copy)]
pub enum Child<'a> {
    /// Any child, adopted ones included.
    Any,
    /// The child with this process id.
    Pid(u32),
    /// The child behind a pidfd.
    Fd(BorrowedFd<'a>),
}

/// What to do with the zombie that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zombie {
    /// Take its status and let it go.
    Reap,
    /// Look only (`WNOWAIT`).
    Keep,
}

/// Opens a pidfd, close-on-exec. `NotFound` if there is no such process.
pub fn open(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a process id"))?;
    match rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
        Err(rustix::io::Errno::SRCH) => Err(io::Error::new(io::ErrorKind::NotFound, "no such process")),
        other => Ok(other?),
    }
}

/// Sends a signal by number, real-time signals included; 0 only checks. `NotFound` if the process has been reaped.
pub fn signal(process: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let fd = process.as_raw_fd();
    // SAFETY: pidfd_send_signal(2) takes integers and, with a null siginfo, touches no memory of ours.
    let result =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, std::ptr::null::<libc::siginfo_t>(), 0) };
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ESRCH) {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the process has ended"));
    }
    Err(error)
}

/// Looks for a child that has ended, without waiting: its process id and status, or `None` if none has. An error with
/// `ECHILD` means that there is no such child of ours. Finds children whatever their exit signal is (`__WALL`).
pub fn try_wait(child: Child<'_>, zombie: Zombie) -> io::Result<Option<(u32, ExitStatus)>> {
    let (kind, id) = match child {
        Child::Any => (libc::P_ALL, 0),
        Child::Pid(pid) => (libc::P_PID, pid),
        Child::Fd(fd) => (libc::P_PIDFD, u32::try_from(fd.as_raw_fd()).unwrap_or(u32::MAX)),
    };
    let mut options = libc::WEXITED | libc::WNOHANG | libc::__WALL;
    if zombie == Zombie::Keep {
        options |= libc::WNOWAIT;
    }
    // SAFETY: siginfo_t is plain data for which all zeros is a value; waitid(2) writes into it and nowhere else.
    let (result, info) = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        (libc::waitid(kind, id, &mut info, options), info)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: waitid(2) filled in the SIGCHLD fields, or left them zero when nothing has ended.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    let Some(pid) = u32::try_from(pid).ok().filter(|pid| *pid != 0) else { return Ok(None) };
    let status =
        if info.si_code == libc::CLD_EXITED { ExitStatus::Exited(status) } else { ExitStatus::Signaled(status) };
    Ok(Some((pid, status)))
}

/// Whether the process behind a pidfd is an unreaped child of ours.
pub fn is_child(process: BorrowedFd<'_>) -> bool {
    try_wait(Child::Fd(process), Zombie::Keep).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    #[allow(clippy::zombie_processes, reason = "it is waited for by what is tested")]
    fn a_child_is_looked_at_and_then_reaped() {
        let mut command = std::process::Command::new("sh");
        let child = command.args(["-c", "kill -9 $$"]).spawn().unwrap();
        let fd = open(child.id()).unwrap();
        assert!(is_child(fd.as_fd()));
        let found = loop {
            if let Some(found) = try_wait(Child::Fd(fd.as_fd()), Zombie::Keep).unwrap() {
                break found;
            }
            std::thread::yield_now();
        };
        assert_eq!(found, (child.id(), ExitStatus::Signaled(9)));
        assert_eq!(found.1.code(), 137);
        assert_eq!(try_wait(Child::Pid(child.id()), Zombie::Reap).unwrap(), Some(found));
        assert_eq!(try_wait(Child::Fd(fd.as_fd()), Zombie::Reap).unwrap_err().raw_os_error(), Some(libc::ECHILD));
        assert_eq!(signal(fd.as_fd(), 0).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn strangers_are_not_children() {
        assert!(!is_child(open(std::process::id()).unwrap().as_fd()));
        assert_eq!(open(0x3fff_ffff).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(open(0).is_err());
    }
}
