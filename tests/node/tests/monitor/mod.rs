//! A real monitor with a fixture as init, and what its tests ask of it.
#![allow(dead_code)] // Each test file uses a part.

use berth_model::PodId;
use berth_monitor_api::frame::{Exit, Task, TaskKind};
use berth_monitor_api::spec::{CgroupJoin, ExecSpec, InitSpec, Process, TerminalSize};
use berth_oci::monitor::{Event, LaunchOptions, Launcher, Monitor, MonitorProcess, SpawnRequest, Start, TaskStdio};
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedReceiver;

pub const SIGTERM: i32 = 15;
pub const SIGKILL: i32 = 9;

/// A pod's monitor. However a test ends, nothing of it is left.
pub struct Pod {
    pub id: PodId,
    pub dir: tempfile::TempDir,
    pub launcher: Launcher,
    pub monitor: Monitor,
    pub process: MonitorProcess,
    pub exits: UnboundedReceiver<(String, Exit)>,
}

pub fn launcher() -> Launcher {
    let fixture = Path::new(env!("CARGO_BIN_EXE_fixture_init"));
    Launcher::load(&berth_node_tests::programs().join("berth-monitor"), fixture).unwrap()
}

pub fn options() -> LaunchOptions {
    LaunchOptions { cgroup: CgroupJoin::Own { v2: None, v1_tasks: Vec::new() } }
}

pub fn pod_id() -> PodId {
    static COUNT: AtomicU8 = AtomicU8::new(0);
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&std::process::id().to_le_bytes());
    bytes[4] = COUNT.fetch_add(1, Ordering::Relaxed);
    PodId::from_random(bytes)
}

impl Pod {
    pub async fn start() -> Self {
        Self::with(launcher()).await
    }

    pub async fn with(launcher: Launcher) -> Self {
        let (id, dir) = (pod_id(), tempfile::tempdir().unwrap());
        let (monitor, process) = launcher.launch(&id, dir.path(), &options()).await.unwrap();
        let exits = monitor.exits();
        Self { id, dir, launcher, monitor, process, exits }
    }

    pub fn request<'a>(&'a self, id: &'a str, spec: &'a InitSpec) -> SpawnRequest<'a> {
        SpawnRequest {
            init: self.launcher.init(),
            id,
            kind: TaskKind::Exec,
            stdio: TaskStdio::Null,
            join: None,
            log: None,
            oom: None,
            kill: None,
            spec,
        }
    }

    /// Runs a shell script whose output goes to a log file.
    pub async fn run_logged(&self, id: &str, script: &str, log: &File) {
        let spec = shell(script);
        let stdio = TaskStdio::Log { stdin: false };
        let request = SpawnRequest { stdio, log: Some(log.as_fd()), ..self.request(id, &spec) };
        go(&mut self.monitor.spawn(request).await.unwrap()).await;
    }

    /// Runs a shell script without streams.
    pub async fn run(&self, id: &str, script: &str) -> u32 {
        let spec = shell(script);
        go(&mut self.monitor.spawn(self.request(id, &spec)).await.unwrap()).await
    }

    /// The next exit, which must be that of `id`.
    pub async fn exit_of(&mut self, id: &str) -> Exit {
        let (ended, exit) = next_exit(&mut self.exits).await;
        assert_eq!(ended, id);
        exit
    }

    pub async fn task(&self, id: &str) -> Task {
        let tasks = self.monitor.list().await.unwrap();
        tasks.into_iter().find(|task| task.id == id).unwrap_or_else(|| panic!("no task {id}"))
    }

    /// Ends the monitor the regular way and asserts that nothing of it is left.
    pub async fn end(mut self) {
        for task in self.monitor.list().await.unwrap().into_iter().filter(|task| task.exit.is_none()) {
            self.monitor.signal(&task.id, SIGKILL).await.unwrap();
            self.exit_of(&task.id).await;
        }
        self.monitor.shutdown().await.unwrap();
        let status = self.process.ended().await;
        assert_eq!(status, Some(berth_sys::pidfd::ExitStatus::Exited(0)));
        assert!(!Path::new(&format!("/proc/{}", self.process.pid)).exists());
        assert!(!self.dir.path().join(berth_monitor_api::SOCKET).exists());
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // After a regular end there is no process, and this finds none.
        for child in children(self.process.pid) {
            if let Ok(child) = berth_sys::pidfd::open(child) {
                let _ = berth_sys::pidfd::signal(child.as_fd(), SIGKILL);
            }
        }
        let _ = berth_sys::pidfd::signal(self.process.pidfd.as_fd(), SIGKILL);
    }
}

