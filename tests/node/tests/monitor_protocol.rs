//! The monitor's socket: malformed frames, strangers, slow peers. None of it ends the monitor or disturbs a task.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // A test may fail at any line.

use crate::monitor::*;
use berth_monitor_api::SOCKET;
use berth_monitor_api::frame::{Refusal, Reply, Request, Spawn, Stdio, Tagged, TaskKind};
use berth_sys::socket::{self, Wait};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

/// A connection without the client's manners.
struct Raw(OwnedFd);

impl Raw {
    fn connect(pod: &Pod) -> Self {
        let directory = File::open(pod.dir.path()).unwrap();
        Self(socket::connect(directory.as_fd(), SOCKET).unwrap())
    }

    fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
        socket::send(self.0.as_fd(), bytes, fds, Wait::No).unwrap();
    }

    fn ask(&self, body: Request, fds: &[BorrowedFd<'_>]) -> Reply {
        self.send(&Tagged { tag: 5, body }.encode(), fds);
        let frame = self.recv().expect("disconnected");
        assert_eq!(frame.tag, 5);
        frame.body
    }

    /// The next frame; `None` if the monitor has disconnected.
    fn recv(&self) -> Option<Tagged<Reply>> {
        let mut buffer = [0; 65536];
        let mut received = None;
        until("an answer", || match socket::recv(self.0.as_fd(), &mut buffer, Wait::No) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => false,
            other => {
                received = Some(other.map_or(0, |(length, _)| length));
                true
            }
        });
        let length = received.unwrap();
        (length > 0).then(|| Tagged::<Reply>::decode(&buffer[..length]).unwrap())
    }
}

fn refusal(reply: &Reply) -> Refusal {
    match reply {
        Reply::Refused { refusal, .. } => *refusal,
        other => panic!("not refused: {other:?}"),
    }
}

fn spawn(id: &str, stdio: Stdio) -> Request {
    let (join, kind) = (String::new(), TaskKind::Exec);
    Request::Spawn(Spawn { id: id.into(), kind, stdio, join, log_fd: false, oom_fd: false, kill_fd: false })
}

