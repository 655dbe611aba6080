//! Limits of the node, and how much of them is used.
use super::number;
use crate::doctor::facts::Limits;
use crate::node_files::{processes, text};
use std::os::unix::fs::MetadataExt;

pub(super) fn gather() -> Limits {
    let memory = text("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| {
        let line = memory.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|k| k.saturating_mul(1024))
    };
    Limits {
        threads: threads(),
        files: files(),
        inotify: number("/proc/sys/fs/inotify/max_user_instances").map(|limit| (inotify(), limit)),
        conntrack: number("/proc/sys/net/netfilter/nf_conntrack_count")
            .zip(number("/proc/sys/net/netfilter/nf_conntrack_max")),
        memory: field("MemAvailable").zip(field("MemTotal")),
        swap: field("SwapTotal"),
    }
}

/// Threads of the node (the second part of the fourth field of /proc/loadavg), and the smaller limit.
fn threads() -> Option<(u64, u64)> {
    let load = text("/proc/loadavg")?;
    let used = load.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()?;
    let limits = [number("/proc/sys/kernel/pid_max"), number("/proc/sys/kernel/threads-max")];
    Some((used, limits.into_iter().flatten().min()?))
}

/// Handles in use and fs.file-max, from fs.file-nr.
fn files() -> Option<(u64, u64)> {
    let text = text("/proc/sys/fs/file-nr")?;
    let mut fields = text.split_whitespace().map(|f| f.parse::<u64>().ok());
    let (used, _, limit) = (fields.next()??, fields.next()??, fields.next()??);
    Some((used, limit))
}

/// Inotify instances of root's processes. A descriptor that several processes share counts more than once.
fn inotify() -> u64 {
    let mut count = 0;
    for pid in processes() {
        let dir = format!("/proc/{pid}/fd");
        if !std::fs::metadata(&dir).is_ok_and(|m| m.uid() == 0) {
            continue;
        }
        for fd in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let target = std::fs::read_link(fd.path()).unwrap_or_default();
            count += u64::from(target.to_str() == Some("anon_inode:inotify"));
        }
    }
    count
}
