//! Processes of a group: listing, freezing, killing all of them.
use crate::files::{Group, is_gone};
use crate::view::View;
use crate::{CgroupPath, Cgroups};
use berth_model::{Error, ErrorKind, Result};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::time::{Duration, Instant};

/// How long one attempt to freeze may take: v1's freezer can stay FREEZING while processes fork.
const FREEZE_LIMIT: Duration = Duration::from_millis(500);
/// Killing is repeated at this distance while the group is not empty.
const KILL_AGAIN: Duration = Duration::from_millis(200);
const POLL: Duration = Duration::from_millis(1);
const POLL_MAX: Duration = Duration::from_millis(20);

impl Cgroups {
    /// Processes in the group and all below it. Errors: `NotFound`.
    pub fn pids(&self, path: &CgroupPath) -> Result<Vec<u32>> {
        Ok(pids(&self.view(path)?))
    }

    /// The group of the container (or pod) `name` in which the process is, if it is in one; for what no record tells of.
    pub fn group_named(&self, pid: u32, name: &str) -> Option<CgroupPath> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        text.lines().find_map(|line| crate::path::named(self.driver(), line.splitn(3, ':').nth(2)?, name))
    }

    /// Whether a process is in the group or below it. A group that is gone has none.
    pub fn is_populated(&self, path: &CgroupPath) -> Result<bool> {
        match self.view(path) {
            Ok(view) => Ok(populated(&view)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Kills every process in the group and below it, and waits until none is left. Blocks the thread. Fine for a group that
    /// is gone.
    ///
    /// Errors: `DeadlineExceeded` with the processes that are left after `wait` (they are in uninterruptible sleep).
    pub fn kill(&self, path: &CgroupPath, wait: Duration) -> Result<()> {
        let view = match self.view(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            result => result?,
        };
        let deadline = Instant::now() + wait;
        let mut pause = POLL;
        let mut again = Instant::now();
        loop {
            if Instant::now() >= again {
                kill_once(&view);
                again = Instant::now() + KILL_AGAIN;
            }
            if !populated(&view) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let left = pids(&view);
                return Err(Error::new(
                    ErrorKind::DeadlineExceeded,
                    format!("cgroup {path}: processes {left:?} are still there {wait:?} after SIGKILL"),
                ));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(POLL_MAX);
        }
    }

    /// Freezes (`true`) or thaws all processes of the group, and waits until they are frozen. Blocks the thread for half a
    /// second at most. Errors: `DeadlineExceeded`, then it is thawed again; `FailedPrecondition` without a freezer.
    pub fn freeze(&self, path: &CgroupPath, frozen: bool) -> Result<()> {
        let view = self.view(path)?;
        if freeze(&view, frozen) {
            return Ok(());
        }
        freeze(&view, false);
        let (kind, problem) = if view.v2.is_some() || view.group("freezer").is_some() {
            (ErrorKind::DeadlineExceeded, "could not be frozen in time")
        } else {
            (ErrorKind::FailedPrecondition, "cannot be frozen: no freezer controller is mounted")
        };
        Err(Error::new(kind, format!("cgroup {path} {problem}")))
    }
}

fn pids(view: &View) -> Vec<u32> {
    let Some(top) = view.any() else { return Vec::new() };
    let mut found: Vec<u32> = groups(top).iter().flat_map(|group| group.own_pids().unwrap_or_default()).collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn groups(top: &Group) -> Vec<Group> {
    top.again().map(Group::tree).unwrap_or_default()
}

fn populated(view: &View) -> bool {
    match view.v2.as_ref().map(|group| group.read("cgroup.events")) {
        Some(Ok(events)) => crate::usage::field(&events, "populated") == Some(1),
        Some(Err(e)) if is_gone(&e) => false,
        _ => !pids(view).is_empty(),
    }
}

fn kill_once(view: &View) {
    if view.v2.as_ref().is_some_and(|group| group.write("cgroup.kill", "1").is_ok()) {
        return;
    }
    // While they are frozen none can fork, and on v1 none can die and hand its number on. They die when thawed.
    freeze(view, true);
    let Some(top) = view.any() else { return };
    for group in groups(top) {
        for pid in group.own_pids().unwrap_or_default() {
            kill_member(&group, pid);
        }
    }
    freeze(view, false);
}

/// Kills a process if it is a member still after its descriptor is held, so never a later owner of its number.
fn kill_member(group: &Group, pid: u32) {
    let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    if let Ok(process) = pidfd_open(number, PidfdFlags::empty())
        && group.own_pids().is_ok_and(|pids| pids.contains(&pid))
    {
        // ESRCH: it has just died.
        let _ = pidfd_send_signal(&process, Signal::KILL);
    }
}

fn freeze(view: &View, frozen: bool) -> bool {
    if let Some(group) = &view.v2 {
        if group.write("cgroup.freeze", if frozen { "1" } else { "0" }).is_err() {
            return false;
        }
        let done = || {
            let events = group.read("cgroup.events").unwrap_or_default();
            crate::usage::field(&events, "frozen") == Some(frozen.into())
        };
        return wait_until(done);
    }
    let Some(group) = view.group("freezer") else { return false };
    let state = if frozen { "FROZEN" } else { "THAWED" };
    // The state has to be written again while it is FREEZING, to catch processes that were forked meanwhile.
    wait_until(|| {
        group.write("freezer.state", state).is_ok() && group.read("freezer.state").is_ok_and(|now| now.trim() == state)
    })
}

fn wait_until(done: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + FREEZE_LIMIT;
    while !done() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(POLL);
    }
    true
}