/// Descriptors that are open in a process.
fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_frames_are_refused_or_end_the_connection() {
    let pod = Pod::start().await;
    pod.run("task", "exec sleep 600").await;
    let null = File::open("/dev/null").unwrap();
    let fds = |n| vec![null.as_fd(); n];
    let raw = Raw::connect(&pod);
    assert_eq!(refusal(&raw.ask(Request::List, &[])), Refusal::BadRequest, "Hello comes first");
    assert!(matches!(raw.ask(Request::Hello, &[]), Reply::Hello { .. }));
    let before = descriptors(pod.process.pid);
    // A type of a later version, a short body, bytes behind the body, an unknown number: the tag is still answered.
    for (kind, body) in [(999_u16, &b""[..]), (3, b"\x02\0\0\0a"), (8, b"x"), (2, &[1, 0, 0, 0, b'a', 9, 1])] {
        let bytes = [&1_u16.to_le_bytes()[..], &kind.to_le_bytes(), &77_u32.to_le_bytes(), body].concat();
        raw.send(&bytes, &fds(2));
        let frame = raw.recv().expect("disconnected");
        assert_eq!((frame.tag, refusal(&frame.body)), (77, Refusal::BadRequest));
    }
    for count in [0, 1, 2, 4, 5, 16] {
        assert_eq!(
            refusal(&raw.ask(spawn("new", Stdio::Null), &fds(count))),
            Refusal::BadRequest,
            "{count} descriptors"
        );
    }
    assert_eq!(refusal(&raw.ask(spawn("new", Stdio::Passed), &fds(3))), Refusal::BadRequest);
    assert_eq!(refusal(&raw.ask(Request::ReopenLog { id: "task".into() }, &[])), Refusal::BadRequest);
    assert_eq!(refusal(&raw.ask(Request::List, &fds(1))), Refusal::BadRequest);
    let signal = |signal| Request::Signal { id: "task".into(), signal };
    for number in [0, -1, 65, i32::MAX] {
        assert_eq!(refusal(&raw.ask(signal(number), &[])), Refusal::BadRequest);
    }
    for id in ["", ".", "..", "../x", "a/b", "a b"] {
        assert_eq!(refusal(&raw.ask(spawn(id, Stdio::Null), &fds(3))), Refusal::BadRequest, "{id:?}");
    }
    // Init that is no program.
    assert_eq!(refusal(&raw.ask(spawn("new", Stdio::Null), &fds(3))), Refusal::System);
    let no_log = Spawn {
        log_fd: true,
        ..match spawn("new", Stdio::Null) {
            Request::Spawn(s) => s,
            _ => panic!(),
        }
    };
    assert_eq!(refusal(&raw.ask(Request::Spawn(no_log), &fds(4))), Refusal::BadRequest);
    for request in [
        Request::Attach { id: "task".into() },
        Request::Resize { id: "task".into(), rows: 1, cols: 1 },
        Request::CloseStdin { id: "task".into() },
        Request::ReopenLog { id: "task".into() },
    ] {
        let count = usize::from(matches!(request, Request::ReopenLog { .. }));
        assert_eq!(refusal(&raw.ask(request, &fds(count))), Refusal::State);
    }
    assert_eq!(descriptors(pod.process.pid), before, "a descriptor of a refused frame was kept");
    for garbage in [&b"x"[..], b"1234567", &[0xff; 7]] {
        let raw = Raw::connect(&pod);
        raw.send(garbage, &fds(3));
        assert_eq!(raw.recv(), None, "{garbage:?} was answered");
    }
    let raw = Raw::connect(&pod);
    raw.send(&vec![0; 70_000], &[]);
    assert_eq!(raw.recv(), None);
    assert_eq!(descriptors(pod.process.pid), before);
    assert_eq!(pod.monitor.list().await.unwrap().len(), 1);
    pod.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn random_frames_never_end_the_monitor() {
    let pod = Pod::start().await;
    let mut random = File::open("/dev/urandom").unwrap();
    let null = File::open("/dev/null").unwrap();
    let mut seed = [0; 200];
    for round in 0..2000_usize {
        io::Read::read_exact(&mut random, &mut seed).unwrap();
        let raw = Raw::connect(&pod);
        raw.ask(Request::Hello, &[]);
        let length = usize::from(seed[0]) % 190;
        let mut frame = seed[8..8 + length].to_vec();
        // Half of them have a known type, so that bodies are reached.
        if round % 2 == 0 && length > 8 {
            frame[..4].copy_from_slice(&[1, 0, seed[1] % 12, 0]);
        }
        let fds = vec![null.as_fd(); usize::from(seed[2]) % 5];
        if !frame.is_empty() {
            raw.send(&frame, &fds);
            raw.recv();
        }
    }
    assert_eq!(pod.monitor.list().await.unwrap(), []);
    pod.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_root_is_served_and_only_sixteen_at_a_time() {
    let pod = Pod::start().await;
    let socket = pod.dir.path().join(SOCKET);
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    // Each is greeted before the next one comes: the queue of those that wait to be accepted is short.
    let greeted = |_| {
        let raw = Raw::connect(&pod);
        assert!(matches!(raw.ask(Request::Hello, &[]), Reply::Hello { .. }));
        raw
    };
    let others: Vec<_> = (0..15).map(greeted).collect();
    let one_more = Raw::connect(&pod);
    assert_eq!(one_more.recv(), None, "a seventeenth connection was kept");
    drop(others);
    until("there is room again", || {
        let raw = Raw::connect(&pod);
        let hello = Tagged { tag: 1, body: Request::Hello }.encode();
        socket::send(raw.0.as_fd(), &hello, &[], Wait::No).is_ok() && raw.recv().is_some()
    });

    // Even with the doors open.
    std::fs::set_permissions(pod.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o777)).unwrap();
    let copy = pod.dir.path().join("fixture");
    std::fs::copy(env!("CARGO_BIN_EXE_fixture_init"), &copy).unwrap();
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)).unwrap();
    let greet = |uid| Command::new(&copy).arg("greet").arg(pod.dir.path()).uid(uid).status().unwrap().code();
    // The monitor may still have to notice that earlier connections are gone; there is room on both sides of the refusal.
    until("root is served", || greet(0) == Some(0));
    assert_eq!(greet(65534), Some(3));
    until("root is served again", || greet(0) == Some(0));
    pod.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_does_not_read_gets_every_exit_later() {
    let mut pod = Pod::start().await;
    let slow = Raw::connect(&pod);
    slow.ask(Request::Hello, &[]);
    assert_eq!(slow.ask(Request::Subscribe, &[]), Reply::Done);
    for n in 0..380 {
        pod.run(&format!("task{n}"), "exit 0").await;
    }
    for _ in 0..380 {
        next_exit(&mut pod.exits).await;
    }
    std::thread::sleep(Duration::from_millis(100));
    let mut ids: Vec<_> = (0..380)
        .map(|_| match slow.recv().expect("disconnected").body {
            Reply::Exited { id, .. } => id,
            other => panic!("{other:?}"),
        })
        .collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 380);
    // The table has an end.
    for n in 380..400 {
        pod.run(&format!("task{n}"), "exit 0").await;
    }
    let spec = shell("exit 0");
    let error = pod.monitor.spawn(pod.request("one-more", &spec)).await.unwrap_err();
    assert!(error.message().contains("at most 400"), "{error}");
    for _ in 0..20 {
        next_exit(&mut pod.exits).await;
    }
    pod.end().await;
}
