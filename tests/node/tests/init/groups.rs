//! Control groups of a test's own.
use berth_monitor_api::spec::CgroupJoin;
use std::path::PathBuf;
use std::time::Duration;

/// A group of the test's own in every v1 hierarchy that the machine has, and in the v2 tree.
pub struct Groups(pub Vec<PathBuf>, pub Option<PathBuf>);

impl Groups {
    pub fn new(name: &str) -> Self {
        let name = format!("berth-init-{name}-{}", std::process::id());
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let (mut v1, mut v2) = (Vec::new(), None);
        for line in table.lines() {
            let (left, right) = line.split_once(" - ").unwrap();
            let dir = PathBuf::from(left.split(' ').nth(4).unwrap()).join(&name);
            match right.split(' ').next() {
                // A fresh cpuset has no cpus, and nobody can join it.
                Some("cgroup") if !right.contains("cpuset") => v1.push(dir),
                Some("cgroup2") => v2 = Some(dir),
                _ => continue,
            }
        }
        v1.iter().chain(&v2).for_each(|dir| std::fs::create_dir(dir).unwrap());
        assert!(!v1.is_empty() || v2.is_some(), "no cgroup tree on this machine");
        Self(v1, v2)
    }

    pub fn join(&self) -> CgroupJoin {
        CgroupJoin::Own { v2: self.1.clone(), v1_tasks: self.0.iter().map(|dir| dir.join("tasks")).collect() }
    }

    pub fn all(&self) -> impl Iterator<Item = &PathBuf> {
        self.0.iter().chain(&self.1)
    }

    pub fn pids(&self) -> Vec<String> {
        self.all().map(|dir| std::fs::read_to_string(dir.join("cgroup.procs")).unwrap()).collect()
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for dir in self.all() {
            let until = std::time::Instant::now() + Duration::from_secs(5);
            while let Err(e) = std::fs::remove_dir(dir) {
                assert!(std::time::Instant::now() < until || std::thread::panicking(), "{}: {e}", dir.display());
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}
