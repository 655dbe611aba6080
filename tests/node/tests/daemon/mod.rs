//! The daemon end to end: `berth serve` in a root of its own, a registry in this process, a CRI client, and at the end the
//! count of what is left over.
//!
//! Owns: starting, killing and ending daemons; requests with sensible defaults. Must not: look into the daemon; what it did is
//! read from its answers and from the kernel.
#![allow(dead_code, unused_imports, reason = "each test program uses its part")]

pub mod cli;
pub mod client;
pub mod crictl;
pub mod doctor;
pub mod images;
pub mod node;
pub mod requests;
pub mod steps;
pub mod uml;
pub mod wreck;

pub use client::Cri;
pub use node::Node;
pub use requests::{container, pod, shell};

use std::time::{Duration, Instant};

/// Waits until `condition` gives something.
///
/// # Panics
/// After a minute, saying what was waited for.
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(Instant::now() < end, "waited a minute in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits for the end of a process; `None` if there is none in that time.
pub async fn ended(mut child: std::process::Child, limit: Duration) -> Option<std::process::ExitStatus> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() >= end {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The field of /proc/PID/status.
pub fn proc_status(pid: i32, field: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let start = format!("{field}:");
    let line = text.lines().find(|l| l.starts_with(&start)).unwrap_or_else(|| panic!("no {field} in {text}"));
    line[start.len()..].split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether the process lives, as other than a zombie.
pub fn is_alive(pid: i32) -> bool {
    let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    !text.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}

/// What a program of the host says on stdout; it must succeed.
pub fn host(program: &str, args: &[&str]) -> String {
    let output = std::process::Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Sends a signal to a process that this test made, or that a daemon of this test made.
pub fn signal(pid: i32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
}

/// SIGKILL to such a process, and its end: until then it does what it did.
pub async fn killed(pid: i32) {
    signal(pid, nix::sys::signal::Signal::SIGKILL);
    eventually(&format!("process {pid} ends"), async || (!is_alive(pid)).then_some(())).await;
}

/// The body of a page, or `None` where nobody answers.
pub async fn page(address: &str, path: &str) -> Option<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let connected = tokio::time::timeout(Duration::from_secs(2), tokio::net::TcpStream::connect(address)).await;
    let mut stream = connected.ok()?.ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n").as_bytes()).await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}
