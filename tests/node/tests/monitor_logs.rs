//! The monitor writes logs: format, rotation, full disks, terminals, speed.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // A test may fail at any line.

use crate::monitor::*;
use berth_oci::monitor::{SpawnRequest, TaskStdio};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn both_streams_long_lines_and_an_unfinished_end() {
    let mut pod = Pod::start().await;
    let path = path_of(&pod, "log");
    let script = "printf 'one\\n'; sleep 0.05; printf 'err\\n' >&2; sleep 0.05; \
        head -c 40000 /dev/zero | tr '\\0' x; echo; printf 'two\\nno newline'";
    pod.run_logged("task", script, &log_file(&path)).await;
    pod.exit_of("task").await;
    let records = records(&path);
    let long = vec![b'x'; 16 * 1024];
    let found: Vec<_> = records.iter().map(|r| (r.stream.as_str(), r.full, r.content.clone())).collect();
    let expected = [
        ("stdout", true, b"one".to_vec()),
        ("stderr", true, b"err".to_vec()),
        ("stdout", false, long.clone()),
        ("stdout", false, long),
        ("stdout", true, vec![b'x'; 40_000 - 2 * 16 * 1024]),
        ("stdout", true, b"two".to_vec()),
        ("stdout", true, b"no newline".to_vec()),
    ];
    assert_eq!(found, expected);
    assert!(records.is_sorted_by_key(|r| r.time.clone()), "time goes backwards");
    let now = Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M"]).output().unwrap();
    let minute = String::from_utf8(now.stdout).unwrap();
    // The minute may have changed since; the hour of a test that just ran has not, but at its very end.
    assert_eq!(records[0].time[..10], minute[..10], "{}", records[0].time);
    pod.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_under_load_loses_and_doubles_nothing() {
    let mut pod = Pod::start().await;
    let name = |n: usize| path_of(&pod, &format!("log.{n}"));
    pod.run_logged("task", "exec seq 1 300000", &log_file(&name(0))).await;
    let mut files = 1;
    while pod.exits.is_empty() {
        let next = log_file(&name(files));
        match pod.monitor.reopen_log("task", next.as_fd()).await {
            Ok(()) => files += 1,
            // It has ended in this moment.
            Err(e) => assert!(e.message().contains("has ended"), "{e}"),
        }
    }
    let records: Vec<_> = (0..files).flat_map(|n| records(&name(n))).collect();
    let expected: Vec<u8> = (1..=300_000).flat_map(|n| format!("{n}\n").into_bytes()).collect();
    assert!(said(&records, "stdout") == expected, "the lines in {files} files are not those that were written");
    assert!(files > 3, "only {files} files: no rotation under load");
    println!("{files} files");
    assert_eq!(pod.exit_of("task").await.code, 0);
    pod.end().await;
}

/// A small tmpfs, unmounted however the test ends.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new(size: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let disk = Self(dir);
        disk.mount(&format!("size={size}"), &["-t", "tmpfs", "berth-test"]);
        disk
    }

    fn mount(&self, options: &str, args: &[&str]) {
        let status = Command::new("mount").args(args).args(["-o", options]).arg(self.0.path()).status().unwrap();
        assert!(status.success(), "mount needs root");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let status = Command::new("umount").arg(self.0.path()).status().unwrap();
        assert!(status.success(), "{} is still mounted", self.0.path().display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_blocks_nobody_and_leaves_whole_records() {
    let mut pod = Pod::start().await;
    let disk = Disk::new("64k");
    let path = disk.0.path().join("log");
    let log = log_file(&path);
    let spec = shell("seq 1 100000; echo all said >&2; read line; echo \"heard $line\"");
    let stdio = TaskStdio::Log { stdin: true };
    let request = SpawnRequest { stdio, log: Some(log.as_fd()), ..pod.request("task", &spec) };
    go(&mut pod.monitor.spawn(request).await.unwrap()).await;
    drop(log);
    // It has written a megabyte to 64 KiB and goes on to wait for its stdin.
    let reading = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/wchan")).is_ok_and(|w| w.contains("pipe"));
    let pid = pod.task("task").await.pid;
    until("the task waits for its stdin", || children(pid).is_empty() && reading(pid));
    until("the monitor has read all", || std::fs::read(&path).unwrap().len() > 60_000);
    disk.mount("remount,size=10m", &[]);
    let mut fds = pod.monitor.attach("task").await.unwrap();
    File::from(fds.remove(0)).write_all(b"you\n").unwrap();
    drop(fds);
    assert_eq!(pod.exit_of("task").await.code, 0);

    let records = records(&path);
    let text: Vec<_> = records.iter().map(|r| String::from_utf8(r.content.clone()).unwrap()).collect();
    let marker = text.iter().position(|line| line.starts_with("berth: ")).expect("no marker line");
    let dropped = pod.task("task").await.log_dropped;
    assert!(
        text[marker].starts_with(&format!("berth: {dropped} bytes of this log were lost: No space left")),
        "{text:?}"
    );
    let kept: Vec<_> = (1..=marker).map(|n| n.to_string()).collect();
    assert_eq!(text[..marker], kept[..], "before the marker the lines are those that were written, in order");
    assert_eq!(text[marker + 1..], ["heard you"]);
    assert!(dropped > 1_000_000, "{dropped}");
    pod.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_background_child_holds_open_does_not_hold_the_exit() {
    let mut pod = Pod::start().await;
    let path = path_of(&pod, "log");
    let start = Instant::now();
    pod.run_logged("silent", "echo done; sleep 20 & exit 3", &log_file(&path)).await;
    assert_eq!(pod.exit_of("silent").await.code, 3);
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    assert_eq!(said(&records(&path), "stdout"), b"done\n");
    let path = path_of(&pod, "log2");
    let start = Instant::now();
    pod.run_logged("chatty", "(for i in $(seq 300); do echo more; sleep 0.1; done) & exit 4", &log_file(&path)).await;
    assert_eq!(pod.exit_of("chatty").await.code, 4);
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    let lines = records(&path).len();
    assert!((3..60).contains(&lines), "{lines} lines in the two seconds that are waited");
    pod.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_logged_resized_and_attached_to() {
    let mut pod = Pod::start().await;
    let path = path_of(&pod, "log");
    let log = log_file(&path);
    let spec = on_terminal("stty size; read a; stty size; echo got $a", 24, 80);
    let request = SpawnRequest { stdio: TaskStdio::LogTerminal, log: Some(log.as_fd()), ..pod.request("task", &spec) };
    go(&mut pod.monitor.spawn(request).await.unwrap()).await;
    until("the first size is logged", || said(&records(&path), "stdout").starts_with(b"24 80\r\n"));
    pod.monitor.resize("task", 50, 132).await.unwrap();
    let mut fds = pod.monitor.attach("task").await.unwrap();
    assert_eq!(fds.len(), 2);
    let (mut output, mut master) = (File::from(fds.remove(1)), File::from(fds.remove(0)));
    master.write_all(b"x\n").unwrap();
    assert_eq!(pod.exit_of("task").await.code, 0);
    let expected = "x\r\n50 132\r\ngot x\r\n";
    assert_eq!(String::from_utf8(said(&records(&path), "stdout")).unwrap(), format!("24 80\r\n{expected}"));
    drop(master);
    let mut copy = String::new();
    output.read_to_string(&mut copy).unwrap();
    assert_eq!(copy, expected);
    pod.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_that_is_not_logged_is_handed_out() {
    let mut pod = Pod::start().await;
    let spec = on_terminal("read a; echo got $a; exit 6", 24, 80);
    let request = SpawnRequest { stdio: TaskStdio::Terminal, ..pod.request("task", &spec) };
    go(&mut pod.monitor.spawn(request).await.unwrap()).await;
    let mut master = File::from(pod.monitor.attach("task").await.unwrap().remove(0));
    master.write_all(b"y\n").unwrap();
    let mut text = Vec::new();
    let mut buffer = [0; 256];
    // EIO is how a terminal ends.
    while let Ok(n) = master.read(&mut buffer) {
        text.extend_from_slice(&buffer[..n]);
    }
    assert_eq!(String::from_utf8(text).unwrap(), "y\r\ngot y\r\n");
    assert_eq!(pod.exit_of("task").await.code, 6);
    pod.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attached_client_gets_copies_and_one_that_sleeps_stops_nobody() {
    let mut pod = Pod::start().await;
    let path = path_of(&pod, "log");
    let log = log_file(&path);
    let spec = shell("read go; echo hello; echo oops >&2; seq 1 200000; cat");
    let stdio = TaskStdio::Log { stdin: true };
    let request = SpawnRequest { stdio, log: Some(log.as_fd()), ..pod.request("task", &spec) };
    go(&mut pod.monitor.spawn(request).await.unwrap()).await;
    // This one never reads.
    let sleeper = pod.monitor.attach("task").await.unwrap();
    let mut streams = pod.monitor.attach("task").await.unwrap().into_iter().map(File::from);
    let (mut stdin, mut stdout, mut stderr) =
        (streams.next().unwrap(), streams.next().unwrap(), streams.next().unwrap());
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).unwrap();
        text
    });
    stdin.write_all(b"go\nlast words\n").unwrap();
    drop((stdin, sleeper));
    pod.monitor.close_stdin("task").await.unwrap();
    assert_eq!(pod.exit_of("task").await.code, 0);
    let text = reader.join().unwrap();
    assert!(text.starts_with("hello\n1\n2\n"), "{}", &text[..text.len().min(50)]);
    let mut errors = String::new();
    stderr.read_to_string(&mut errors).unwrap();
    assert_eq!(errors, "oops\n");
    let log = said(&records(&path), "stdout");
    assert!(log.starts_with(b"hello\n1\n") && log.ends_with(b"\n200000\nlast words\n"));
    pod.end().await;
}

/// CPU time of a process in seconds: user and system.
fn cpu(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = text.rsplit_once(") ").unwrap().1.split(' ').collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_written_whole() {
    const MIB: usize = 128;
    let mut pod = Pod::start().await;
    let path = path_of(&pod, "log");
    let line = "y".repeat(99);
    let script = format!("yes {line} | head -c {}", MIB * 1024 * 1024);
    let (start, before) = (Instant::now(), cpu(pod.process.pid));
    pod.run_logged("task", &script, &log_file(&path)).await;
    pod.exit_of("task").await;
    let (took, used) = (start.elapsed(), cpu(pod.process.pid) - before);
    println!("{MIB} MiB in {took:?}, {used:.2} s of the monitor's CPU: {:.2} s per GiB", used * 1024.0 / MIB as f64);
    count_lines(&path, MIB * 1024 * 1024);
    // Ten times below the peers' 20 s per GiB, on a machine that does other things too.
    assert!(used * 1024.0 / MIB as f64 <= 5.0 || cfg!(debug_assertions), "{used} s of CPU");
    pod.end().await;
}

/// Every record is a whole line of 99 bytes, but the last.
fn count_lines(path: &Path, bytes: usize) {
    let records = records(path);
    assert_eq!(records.len(), bytes.div_ceil(100));
    assert!(records[..records.len() - 1].iter().all(|r| r.full && r.content.len() == 99));
    assert_eq!(said(&records, "stdout").len(), bytes + usize::from(!bytes.is_multiple_of(100)));
}
