//! Processes by their numbers: whether one is a pod's monitor, and the tree below a command. Facts: proc_pid_stat(5).
use berth_model::{Error, PodId, Result, ResultExt};
use std::collections::HashSet;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A tree that forks while it is killed is walked again, so often at the most.
const ROUNDS: usize = 20;
const SIGKILL: i32 = 9;
/// How long a killed monitor may take to go.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// Whether the process is the living monitor of this pod: it was started with the pod's id on its command line.
pub fn is_monitor_of(pid: u32, pod: &PodId) -> bool {
    let Ok(line) = std::fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let arguments: Vec<&[u8]> = line.split(|b| *b == 0).collect();
    arguments.first().is_some_and(|program| program.ends_with(b"berth-monitor"))
        && arguments.iter().any(|a| *a == pod.as_str().as_bytes())
}

/// A living monitor.
#[derive(Debug)]
pub struct MonitorProcess {
    base: PathBuf,
    pid: u32,
    /// Its pod, as its command line has it.
    pub pod: String,
}

/// The living monitors whose pods' directories lie in `base`. Errors: when /proc cannot be read.
pub fn monitors(base: &Path) -> Result<Vec<MonitorProcess>> {
    let pids = all()?.into_iter();
    let monitor = |pid| Some(MonitorProcess { base: base.to_owned(), pid, pod: pod_of_monitor(pid, base)? });
    Ok(pids.filter_map(monitor).collect())
}

impl MonitorProcess {
    /// The processes that it supervises, as far as they descend: what double-forks in a pod becomes its child.
    pub fn tree(&self) -> Vec<u32> {
        let pids = self.candidates().unwrap_or_default();
        members(self.pid, &pids, stat_of)
    }

    /// Kills them. Errors: as [`kill_tree`].
    pub fn kill_tree(&self) -> Result<()> {
        kill_tree(self.pid, || self.candidates())
    }

    /// All processes; none when this one has ended, so that nobody who got its number is taken for it.
    fn candidates(&self) -> Result<Vec<u32>> {
        let pids = all()?;
        let lives = pod_of_monitor(self.pid, &self.base).is_some_and(|pod| pod == self.pod);
        Ok(if lives { pids } else { Vec::new() })
    }
}

/// The numbers of all processes. Errors: when /proc cannot be read.
pub fn all() -> Result<Vec<u32>> {
    let entries = std::fs::read_dir("/proc").context(|| "/proc")?.flatten();
    Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

fn stat_of(pid: u32) -> Option<Stat> {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).ok().and_then(|text| parse_stat(&text))
}

/// Kills the monitors whose pods' directories lie in `base` and whose pods are `meant`, and waits until they have gone. For
/// those that no connection leads to: their daemon was killed before it knew them, or they are stopped. Returns how many.
/// Errors: `Internal` when one does not go.
pub fn kill_monitors(base: &Path, meant: impl Fn(&str) -> bool) -> Result<usize> {
    let mut killed = 0;
    for pid in all()? {
        // The descriptor first: what is read afterwards is said of this process, or it has gone.
        let Ok(process) = berth_sys::pidfd::open(pid) else { continue };
        if pod_of_monitor(pid, base).is_some_and(|pod| meant(&pod)) {
            let _ = berth_sys::pidfd::signal(process.as_fd(), SIGKILL);
            wait_until_gone(pid, base)?;
            killed += 1;
        }
    }
    Ok(killed)
}

fn wait_until_gone(pid: u32, base: &Path) -> Result<()> {
    let deadline = Instant::now() + KILL_LIMIT;
    // A zombie has no command line any more.
    while pod_of_monitor(pid, base).is_some() {
        if Instant::now() >= deadline {
            let problem = format!("monitor {pid} does not end {} s after SIGKILL", KILL_LIMIT.as_secs());
            return Err(Error::internal(problem));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// The pod of a monitor, by its command line: `berth-monitor --pod POD --dir BASE/POD`.
fn pod_of_monitor(pid: u32, base: &Path) -> Option<String> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let arguments: Vec<&[u8]> = line.split(|b| *b == 0).collect();
    let [program, _, pod, _, dir, ..] = &arguments[..] else { return None };
    let pod = std::str::from_utf8(pod).ok()?;
    let ours = program.ends_with(b"berth-monitor") && *dir == base.join(pod).as_os_str().as_bytes();
    ours.then(|| pod.to_owned())
}

/// Whether the process has ended; one that nobody has waited for yet has, too.
pub fn is_dead(pid: u32) -> bool {
    let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    // The name before it may hold anything.
    let state = text.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().next());
    matches!(state, Some("Z" | "X") | None)
}

/// Parent and session of a process.
struct Stat {
    parent: u32,
    session: u32,
}

/// `pid (comm) state ppid pgrp session ...`; the name may hold anything, also parentheses.
fn parse_stat(text: &str) -> Option<Stat> {
    let mut fields = text.rsplit_once(')')?.1.split_whitespace().skip(1);
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    Some(Stat { parent, session })
}

/// Kills every process of `candidates` that descends from `root` or is in its session; `root` itself stays. `candidates` is
/// asked again until nothing of the tree is left: what double-forks keeps its session, what makes a session keeps its parent.
pub fn kill_tree(root: u32, candidates: impl Fn() -> Result<Vec<u32>>) -> Result<()> {
    for _ in 0..ROUNDS {
        let pids = candidates()?;
        let tree = members(root, &pids, stat_of);
        if tree.is_empty() {
            return Ok(());
        }
        for pid in tree {
            if let Ok(process) = berth_sys::pidfd::open(pid) {
                // Gone in between is what we want.
                let _ = berth_sys::pidfd::signal(process.as_fd(), SIGKILL);
            }
        }
    }
    Ok(())
}

fn members(root: u32, pids: &[u32], stat: impl Fn(u32) -> Option<Stat>) -> Vec<u32> {
    let stats: Vec<(u32, Stat)> = pids.iter().filter_map(|pid| Some((*pid, stat(*pid)?))).collect();
    let mut tree = HashSet::from([root]);
    loop {
        let more: Vec<u32> = stats
            .iter()
            .filter(|(pid, s)| !tree.contains(pid) && (s.session == root || tree.contains(&s.parent)))
            .map(|(pid, _)| *pid)
            .collect();
        if more.is_empty() {
            break;
        }
        tree.extend(more);
    }
    tree.into_iter().filter(|pid| *pid != root).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_does_not_move_the_fields() {
        let stat = parse_stat("42 (a) S 1 (b)) S 7 42 9 0 -1").unwrap();
        assert_eq!((stat.parent, stat.session), (7, 9));
        assert!(parse_stat("42 (x").is_none());
    }

    #[test]
    fn a_zombie_is_dead() {
        assert!(!is_dead(std::process::id()));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        while !is_dead(child.id()) {
            std::thread::yield_now();
        }
        assert!(Path::new(&format!("/proc/{}", child.id())).exists(), "it has not been waited for");
        child.wait().unwrap();
        assert!(is_dead(child.id()));
    }

    #[test]
    fn descendants_and_the_session_belong_to_the_tree() {
        // 10 is the command, 11 its child, 12 a grandchild with a session of its own, 13 double-forked, 20 somebody else.
        let table = [(11, 10, 10), (12, 11, 12), (13, 1, 10), (20, 1, 20)];
        let stat = |pid| table.iter().find(|t| t.0 == pid).map(|t| Stat { parent: t.1, session: t.2 });
        let mut tree = members(10, &[10, 11, 12, 13, 20], stat);
        tree.sort_unstable();
        assert_eq!(tree, [11, 12, 13]);
    }
}
