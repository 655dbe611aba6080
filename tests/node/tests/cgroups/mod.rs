//! Helpers of the cgroup tests: processes that join a group as berth-init does, and groups that end with their test.
#![allow(dead_code, reason = "each test program uses some of them")]

use berth_cgroups::{CgroupPath, Cgroups, Driver};
use berth_monitor_api::spec::CgroupJoin;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub const WAIT: Duration = Duration::from_secs(20);

/// A parent group of one test; nothing below it may be left at the end.
pub struct Parent {
    pub cgroups: Cgroups,
    pub name: String,
}

impl Parent {
    pub fn new() -> Self {
        let cgroups = Cgroups::probe(Driver::Cgroupfs).unwrap();
        Self { cgroups, name: berth_node_tests::unique("bcg") }
    }

    pub fn group(&self, id: &str) -> CgroupPath {
        self.cgroups.path(&format!("/{}/pod", self.name), "", id).unwrap()
    }

    /// Directories of this test in all hierarchies.
    pub fn left(&self) -> Vec<PathBuf> {
        roots().into_iter().map(|root| root.join(&self.name)).filter(|dir| dir.exists()).collect()
    }

    /// Kills and removes, and looks for what is left.
    pub fn end(&self, path: &CgroupPath) {
        self.cgroups.kill(path, WAIT).unwrap();
        block_on(self.cgroups.remove(path)).unwrap();
        assert_eq!(self.left(), Vec::<PathBuf>::new(), "removal left directories");
    }
}

impl Drop for Parent {
    /// After a failed test.
    fn drop(&mut self) {
        for dir in self.left() {
            let list = |dir: &Path| -> Vec<PathBuf> {
                let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
                entries.filter(|e| e.path().is_dir()).map(|e| e.path()).collect()
            };
            for pod in list(&dir) {
                for group in list(&pod) {
                    let _ = std::fs::write(group.join("cgroup.kill"), "1");
                    std::thread::sleep(Duration::from_millis(200));
                    let _ = std::fs::remove_dir(group);
                }
                let _ = std::fs::remove_dir(pod);
            }
            let _ = std::fs::remove_dir(dir);
        }
    }
}

/// Mount points of all hierarchies, found without the code under test.
pub fn roots() -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    let field = |line: &str, n: usize| line.split(' ').nth(n).unwrap_or_default().to_owned();
    let found: Vec<PathBuf> =
        mounts.lines().filter(|l| field(l, 2).starts_with("cgroup")).map(|l| field(l, 1).into()).collect();
    assert!(!found.is_empty(), "no cgroup hierarchy is mounted");
    found
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future)
}

/// A shell that waits for a line on its stdin, joins if it is to do so itself, and runs the script.
pub struct Shell(pub Child);

impl Shell {
    pub fn new(join: &CgroupJoin, script: &str) -> Self {
        let files = match join {
            CgroupJoin::Own { v2, v1_tasks } => {
                let procs = v2.iter().map(|dir| dir.join("cgroup.procs"));
                v1_tasks.iter().cloned().chain(procs).map(|p| p.display().to_string()).collect()
            }
            CgroupJoin::Moved => Vec::new(),
        };
        let joins: String = files.iter().map(|file| format!("echo 0 > {file} || exit 90\n")).collect();
        let script = format!("read -r _ || exit 91\n{joins}{script}");
        let mut command = Command::new("sh");
        command.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    /// Joins and runs at once.
    pub fn run(join: &CgroupJoin, script: &str) -> Self {
        let mut shell = Self::new(join, script);
        shell.go();
        shell
    }

    pub fn go(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    /// Waits for the end; exit status and all output.
    pub fn output(mut self) -> (std::process::ExitStatus, String) {
        let status = self.0.wait().unwrap();
        let mut text = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        self.0.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        (status, text)
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn until(what: &str, done: impl Fn() -> bool) {
    // The guest is slow where processes start one another.
    let patience = WAIT * 4;
    let deadline = Instant::now() + patience;
    while !done() {
        assert!(Instant::now() < deadline, "{what} did not happen within {patience:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Opens kmsg by a node of its own, and writes to /dev/null. Prints what the kernel says. In /dev, because other
/// directories may be mounted nodev, and a refusal would be that.
pub fn device_script() -> String {
    let node = format!("/dev/{}", berth_node_tests::unique("bcg"));
    format!(
        "mknod {node} c 1 11 && echo made; (: < {node}) 2>/dev/null && echo kmsg || echo refused; \
         echo x > /dev/null && echo null; rm -f {node}"
    )
}
