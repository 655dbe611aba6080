//! One run of init: its sockets, its output, its child.
use super::fixture::program;
use berth_monitor_api::child::ChildMessage;
use berth_monitor_api::spec::InitSpec;
use berth_monitor_api::sync::{self, FromInit, Identity, ToInit};
use berth_sys::pidfd::{self, Child, ExitStatus, Zombie};
use berth_sys::socket::{self, Wait};
use berth_sys::spawn::{Spawn, spawn};
use berth_sys::{memfd, pty};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// Longer than any step takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What `Failed` said.
#[derive(Debug)]
pub struct Failed {
    pub step: String,
    pub errno: i32,
    pub detail: String,
}

/// How a task ended.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub out: String,
}

/// A running init, and later its child.
pub struct Run {
    init: OwnedFd,
    init_ended: Option<i32>,
    sync: Option<OwnedFd>,
    child_channel: OwnedFd,
    pub stdin: Option<File>,
    stdout: Option<File>,
    pub pid: u32,
    pub pidfd: Option<OwnedFd>,
    pub identity: Identity,
    pub phases: Vec<String>,
    reaped: bool,
}

/// What to start beside the spec.
#[derive(Default)]
pub struct With<'a> {
    pub target: Option<BorrowedFd<'a>>,
    /// A descriptor that the monitor forgot to close.
    pub leak: Option<BorrowedFd<'a>>,
    /// Standard streams are the host's null device, as for terminals.
    pub null: bool,
    /// A program that is not the sealed one.
    pub program: Option<BorrowedFd<'a>>,
}

impl Run {
    pub fn start(spec: &InitSpec, with: &With<'_>) -> Self {
        let image = memfd::sealed("spec", &spec.encode()).unwrap();
        let (sync, sync_theirs) = socket::pair().unwrap();
        let (child_channel, child_theirs) = socket::pair().unwrap();
        let (in_theirs, stdin) = std::io::pipe().unwrap();
        let (stdout, out_theirs) = std::io::pipe().unwrap();
        let (in_theirs, out_theirs): (OwnedFd, OwnedFd) = if with.null {
            let null = || File::options().read(true).write(true).open("/dev/null").unwrap().into();
            (null(), null())
        } else {
            (in_theirs.into(), out_theirs.into())
        };
        let mut fds = vec![
            (in_theirs.as_fd(), 0),
            (out_theirs.as_fd(), 1),
            (out_theirs.as_fd(), 2),
            (image.as_fd(), 3),
            (sync_theirs.as_fd(), 4),
            (child_theirs.as_fd(), 5),
        ];
        fds.extend(with.target.map(|fd| (fd, 6)));
        fds.extend(with.leak.map(|fd| (fd, 9)));
        let sealed = program();
        let mut how = Spawn::new(with.program.unwrap_or(sealed.as_fd()), &[c"berth-init"]);
        how.fds = &fds;
        let started = spawn(&how).unwrap();
        Self {
            init: started.pidfd,
            init_ended: None,
            sync: Some(sync),
            child_channel,
            stdin: Some(File::from(OwnedFd::from(stdin))),
            stdout: Some(File::from(OwnedFd::from(stdout))),
            pid: 0,
            pidfd: None,
            identity: Identity::default(),
            phases: Vec::new(),
            reaped: false,
        }
    }

    /// Starts, and brings it to `Ready`.
    pub fn ready(spec: &InitSpec) -> Self {
        Self::ready_with(spec, &With::default())
    }

    pub fn ready_with(spec: &InitSpec, with: &With<'_>) -> Self {
        let mut run = Self::start(spec, with);
        run.until_ready().unwrap_or_else(|e| panic!("{e:?}"));
        run
    }

    /// Starts, and expects it to fail before `Ready`.
    pub fn fails(spec: &InitSpec) -> Failed {
        let mut run = Self::start(spec, &With::default());
        let failed = run.until_ready().expect_err("it did not fail");
        assert_ne!(run.end_of_all(), 0, "a failure exits with a code");
        failed
    }

    /// One message, or `None` at the end.
    pub fn hear(&mut self) -> Option<FromInit> {
        let mut buffer = vec![0; sync::MAX_MESSAGE];
        let sync = self.sync.as_ref().expect("the daemon's socket is closed");
        let n = receive(sync.as_fd(), &mut buffer).0;
        (n > 0).then(|| sync::decode(&buffer[..n]).unwrap())
    }

    /// The next message that is not a phase; an end of file is a failure without words.
    fn next(&mut self) -> Result<FromInit, Failed> {
        loop {
            match self.hear() {
                Some(FromInit::Phase { name, .. }) => self.phases.push(name),
                Some(FromInit::Failed { step, errno, detail }) => return Err(Failed { step, errno, detail }),
                Some(other) => return Ok(other),
                None => return Err(Failed { step: "end of file".into(), errno: 0, detail: String::new() }),
            }
        }
    }

