//! What the processes of a group hold open: descriptors, sockets, and how many the first one may (proc_pid_fd(5),
//! proc_pid_limits(5)).
//!
//! Owns: reading those files. Must not: fail when a process ends meanwhile.
use std::path::Path;

/// Descriptors that are looked at for one group. A group with more of them is not measured: looking at a million takes a second
/// of a processor at every scrape.
const MAX_DESCRIPTORS: usize = 100_000;

/// Processes of a group and what they hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProcessUsage {
    /// Processes.
    pub count: u64,
    /// Descriptors that they hold open; `None` for more than 100 000.
    pub descriptors: Option<u64>,
    /// Sockets among them.
    pub sockets: Option<u64>,
    /// Descriptors that the first process may hold open; `None` for no limit.
    pub descriptor_limit: Option<u64>,
}

/// Reads what these processes hold. `first` is the one whose limit counts.
pub fn process_usage(pids: &[u32], first: Option<u32>) -> ProcessUsage {
    let mut left = MAX_DESCRIPTORS;
    let held = pids.iter().try_fold((0, 0), |(all, sockets), pid| {
        let (more, more_sockets) = held_by(Path::new(&format!("/proc/{pid}/fd")), &mut left)?;
        Some((all + more, sockets + more_sockets))
    });
    ProcessUsage {
        count: u64::try_from(pids.len()).unwrap_or(u64::MAX),
        descriptors: held.map(|(all, _)| all),
        sockets: held.map(|(_, sockets)| sockets),
        descriptor_limit: first
            .and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/limits")).ok())
            .and_then(|text| open_files(&text)),
    }
}

/// Descriptors and sockets in a directory of descriptors; `None` when there are more than `left`. A process that has ended has
/// none.
fn held_by(directory: &Path, left: &mut usize) -> Option<(u64, u64)> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Some((0, 0)) };
    let (mut all, mut sockets) = (0, 0);
    for entry in entries.flatten() {
        *left = left.checked_sub(1)?;
        all += 1;
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        sockets += u64::from(target.to_string_lossy().starts_with("socket:"));
    }
    Some((all, sockets))
}

/// The soft limit in the line `Max open files  SOFT  HARD  files`.
fn open_files(limits: &str) -> Option<u64> {
    let values = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    values.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_and_sockets_of_this_process_are_counted() {
        let pid = std::process::id();
        let _pair = std::os::unix::net::UnixStream::pair().unwrap();
        let usage = process_usage(&[pid, u32::MAX], Some(pid));
        assert_eq!(usage.count, 2);
        assert!(usage.sockets.unwrap() >= 2 && usage.descriptors.unwrap() >= usage.sockets.unwrap() + 3, "{usage:?}");
        assert!(usage.descriptor_limit.is_some());
    }

    #[test]
    fn too_many_are_not_counted() {
        let directory = tempfile::tempdir().unwrap();
        for n in 0..3 {
            std::fs::write(directory.path().join(n.to_string()), "").unwrap();
        }
        assert_eq!(held_by(directory.path(), &mut 3), Some((3, 0)));
        assert_eq!(held_by(directory.path(), &mut 2), None);
    }

    #[test]
    fn limits_are_read() {
        let text = "Limit   Soft Limit  Hard Limit  Units\nMax open files            1024                 524288               files\n";
        assert_eq!(open_files(text), Some(1024));
        assert_eq!(open_files("Max open files            unlimited            unlimited            files\n"), None);
    }
}
