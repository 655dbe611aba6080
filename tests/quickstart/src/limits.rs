//! A container's limits as the kernel has them: through /proc/PID/cgroup to the files of its control groups, v1 and v2.
//! Must not: ask the daemon, whose word is to be checked.
use crate::Result;
use std::fs;
use std::path::PathBuf;

/// What is set for a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: u64,
    /// Thousandths of a CPU.
    pub cpu_millis: u64,
    /// Processes and threads.
    pub pids: u64,
    /// The files and what they say, for people.
    pub files: Vec<(PathBuf, String)>,
}

/// Reads them. Error: names the file that is missing or says something else than a limit.
pub fn of_process(pid: u32) -> Result<Limits> {
    let read = |path: PathBuf| fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()));
    let groups = read(format!("/proc/{pid}/cgroup").into())?;
    let mounts = read("/proc/self/mountinfo".into())?;
    let mut files = Vec::new();
    let mut file = |controller: &str, v1: &str, v2: &str| -> Result<String> {
        let (dir, unified) = directory(&groups, &mounts, controller)
            .ok_or_else(|| format!("process {pid}: no cgroup of {controller}"))?;
        let path = dir.join(if unified { v2 } else { v1 });
        let text = read(path.clone())?.trim().to_owned();
        files.push((path, text.clone()));
        Ok(text)
    };
    let memory = number(&file("memory", "memory.limit_in_bytes", "memory.max")?)?;
    let mut cpu = file("cpu", "cpu.cfs_quota_us", "cpu.max")?;
    if !cpu.contains(' ') {
        cpu = format!("{cpu} {}", file("cpu", "cpu.cfs_period_us", "cpu.max")?);
    }
    let pids = number(&file("pids", "pids.max", "pids.max")?)?;
    Ok(Limits { memory, cpu_millis: millis(&cpu)?, pids, files })
}

fn number(text: &str) -> Result<u64> {
    text.parse().map_err(|_| format!("{text:?} is no limit"))
}

/// `QUOTA PERIOD`, both in microseconds.
fn millis(text: &str) -> Result<u64> {
    let (quota, period) = text.split_once(' ').unwrap_or((text, ""));
    number(quota)?.checked_mul(1000).and_then(|q| q.checked_div(number(period).ok()?)).ok_or(format!("cpu: {text:?}"))
}

/// The directory of a controller's group, and whether that is v2's.
fn directory(groups: &str, mounts: &str, controller: &str) -> Option<(PathBuf, bool)> {
    let v1 = |line: &str| line.split(':').nth(1).is_some_and(|l| l.split(',').any(|c| c == controller));
    let unified = !groups.lines().any(v1);
    let line = groups.lines().find(|l| if unified { l.starts_with("0::") } else { v1(l) })?;
    let path = line.splitn(3, ':').nth(2)?;
    mounts.lines().find_map(|mount| {
        let (place, system) = mount.split_once(" - ")?;
        let (mut place, mut system) = (place.split(' ').skip(3), system.split(' '));
        let (root, point) = (place.next()?, place.next()?);
        let (kind, options) = (system.next()?, system.nth(1)?);
        let right =
            if unified { kind == "cgroup2" } else { kind == "cgroup" && options.split(',').any(|o| o == controller) };
        let below = if root == "/" { path } else { path.strip_prefix(root)? };
        right.then(|| (PathBuf::from(format!("{point}{below}")), unified))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
        1 0 0:1 / / rw - ext4 /dev/vda rw\n\
        30 25 0:27 / /sys/fs/cgroup/memory rw shared:3 - cgroup cgroup rw,memory\n\
        31 25 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
        32 25 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn directories_on_hybrid_and_v2() {
        let groups = "4:memory:/b/p\n2:cpu,cpuacct:/b/c\n0::/b/u\n";
        let dir = |groups, mounts, controller| directory(groups, mounts, controller);
        assert_eq!(dir(groups, HYBRID, "memory"), Some(("/sys/fs/cgroup/memory/b/p".into(), false)));
        assert_eq!(dir(groups, HYBRID, "cpu"), Some(("/sys/fs/cgroup/cpu/b/c".into(), false)));
        assert_eq!(dir(groups, HYBRID, "pids"), Some(("/sys/fs/cgroup/unified/b/u".into(), true)));
        let v2 = "30 25 0:27 /outer /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(dir("0::/outer/b\n", v2, "cpu"), Some(("/sys/fs/cgroup/b".into(), true)));
        assert_eq!(dir("", v2, "cpu"), None);
    }

    #[test]
    fn quotas_are_thousandths_and_no_limit_is_an_error() {
        assert_eq!(millis("50000 100000"), Ok(500));
        assert!(millis("max 100000").is_err());
        assert!(millis("-1 100000").is_err());
        assert!(millis("50000 0").is_err());
    }
}