    /// Reads on to `Ready`; answers `Paused` by `moved`.
    pub fn until_ready_moving(&mut self, moved: impl Fn(u32)) -> Result<(), Failed> {
        loop {
            match self.next()? {
                FromInit::Paused { pid } => {
                    moved(pid);
                    self.say(ToInit::Continue);
                }
                FromInit::Ready { pid, identity } => {
                    self.take_child();
                    assert_eq!(pid, self.pid, "init told daemon and monitor about different processes");
                    self.identity = identity;
                    // Its child does the rest.
                    assert_eq!(self.init_end(), 0, "init itself ends well");
                    return Ok(());
                }
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    pub fn until_ready(&mut self) -> Result<(), Failed> {
        self.until_ready_moving(|_| panic!("not asked to move"))
    }

    /// Reads on to `Done` of a sandbox.
    pub fn until_done(&mut self) -> Result<Option<u32>, Failed> {
        match self.next()? {
            FromInit::Done { pid } => {
                if pid.is_some() {
                    self.take_child();
                }
                assert_eq!(pid.unwrap_or(0), self.pid);
                assert_eq!(self.init_end(), 0);
                Ok(pid)
            }
            other => panic!("unexpected {other:?}"),
        }
    }

    fn take_child(&mut self) {
        let mut buffer = [0; 64];
        let (n, mut fds) = receive(self.child_channel.as_fd(), &mut buffer);
        assert_eq!(fds.len(), 1, "exactly one descriptor");
        let ChildMessage::Child { pid } = ChildMessage::decode(&buffer[..n]).unwrap() else {
            panic!("the child comes first");
        };
        (self.pid, self.pidfd) = (pid, fds.pop());
    }

    /// Takes the terminal that was sent.
    pub fn take_terminal(&mut self) -> File {
        let mut buffer = [0; 64];
        let (n, mut fds) = receive(self.child_channel.as_fd(), &mut buffer);
        assert_eq!(ChildMessage::decode(&buffer[..n]).unwrap(), ChildMessage::Terminal);
        let master = fds.pop().unwrap();
        assert!(pty::is_terminal(master.as_fd()));
        File::from(master)
    }

    pub fn say(&self, message: ToInit) {
        let sync = self.sync.as_ref().expect("the daemon's socket is closed");
        socket::send(sync.as_fd(), &sync::encode(&message), &[], Wait::Yes).unwrap();
    }

    /// The daemon goes away.
    pub fn hang_up(&mut self) {
        self.sync = None;
    }

    /// Says go, and reads on to the end of the conversation, which comes with `execve`.
    pub fn go(&mut self) -> Result<(), Failed> {
        self.say(ToInit::Go);
        match self.next()? {
            FromInit::ExecNext => {}
            other => panic!("unexpected {other:?}"),
        }
        match self.next() {
            Err(f) if f.step == "end of file" => Ok(()),
            Err(f) => Err(f),
            Ok(other) => panic!("unexpected {other:?}"),
        }
    }

    /// Go, and wait for the end; standard input is closed.
    pub fn finish(mut self) -> Ended {
        self.go().unwrap_or_else(|e| panic!("{e:?}"));
        self.stdin = None;
        self.ended()
    }

    pub fn ended(mut self) -> Ended {
        let mut out = String::new();
        self.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        let code = wait(self.pidfd.as_ref().unwrap());
        self.reaped = true;
        Ended { code, out }
    }

    /// Reads a line that the task wrote.
    pub fn line(&mut self) -> String {
        let stdout = self.stdout.as_mut().unwrap();
        let mut line = Vec::new();
        let mut byte = [0];
        while stdout.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap()
    }

    pub fn write(&mut self, text: &str) {
        self.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Kills the task and waits for it.
    pub fn kill(mut self) -> i32 {
        let fd = self.pidfd.as_ref().unwrap();
        pidfd::signal(fd.as_fd(), 9).unwrap();
        let code = wait(fd);
        self.reaped = true;
        code
    }

    fn init_end(&mut self) -> i32 {
        *self.init_ended.get_or_insert_with(|| wait(&self.init))
    }

    /// Waits for init and, if there is one, its child: the exit code of the last that ran.
    pub fn end_of_all(&mut self) -> i32 {
        let mut buffer = [0; 64];
        let init = self.init_end();
        if self.pidfd.is_none()
            && let Ok((n, mut fds)) = socket::recv(self.child_channel.as_fd(), &mut buffer, Wait::No)
            && n > 0
        {
            self.pidfd = fds.pop();
        }
        self.reaped = true;
        self.pidfd.as_ref().map_or(init, wait)
    }

    /// The text of a file of the task's process, as the host sees it.
    pub fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.pid)).unwrap()
    }

    /// Inode of a namespace of the task.
    pub fn namespace(&self, name: &str) -> String {
        std::fs::read_link(format!("/proc/{}/ns/{name}", self.pid)).unwrap().display().to_string()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if let (Some(fd), false) = (&self.pidfd, self.reaped) {
            let _ = pidfd::signal(fd.as_fd(), 9);
            let _ = wait(fd);
        }
    }
}

fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> (usize, Vec<OwnedFd>) {
    let until = Instant::now() + PATIENCE;
    loop {
        match socket::recv(socket, buffer, Wait::No) {
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                assert!(Instant::now() < until, "init says nothing");
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return (0, Vec::new()),
            other => return other.unwrap(),
        }
    }
}

/// Reads a terminal until it has said a word, or, without one, to its end, which is EIO.
pub fn hear_terminal(master: &mut File, word: Option<&str>) -> String {
    let (mut heard, mut buffer) = (Vec::new(), [0; 512]);
    while !word.is_some_and(|word| String::from_utf8_lossy(&heard).contains(word)) {
        match master.read(&mut buffer) {
            Ok(n) if n > 0 => heard.extend_from_slice(&buffer[..n]),
            _ => break,
        }
    }
    String::from_utf8(heard).unwrap()
}

/// Reaps: the exit code, 128 + signal for signals.
pub fn wait(process: &OwnedFd) -> i32 {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some((_, status)) = pidfd::try_wait(Child::Fd(process.as_fd()), Zombie::Reap).unwrap() {
            return match status {
                ExitStatus::Exited(code) => code,
                ExitStatus::Signaled(signal) => 128 + signal,
            };
        }
        assert!(Instant::now() < until, "the process does not end");
        std::thread::sleep(Duration::from_millis(1));
    }
}
