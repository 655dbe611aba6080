//! A cgroup's count of processes that the OOM killer has ended: `oom_kill` in v2's `memory.events` and v1's
//! `memory.oom_control` (cgroup-v2.rst, cgroup-v1/memory.rst).
//!
//! Owns: the file and the latest count. Must not: decide whether a container was "OOM killed".
use std::fs::File;
use std::os::unix::fs::FileExt;

/// The counter. The latest value is remembered because a systemd scope goes away with its last process.
#[derive(Debug)]
pub struct OomCounter {
    /// The file.
    pub file: File,
    latest: u64,
}

impl OomCounter {
    /// Starts from what the file says now.
    pub fn new(file: File) -> Self {
        let mut counter = Self { file, latest: 0 };
        counter.refresh();
        counter
    }

    /// Reads the file; false if it cannot be read any more.
    pub fn refresh(&mut self) -> bool {
        let mut buffer = [0; 1024];
        match self.file.read_at(&mut buffer, 0) {
            Ok(n) => {
                self.latest = self.latest.max(parse(&buffer[..n]).unwrap_or(0));
                true
            }
            Err(_) => false,
        }
    }

    /// The count.
    pub fn latest(&self) -> u64 {
        self.latest
    }
}

fn parse(text: &[u8]) -> Option<u64> {
    let line = text.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(b"oom_kill "))?;
    std::str::from_utf8(line).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_read() {
        assert_eq!(parse(b"low 0\nhigh 3\nmax 9\noom 4\noom_kill 2\noom_group_kill 1\n"), Some(2));
        assert_eq!(parse(b"oom_kill_disable 0\nunder_oom 0\noom_kill 17\n"), Some(17));
        assert_eq!(parse(b"oom_kill_disable 0\n"), None);
        assert_eq!(parse(b"oom_kill x\n"), None);
    }
}
