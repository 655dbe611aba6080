//! The daemon's process: a child, or one that an earlier supervisor has left.
//!
//! Owns: starting, watching and ending it. Must not: decide when.
use super::Options;
use super::log::Log;
use crate::layout::Layout;
use anyhow::{Context, Result};
use rustix::net::sockopt::socket_peercred;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How often it is looked whether it has ended.
const PAUSE: Duration = Duration::from_millis(100);

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
        let stream = UnixStream::connect(layout.node_socket()).ok()?;
        let pid = u32::try_from(socket_peercred(&stream).ok()?.pid.as_raw_nonzero().get()).ok()?;
        Some(Self { pid, process: berth_sys::pidfd::open(pid).ok()?, child: None })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// A signal by number; a process that has ended needs none.
    pub(super) fn signal(&self, number: i32) {
        let _ = berth_sys::pidfd::signal(self.process.as_fd(), number);
    }

    /// Waits for its end, and tells it.
    pub(super) async fn ended(&mut self) -> String {
        loop {
            match &mut self.child {
                Some(child) => {
                    if let Ok(Some(status)) = child.try_wait() {
                        return status.to_string();
                    }
                }
                None if berth_sys::pidfd::signal(self.process.as_fd(), 0).is_err() => {
                    return "it was another process's child".to_owned();
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
