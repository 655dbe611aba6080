//! The daemon's process: a child, or one that an earlier supervisor has left.
//!
//! Owns: starting, watching and ending it. Must not: decide when.
use super::Options;
use super::log::Log;
use crate::layout::Layout;
use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::socket_peercred;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How often it is looked whether it has ended.
const PAUSE: Duration = Duration::from_millis(100);

/// How a daemon ended.
pub(super) struct Ended {
    /// In words.
    pub(super) how: String,
    /// As one that was asked to: a daemon ends by itself with another code.
    pub(super) well: bool,
}

/// One daemon.
pub(super) struct Daemon {
    pid: u32,
    process: OwnedFd,
    child: Option<Child>,
}

impl Daemon {
    /// Starts one.
    pub(super) fn start(layout: &Layout, options: &Options, log: &Log) -> Result<Self> {
        let program = match &options.program {
            Some(program) => program.clone(),
            None => std::env::current_exe().context("own program")?,
        };
        let mut command = Command::new(&program);
        if !layout.is_system() {
            command.arg("--root").arg(&layout.root);
        }
        command.arg("serve").args(&options.serve);
        let (out, err) = log.handles()?;
        command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0).current_dir("/");
        let child = command.spawn().with_context(|| program.display().to_string())?;
        let process = berth_sys::pidfd::open(child.id()).context("the daemon's process")?;
        Ok(Self { pid: child.id(), process, child: Some(child) })
    }

    /// The one that serves the node API's socket.
    pub(super) fn running(layout: &Layout) -> Option<Self> {
        let pid = server(layout)?;
        let process = berth_sys::pidfd::open(pid).ok()?;
        // Asked again: the descriptor may be somebody else's where that process has ended in between.
        (server(layout)? == pid).then_some(Self { pid, process, child: None })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// A signal by number; a process that has ended needs none.
    pub(super) fn signal(&self, number: i32) {
        let _ = berth_sys::pidfd::signal(self.process.as_fd(), number);
    }

    /// Waits for its end, and tells it.
    pub(super) async fn ended(&mut self) -> Ended {
        loop {
            match &mut self.child {
                Some(child) => {
                    if let Ok(Some(status)) = child.try_wait() {
                        return Ended { how: status.to_string(), well: status.success() };
                    }
                }
                None if has_ended(&self.process) => {
                    return Ended { how: "it was another process's child".to_owned(), well: false };
                }
                None => {}
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Asks it to end, and ends it by SIGKILL after `limit`.
    pub(super) async fn end(&mut self, number: i32, limit: Duration) {
        self.signal(number);
        let began = Instant::now();
        if tokio::time::timeout(limit, self.ended()).await.is_err() {
            self.signal(9);
            let _ = tokio::time::timeout(limit.saturating_sub(began.elapsed()) + PAUSE * 20, self.ended()).await;
        }
    }
}

/// The process that serves the node API's socket.
fn server(layout: &Layout) -> Option<u32> {
    let stream = UnixStream::connect(layout.node_socket()).ok()?;
    u32::try_from(socket_peercred(&stream).ok()?.pid.as_raw_nonzero().get()).ok()
}

/// Whether the process is over, also where nobody has reaped it: a pidfd can be read then (pidfd_open(2)).
pub(super) fn has_ended(process: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_that_was_asked_to_end_has_not_failed() {
        for (program, well) in [("true", true), ("false", false)] {
            let child = Command::new(program).spawn().unwrap();
            let process = berth_sys::pidfd::open(child.id()).unwrap();
            let ended = Daemon { pid: child.id(), process, child: Some(child) }.ended().await;
            assert_eq!(ended.well, well, "{}", ended.how);
        }
    }

    #[test]
    #[allow(clippy::zombie_processes, reason = "it is waited for at the end")]
    fn a_process_that_nobody_reaps_has_ended_all_the_same() {
        let mut child = Command::new("sleep").arg("0.3").spawn().unwrap();
        let process = berth_sys::pidfd::open(child.id()).unwrap();
        assert!(!has_ended(&process));
        std::thread::sleep(Duration::from_millis(900));
        assert!(berth_sys::pidfd::signal(process.as_fd(), 0).is_ok() && has_ended(&process));
        child.wait().unwrap();
    }
}
