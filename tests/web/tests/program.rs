//! The program as tests and pods use it: its pages, its end, its commands.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // a failed expectation is a failed test

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_berth-web");

fn start(args: &[&str]) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(PROGRAM).args(args).env("PORT", "0").stdout(Stdio::piped()).spawn().unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    (child, out)
}

fn line(out: &mut BufReader<ChildStdout>) -> String {
    let mut text = String::new();
    out.read_line(&mut text).unwrap();
    text.trim_end().to_owned()
}

fn run(args: &[&str]) -> Output {
    Command::new(PROGRAM).args(args).env_clear().env("KEY", "value").output().unwrap()
}

fn get(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn end(child: &mut Child, signal: Signal) -> (Option<i32>, Duration) {
    let start = Instant::now();
    kill(Pid::from_raw(child.id() as i32), signal).unwrap();
    (child.wait().unwrap().code(), start.elapsed())
}

#[test]
fn serves_logs_and_ends_at_once() {
    let (mut child, mut out) = start(&[]);
    let first = line(&mut out);
    let port = first.rsplit(':').next().unwrap().parse().unwrap();
    assert!(first.starts_with("listening on "), "{first}");
    assert!(get(port, "/").ends_with("a pod run by Berth.\n"));
    assert!(get(port, "/healthz").starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(get(port, "/nothing").starts_with("HTTP/1.1 404 "));
    // A client that says nothing must not hold up the end.
    let _silent = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (code, took) = end(&mut child, Signal::SIGTERM);
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(2), "{took:?}");
    let mut log = String::new();
    out.read_to_string(&mut log).unwrap();
    assert!(log.contains(" GET / 200\n") && log.contains(" GET /nothing 404\n"), "{log}");
}

#[test]
fn sleep_ends_on_sigterm_and_stubborn_only_on_sigkill() {
    let (mut sleeper, _out) = start(&["sleep"]);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(end(&mut sleeper, Signal::SIGTERM).0, Some(0));
    assert_eq!(run(&["sleep", "0"]).status.code(), Some(0));

    let (mut stubborn, mut out) = start(&["stubborn"]);
    assert_eq!(line(&mut out), "ignoring SIGTERM");
    kill(Pid::from_raw(stubborn.id() as i32), Signal::SIGTERM).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert!(stubborn.try_wait().unwrap().is_none());
    assert_eq!(end(&mut stubborn, Signal::SIGKILL).0, None);
}

#[test]
fn small_commands() {
    assert_eq!(run(&["exit", "42"]).status.code(), Some(42));
    assert_eq!(run(&["exit", "256"]).status.code(), Some(1));
    assert_eq!(run(&["nonsense"]).status.code(), Some(2));
    assert_eq!(run(&["env"]).stdout, b"KEY=value\n");
    assert_eq!(run(&["echo", "a", "b"]).stdout, b"a b\n");
    assert_eq!(run(&["err", "a"]).stderr, b"a\n");
    assert_eq!(run(&["spew", "7", "2"]).stdout, b"aa\nbb\nc");
    assert_eq!(run(&["cat", "/proc/self/comm"]).stdout, b"berth-web\n");
    assert_eq!(run(&["cat", "/no/such/file"]).status.code(), Some(1));
    let id = String::from_utf8(run(&["id"]).stdout).unwrap();
    for name in ["Uid:", "Gid:", "Groups:", "CapEff:", "NoNewPrivs:", "Seccomp:"] {
        assert!(id.lines().any(|l| l.starts_with(name)), "{id}");
    }
    // More than the three may come from whoever runs the test; the directory that was read is none of them.
    let fds = String::from_utf8(run(&["fds"]).stdout).unwrap();
    assert!(["0 ", "1 ", "2 "].iter().zip(fds.lines()).all(|(fd, line)| line.starts_with(fd)), "{fds}");
    assert!(!fds.contains("/fd\n"), "{fds}");
}

#[test]
fn alloc_and_fork_bomb_say_how_far_they_came() {
    let (mut child, mut out) = start(&["alloc", "3"]);
    assert_eq!(line(&mut out), "3 MiB");
    assert_eq!(end(&mut child, Signal::SIGTERM).0, Some(0));
    let (mut child, mut out) = start(&["fork-bomb", "3"]);
    assert_eq!(line(&mut out), "started 3 processes: the limit of 3 was mine");
    assert_eq!(end(&mut child, Signal::SIGTERM).0, Some(0));
}
