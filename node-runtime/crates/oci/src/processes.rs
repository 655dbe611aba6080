//! Processes by their numbers: whether one is a pod's monitor, and the tree below a command. Facts: proc_pid_stat(5).
use berth_model::{PodId, Result};
use std::collections::HashSet;

/// A tree that forks while it is killed is walked again, so often at the most.
const ROUNDS: usize = 20;
const SIGKILL: i32 = 9;

/// Whether the process is the living monitor of this pod: it was started with the pod's id on its command line.
pub fn is_monitor_of(pid: u32, pod: &PodId) -> bool {
    let Ok(line) = std::fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let arguments: Vec<&[u8]> = line.split(|b| *b == 0).collect();
    arguments.first().is_some_and(|program| program.ends_with(b"berth-monitor"))
        && arguments.iter().any(|a| *a == pod.as_str().as_bytes())
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
        let tree = members(root, &pids, |pid| {
            std::fs::read_to_string(format!("/proc/{pid}/stat")).ok().and_then(|text| parse_stat(&text))
        });
        if tree.is_empty() {
            return Ok(());
        }
        for pid in tree {
            if let Ok(process) = berth_sys::pidfd::open(pid) {
                use std::os::fd::AsFd;
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
    fn descendants_and_the_session_belong_to_the_tree() {
        // 10 is the command, 11 its child, 12 a grandchild with a session of its own, 13 double-forked, 20 somebody else.
        let table = [(11, 10, 10), (12, 11, 12), (13, 1, 10), (20, 1, 20)];
        let stat = |pid| table.iter().find(|t| t.0 == pid).map(|t| Stat { parent: t.1, session: t.2 });
        let mut tree = members(10, &[10, 11, 12, 13, 20], stat);
        tree.sort_unstable();
        assert_eq!(tree, [11, 12, 13]);
    }
}
