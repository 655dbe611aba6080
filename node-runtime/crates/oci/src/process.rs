//! The daemon's own helper processes: monitors, and the streaming process.
//!
//! Owns: starting one and reaping it. Must not: know what it is for.
//!
//! Such a process is a plain child of the daemon, in a session and cgroup of its own. A task waits for its pidfd and reaps it, so it
//! never stays a zombie and its exit status is known; when the daemon ends, it becomes a child of the system's init, which reaps too.
//! A double fork would need a helper process and would tell less.
use berth_model::{Error, Result, ResultExt};
use berth_monitor_api::spec::CgroupJoin;
use berth_monitor_client::channel;
use berth_sys::pidfd::{self, Child, ExitStatus, Zombie};
use berth_sys::spawn::{self, Spawn};
use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;

const SIGKILL: i32 = 9;

/// A helper process, as its parent sees it.
#[derive(Debug, Clone)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Pidfd.
    pub pidfd: Arc<OwnedFd>,
    ended: watch::Receiver<Option<ExitStatus>>,
}

impl Process {
    /// Whether it has not been seen to end.
    pub fn lives(&self) -> bool {
        self.ended.borrow().is_none() && self.ended.has_changed().is_ok()
    }

    /// Kills it. One that has ended is no error.
    pub fn kill(&self) {
        let _ = pidfd::signal(self.pidfd.as_fd(), SIGKILL);
    }

    /// Resolves when the process has ended and is reaped; `None` if another part of the daemon has taken its status.
    pub async fn ended(&self) -> Option<ExitStatus> {
        let mut ended = self.ended.clone();
        ended.wait_for(Option::is_some).await.ok().and_then(|status| *status)
    }
}

/// What to start.
#[derive(Debug)]
pub struct Start<'a> {
    /// The program, open.
    pub program: BorrowedFd<'a>,
    /// Its arguments, the name first.
    pub args: &'a [&'a CStr],
    /// Descriptors and the numbers that it finds them at; no others are passed.
    pub fds: &'a [(BorrowedFd<'a>, RawFd)],
    /// Its cgroup: a leaf outside of the pods'.
    pub cgroup: &'a CgroupJoin,
}

impl Start<'_> {
    /// Starts it, inside a runtime, whose task reaps it. Blocks.
    pub fn spawn(&self) -> Result<Process> {
        let (directory, tasks) = open_cgroup(self.cgroup)?;
        let tasks: Vec<_> = tasks.iter().map(AsFd::as_fd).collect();
        let plan = Spawn {
            fds: self.fds,
            cgroup: directory.as_ref().map(AsFd::as_fd),
            tasks: &tasks,
            new_session: true,
            ..Spawn::new(self.program, self.args)
        };
        let spawned = spawn::spawn(&plan).map_err(|e| Error::from(e.error).context(e.step))?;
        let (told_end, ended) = watch::channel(None);
        let pidfd = Arc::new(spawned.pidfd);
        tokio::runtime::Handle::current().spawn(reap(Arc::clone(&pidfd), told_end));
        Ok(Process { pid: spawned.pid, pidfd, ended })
    }
}

fn open_cgroup(cgroup: &CgroupJoin) -> Result<(Option<File>, Vec<File>)> {
    let CgroupJoin::Own { v2, v1_tasks } = cgroup else {
        return Err(Error::internal("a helper process joins its cgroup by itself"));
    };
    let at = |path: &Path| format!("cgroup of a helper process: {}", path.display());
    let directory = v2.as_ref().map(|path| File::open(path).context(|| at(path))).transpose()?;
    let open = |path: &std::path::PathBuf| File::options().write(true).open(path).context(|| at(path));
    Ok((directory, v1_tasks.iter().map(open).collect::<Result<_>>()?))
}

/// Waits for a process and reaps it.
async fn reap(pidfd: Arc<OwnedFd>, ended: watch::Sender<Option<ExitStatus>>) {
    let Ok(watched) = pidfd.try_clone().and_then(channel::watch) else { return };
    loop {
        if watched.readable().await.is_err() {
            return;
        }
        match pidfd::try_wait(Child::Fd(pidfd.as_fd()), Zombie::Reap) {
            Ok(Some((_, status))) => {
                ended.send_replace(Some(status));
                return;
            }
            Ok(None) => tokio::task::yield_now().await,
            Err(_) => return,
        }
    }
}