pub async fn next_exit(exits: &mut UnboundedReceiver<(String, Exit)>) -> (String, Exit) {
    tokio::time::timeout(Duration::from_secs(30), exits.recv()).await.expect("no exit within 30 s").expect("closed")
}

/// Drives a start to its end; the child's process id.
pub async fn go(start: &mut Start) -> u32 {
    let Event::Ready { pid, .. } = start.next().await.unwrap() else { panic!("not ready") };
    start.go().await.unwrap();
    assert_eq!(start.next().await.unwrap(), Event::Started);
    pid
}

pub fn shell(script: &str) -> InitSpec {
    program(&["sh", "-c", script], &[])
}

/// A spec for the fixture: its program and the words that it reads its mood from.
pub fn program(args: &[&str], env: &[&str]) -> InitSpec {
    exec(Process {
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: env.iter().map(|entry| entry.as_bytes().to_vec()).collect(),
        ..Process::default()
    })
}

pub fn on_terminal(script: &str, rows: u16, cols: u16) -> InitSpec {
    let args = ["sh", "-c", script].map(str::to_owned).to_vec();
    exec(Process { args, terminal: Some(TerminalSize { rows, cols }), ..Process::default() })
}

fn exec(process: Process) -> InitSpec {
    InitSpec::Exec(Box::new(ExecSpec { process, cgroup: CgroupJoin::Moved, user_namespace: false }))
}

/// Direct children of a process, from the kernel.
pub fn children(pid: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// The state letter of a process; `None` if there is none.
pub fn state(pid: u32) -> Option<char> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(") ")?.1.chars().next()
}

/// Waits until something is so, at most 10 s.
pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < Duration::from_secs(10), "still not so after 10 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A log file as the daemon opens it.
pub fn log_file(path: &Path) -> File {
    File::options().append(true).create(true).open(path).unwrap()
}

/// A record of a log.
#[derive(Debug, PartialEq, Eq)]
pub struct Record {
    pub time: String,
    pub stream: String,
    pub full: bool,
    pub content: Vec<u8>,
}

/// Reads a log, strictly.
pub fn records(path: &Path) -> Vec<Record> {
    let bytes = std::fs::read(path).unwrap();
    assert!(bytes.is_empty() || bytes.ends_with(b"\n"), "{} ends inside a record", path.display());
    let lines = bytes.split_inclusive(|b| *b == b'\n').map(|line| &line[..line.len() - 1]);
    lines
        .map(|line| {
            let mut words = line.splitn(4, |b| *b == b' ');
            let mut text = || String::from_utf8(words.next().unwrap().to_vec()).unwrap();
            let (time, stream, tag) = (text(), text(), text());
            assert!(time.len() == 30 && time.ends_with('Z'), "{time}");
            assert!(matches!(stream.as_str(), "stdout" | "stderr"), "{stream}");
            assert!(matches!(tag.as_str(), "P" | "F"), "{tag}");
            Record { time, stream, full: tag == "F", content: words.next().unwrap().to_vec() }
        })
        .collect()
}

/// What a stream has said according to its log.
pub fn said(records: &[Record], stream: &str) -> Vec<u8> {
    let mut all = Vec::new();
    for record in records.iter().filter(|record| record.stream == stream) {
        all.extend_from_slice(&record.content);
        if record.full {
            all.push(b'\n');
        }
    }
    all
}

pub fn path_of(pod: &Pod, name: &str) -> PathBuf {
    pod.dir.path().join(name)
}
