//! Plays init for the monitor's tests: follows both protocols to the letter, makes no namespaces, and misbehaves where its spec's
//! environment says so. Owns: nothing of the product. Must not: be used outside of tests.
//!
//! `FIXTURE=fail` reports a failed step, `die` ends before it names a child, `stranger` names a process that is no child,
//! `garbage` sends the monitor bytes that are no message, `pause` waits for Continue, `hang` never gets ready.
//! As `fixture-init child ARGS...` it is the child that becomes the program; as `fixture-init greet DIR` a client of a monitor.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic)] // A helper of tests fails the test that uses it.

use berth_monitor_api::child::ChildMessage;
use berth_monitor_api::frame::{Request, Tagged};
use berth_monitor_api::spec::{InitSpec, Process};
use berth_monitor_api::sync::{self, FromInit, Identity, ToInit};
use berth_monitor_api::{SOCKET, init_fd};
use berth_sys::socket::{self, Wait};
use berth_sys::spawn::{Spawn, spawn};
use berth_sys::{pidfd, process, pty};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::ExitCode;

/// The descriptor on which the child waits for its go.
const GO_FD: i32 = 7;

fn main() -> ExitCode {
    // The launcher takes no init that does not carry its build's mark.
    std::hint::black_box(berth_monitor_api::build::MARKED);
    let mut args = std::env::args_os().skip(1);
    match args.next().map(|word| word.into_string().unwrap()).as_deref() {
        Some("child") => child(args.map(OsStringExt::into_vec).map(|arg| CString::new(arg).unwrap()).collect()),
        Some("greet") => greet(Path::new(&args.next().unwrap())),
        _ => init(),
    }
}

/// Waits for its go, takes the terminal if it has one, becomes the program.
fn child(args: Vec<CString>) -> ExitCode {
    let mut go = File::from(process::take_inherited(GO_FD).unwrap());
    if go.read_exact(&mut [0]).is_err() {
        // Nobody waits for this start any more.
        return ExitCode::from(111);
    }
    if pty::is_terminal(std::io::stdin().as_fd()) {
        pty::make_controlling(std::io::stdin().as_fd()).unwrap();
    }
    let words: Vec<_> = args.iter().map(|arg| arg.to_str().unwrap()).collect();
    let error = std::process::Command::new(words[0]).args(&words[1..]).exec();
    eprintln!("{}: {error}", words[0]);
    ExitCode::from(127)
}

/// Says Hello to a monitor; succeeds if there is an answer.
fn greet(dir: &Path) -> ExitCode {
    let directory = File::open(dir).unwrap();
    let fd = socket::connect(directory.as_fd(), SOCKET).unwrap();
    let hello = Tagged { tag: 1, body: Request::Hello }.encode();
    let mut reply = [0; 1024];
    let answered = socket::send(fd.as_fd(), &hello, &[], Wait::Yes).is_ok()
        && socket::recv(fd.as_fd(), &mut reply, Wait::Yes).is_ok_and(|(length, _)| length > 0);
    if answered { ExitCode::SUCCESS } else { ExitCode::from(3) }
}

/// Both conversations, and the process to join.
struct Talk {
    sync: OwnedFd,
    monitor: OwnedFd,
    target: Option<OwnedFd>,
}

impl Talk {
    fn say(&self, message: &FromInit) {
        // A daemon that has gone shows when it is listened to.
        let _ = socket::send(self.sync.as_fd(), &sync::encode(message), &[], Wait::Yes);
    }

    fn hear(&self) -> Option<ToInit> {
        let mut buffer = [0; sync::MAX_MESSAGE];
        let (length, _) = socket::recv(self.sync.as_fd(), &mut buffer, Wait::Yes).ok()?;
        sync::decode(&buffer[..length]).ok()
    }

    fn tell(&self, message: ChildMessage, fd: BorrowedFd<'_>) {
        socket::send(self.monitor.as_fd(), &message.encode(), &[fd], Wait::Yes).unwrap();
    }
}

fn init() -> ExitCode {
    let inherited = |number| process::take_inherited(number).unwrap();
    let spec = inherited(init_fd::SPEC);
    let target = process::take_inherited(init_fd::TARGET);
    let talk = Talk { sync: inherited(init_fd::SYNC), monitor: inherited(init_fd::CHILD), target };
    let mut bytes = Vec::new();
    File::from(spec).read_to_end(&mut bytes).unwrap();
    match InitSpec::decode(&bytes).unwrap() {
        InitSpec::Sandbox(_) => {
            talk.say(&FromInit::Phase { name: "run/namespaces".into(), micros: 1 });
            talk.say(&FromInit::Done { pid: None });
            ExitCode::SUCCESS
        }
        InitSpec::Container(container) => start(&talk, &container.process),
        InitSpec::Exec(exec) => start(&talk, &exec.process),
    }
}

fn start(talk: &Talk, program: &Process) -> ExitCode {
    let mood = program.env.iter().find_map(|entry| entry.strip_prefix(b"FIXTURE="));
    let mood = String::from_utf8(mood.unwrap_or_default().to_vec()).unwrap();
    match mood.as_str() {
        "fail" => {
            let detail = "the step was told to fail".to_owned();
            talk.say(&FromInit::Failed { step: "start/mounts".into(), errno: 13, detail });
            return ExitCode::from(1);
        }
        "die" => return ExitCode::from(9),
        "stranger" => {
            talk.tell(ChildMessage::Child { pid: 1 }, pidfd::open(1).unwrap().as_fd());
            std::thread::sleep(std::time::Duration::from_secs(600));
        }
        "garbage" => {
            socket::send(talk.monitor.as_fd(), b"garbage", &[], Wait::Yes).unwrap();
            std::thread::sleep(std::time::Duration::from_secs(600));
        }
        _ => {}
    }
    let (go_read, mut go) = std::io::pipe().unwrap();
    let pid = make_child(talk, program, go_read.as_fd());
    talk.say(&FromInit::Phase { name: "start/clone".into(), micros: 1 });
    if mood == "pause" {
        talk.say(&FromInit::Paused { pid });
        if talk.hear() != Some(ToInit::Continue) {
            return ExitCode::from(1);
        }
    }
    if mood == "hang" {
        return if talk.hear().is_none() { ExitCode::from(1) } else { ExitCode::SUCCESS };
    }
    talk.say(&FromInit::Ready { pid, identity: Identity::default() });
    if talk.hear() != Some(ToInit::Go) {
        // The pipe's end tells the child.
        return ExitCode::from(1);
    }
    talk.say(&FromInit::ExecNext);
    go.write_all(b"g").unwrap();
    ExitCode::SUCCESS
}

/// Clones the child as a child of the monitor, and names it.
fn make_child(talk: &Talk, program: &Process, go: BorrowedFd<'_>) -> u32 {
    let itself = File::open("/proc/self/exe").unwrap();
    let mut args = vec![c"fixture-init".to_owned(), c"child".to_owned()];
    args.extend(program.args.iter().map(|arg| CString::new(arg.as_bytes()).unwrap()));
    let mut env: Vec<_> = program.env.iter().map(|entry| CString::new(entry.clone()).unwrap()).collect();
    env.push(c"PATH=/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
    if let Some(target) = &talk.target {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", target.as_raw_fd()));
        let pid = info.unwrap().lines().find_map(|line| line.strip_prefix("Pid:").map(|pid| pid.trim().to_owned()));
        env.push(CString::new(format!("TARGET_PID={}", pid.unwrap())).unwrap());
    }
    let terminal = program.terminal.map(|size| {
        let (master, slave) = pty::open(Path::new("/dev/ptmx")).unwrap();
        pty::set_size(master.as_fd(), size.rows, size.cols).unwrap();
        (master, slave)
    });
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let mut fds = vec![(stdin.as_fd(), 0), (stdout.as_fd(), 1), (stderr.as_fd(), 2), (go, GO_FD)];
    if let Some((_, slave)) = &terminal {
        fds.iter_mut().take(3).for_each(|(fd, _)| *fd = slave.as_fd());
    }
    let args: Vec<&CStr> = args.iter().map(CString::as_c_str).collect();
    let env: Vec<&CStr> = env.iter().map(CString::as_c_str).collect();
    let plan = Spawn { fds: &fds, env: &env, new_session: true, sibling: true, ..Spawn::new(itself.as_fd(), &args) };
    let spawned = spawn(&plan).unwrap();
    if let Some((master, _)) = &terminal {
        talk.tell(ChildMessage::Terminal, master.as_fd());
    }
    talk.tell(ChildMessage::Child { pid: spawned.pid }, spawned.pidfd.as_fd());
    spawned.pid
}
