//! What each request of a daemon does.
//!
//! Owns: the checks of ids, states and descriptors, and the answers. Must not: trust a descriptor's count or a task's state.
use crate::connection::Refused;
use crate::log::{Log, Stream};
use crate::oom::OomCounter;
use crate::server::Server;
use crate::source::Source;
use crate::task::{State, Task};
use crate::token::{Part, Token};
use berth_monitor_api::frame::{self, Refusal, Reply, Request, Spawn, Stdio, VERSION};
use berth_monitor_api::init_fd;
use berth_sys::poll::Interest;
use berth_sys::spawn::{self, Spawned};
use berth_sys::{pidfd, pty, socket};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

type Answer = Result<(Reply, Vec<OwnedFd>), Refused>;

fn done() -> Answer {
    Ok((Reply::Done, Vec::new()))
}

fn state(message: &str) -> Refused {
    Refused::new(Refusal::State, message)
}

/// Descriptors of a spawn, by their meaning.
struct Passed {
    program: OwnedFd,
    spec: OwnedFd,
    sync: OwnedFd,
    log: Option<File>,
    oom: Option<File>,
    kill: Option<File>,
    stdio: Option<[OwnedFd; 3]>,
}

impl Passed {
    /// Sorts them in the order of [`Spawn`]; refuses one too few or too many.
    fn sort(spawn: &Spawn, fds: Vec<OwnedFd>) -> Result<Self, Refused> {
        let count = fds.len();
        let flags = [spawn.log_fd, spawn.oom_fd, spawn.kill_fd].into_iter().filter(|flag| *flag).count();
        let wanted = 3 + flags + if spawn.stdio == Stdio::Passed { 3 } else { 0 };
        let wrong = || Refused::new(Refusal::BadRequest, format!("{count} descriptors, but {wanted} are needed"));
        if count != wanted {
            return Err(wrong());
        }
        let mut fds = fds.into_iter();
        let mut next = || fds.next().ok_or_else(wrong);
        let (program, spec, sync) = (next()?, next()?, next()?);
        let mut optional = |flag: bool| if flag { Ok(Some(File::from(next()?))) } else { Ok(None) };
        let (log, oom, kill) = (optional(spawn.log_fd)?, optional(spawn.oom_fd)?, optional(spawn.kill_fd)?);
        let stdio = if spawn.stdio == Stdio::Passed { Some([next()?, next()?, next()?]) } else { None };
        Ok(Self { program, spec, sync, log, oom, kill, stdio })
    }
}

/// The monitor's ends of a task's streams, and init's.
#[derive(Default)]
struct Streams {
    stdin: Option<OwnedFd>,
    sources: [Option<Source>; 2],
    init: [Option<OwnedFd>; 3],
}

impl Streams {
    fn open(stdio: Stdio, passed: Option<[OwnedFd; 3]>) -> io::Result<Self> {
        let mut streams = Self::default();
        if let Some(passed) = passed {
            streams.init = passed.map(Some);
        }
        if let Stdio::Log { stdin } = stdio {
            if stdin {
                let (read, write) = io::pipe()?;
                streams.stdin = Some(write.into());
                streams.init[0] = Some(read.into());
            }
            for (index, stream) in [Stream::Stdout, Stream::Stderr].into_iter().enumerate() {
                let (read, write) = io::pipe()?;
                streams.sources[index] = Some(Source::new(read.into(), stream, false)?);
                streams.init[index + 1] = Some(write.into());
            }
        }
        Ok(streams)
    }
}

impl Server {
    /// Carries out a request.
    pub fn serve(&mut self, connection: usize, request: Request, mut fds: Vec<OwnedFd>) -> Answer {
        let wanted = match request {
            Request::Spawn(spawn) => return self.spawn(&spawn, fds),
            Request::ReopenLog { .. } => 1,
            Request::Cgroup { oom_fd, kill_fd, .. } => usize::from(oom_fd) + usize::from(kill_fd),
            _ => 0,
        };
        if fds.len() != wanted {
            let message = format!("{} descriptors, but {wanted} are needed", fds.len());
            return Err(Refused::new(Refusal::BadRequest, message));
        }
        match request {
            Request::Spawn(_) => Err(Refused::new(Refusal::BadRequest, "")),
            Request::Hello => {
                self.connections[connection].greeted = true;
                let hello = Reply::Hello { version: VERSION, pid: std::process::id(), pod: self.pod.clone() };
                Ok((hello, Vec::new()))
            }
            Request::Signal { id, signal } => self.signal(&id, signal),
            Request::ReopenLog { id } => self.reopen_log(&id, fds.pop()),
            Request::Cgroup { id, oom_fd, kill_fd } => self.take_cgroup(&id, oom_fd, kill_fd, fds),
            Request::Attach { id } => self.attach(&id),
            Request::Resize { id, rows, cols } => self.resize(&id, rows, cols),
            Request::CloseStdin { id } => self.close_stdin(&id),
            Request::List => Ok((Reply::Tasks(self.tasks.iter().map(listed).collect()), Vec::new())),
            Request::Forget { id } => self.forget(&id),
            Request::Subscribe => {
                self.connections[connection].next_exit = Some(self.ended);
                done()
            }
            Request::Shutdown if self.tasks.iter().any(|task| task.exit().is_none()) => {
                Err(state("a task lives; end it first"))
            }
            Request::Shutdown => {
                self.stop = true;
                done()
            }
        }
    }

    /// Place of a task by its id. What init has said meanwhile is heard first.
    fn find(&mut self, id: &str) -> Result<usize, Refused> {
        let missing = || Refused::new(Refusal::NotFound, format!("there is no task {id}"));
        let at = self.tasks.iter().position(|task| task.id == id).ok_or_else(missing)?;
        self.pump_channel(at);
        Ok(at)
    }

    fn spawn(&mut self, request: &Spawn, fds: Vec<OwnedFd>) -> Answer {
        let passed = Passed::sort(request, fds)?;
        if !frame::is_task_id(&request.id) {
            return Err(Refused::new(Refusal::BadRequest, "a task's id is 1 to 64 letters, digits, _ and -"));
        }
        if request.log_fd && !matches!(request.stdio, Stdio::Log { .. } | Stdio::LogTerminal) {
            return Err(Refused::new(Refusal::BadRequest, "a log needs stdio that is logged"));
        }
        if self.tasks.iter().any(|task| task.id == request.id) {
            return Err(Refused::new(
                Refusal::Exists,
                format!("there is a task {} already; forget it first", request.id),
            ));
        }
        if self.tasks.len() >= frame::MAX_TASKS {
            return Err(Refused::new(
                Refusal::Limit,
                format!("a monitor supervises at most {} tasks", frame::MAX_TASKS),
            ));
        }
        let target = self.join_target(&request.join)?;
        let failed = |step: &'static str| move |e: io::Error| Refused::system(step, &e);
        let streams = Streams::open(request.stdio, passed.stdio).map_err(failed("open pipes"))?;
        let (channel, init_channel) = socket::pair().map_err(failed("socketpair"))?;
        let mut fds: Vec<(BorrowedFd<'_>, RawFd)> = vec![
            (passed.spec.as_fd(), init_fd::SPEC),
            (passed.sync.as_fd(), init_fd::SYNC),
            (init_channel.as_fd(), init_fd::CHILD),
        ];
        fds.extend(streams.init.iter().zip(0..).map(|(fd, n)| (fd.as_ref().map_or(self.null.as_fd(), AsFd::as_fd), n)));
        fds.extend(target.as_ref().map(|target| (target.as_fd(), init_fd::TARGET)));
        let args = [c"berth-init"];
        let nofile = Some(self.nofile);
        let plan = spawn::Spawn { fds: &fds, nofile, ..spawn::Spawn::new(passed.program.as_fd(), &args) };
        let spawned = spawn::spawn(&plan).map_err(|e| Refused::system(e.step, &e.error))?;
        let init_pid = spawned.pid;
        let Streams { stdin, sources, .. } = streams;
        let task = Task {
            serial: self.serial(),
            id: request.id.clone(),
            kind: request.kind,
            stdio: request.stdio,
            state: State::Starting,
            init: None,
            child: None,
            pid: 0,
            channel: Some(channel),
            stdin,
            terminal: None,
            sources,
            log: Log::new(passed.log),
            oom: passed.oom.map(OomCounter::new),
            kill: passed.kill,
        };
        self.supervise(task, spawned);
        Ok((Reply::Spawned { init_pid }, Vec::new()))
    }

    /// The pidfd of a running task, for init to join.
    fn join_target(&self, id: &str) -> Result<Option<OwnedFd>, Refused> {
        if id.is_empty() {
            return Ok(None);
        }
        let task = self.tasks.iter().find(|task| task.id == id);
        let task = task.ok_or_else(|| Refused::new(Refusal::NotFound, format!("there is no task {id} to join")))?;
        let child = task.child.as_ref().ok_or_else(|| state("the task to join is not running"))?;
        child.try_clone().map(Some).map_err(|e| Refused::system("copy the pidfd", &e))
    }

    /// Watches all that a new task has.
    fn supervise(&mut self, mut task: Task, init: Spawned) {
        let token = |part| Token::Task(task.serial, part);
        self.io.watch(init.pidfd.as_fd(), token(Part::Init), Interest::Read);
        if let Some(channel) = &task.channel {
            self.io.watch(channel.as_fd(), token(Part::Channel), Interest::Read);
        }
        for (index, source) in task.sources.iter().enumerate() {
            if let Some(source) = source {
                self.io.watch(source.file.as_fd(), token(Part::Output(index)), Interest::Read);
            }
        }
        if let Some(oom) = &task.oom {
            self.io.watch(oom.file.as_fd(), token(Part::Oom), Interest::Priority);
        }
        task.init = Some((init.pid, init.pidfd));
        self.tasks.push(task);
    }

    /// To the main process, or to init while there is none.
    fn signal(&mut self, id: &str, signal: i32) -> Answer {
        let at = self.find(id)?;
        if !(1..=64).contains(&signal) {
            return Err(Refused::new(Refusal::BadRequest, "a signal is a number from 1 to 64"));
        }
        let task = &self.tasks[at];
        let init = task.init.as_ref().filter(|_| task.is_starting()).map(|(_, init)| init);
        let process = task.child.as_ref().or(init).ok_or_else(|| state("the task has ended"))?;
        match pidfd::signal(process.as_fd(), signal) {
            Ok(()) => done(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(state("the task has ended")),
            Err(e) => Err(Refused::system("send the signal", &e)),
        }
    }

    fn reopen_log(&mut self, id: &str, file: Option<OwnedFd>) -> Answer {
        let at = self.find(id)?;
        let task = &mut self.tasks[at];
        if !matches!(task.stdio, Stdio::Log { .. } | Stdio::LogTerminal) {
            return Err(state("the task has no log"));
        }
        if task.exit().is_some() {
            return Err(state("the task has ended"));
        }
        if let Some(file) = file {
            task.log.reopen(file.into());
        }
        done()
    }

    /// Takes the descriptors of a scope that was made around the task's process.
    fn take_cgroup(&mut self, id: &str, oom: bool, kill: bool, fds: Vec<OwnedFd>) -> Answer {
        let at = self.find(id)?;
        if self.tasks[at].exit().is_some() {
            return Err(state("the task has ended"));
        }
        let mut fds = fds.into_iter().map(File::from);
        if let Some(file) = oom.then(|| fds.next()).flatten() {
            let token = Token::Task(self.tasks[at].serial, Part::Oom);
            self.io.watch(file.as_fd(), token, Interest::Priority);
            if let Some(old) = self.tasks[at].oom.replace(OomCounter::new(file)) {
                self.io.forget(old.file.as_fd());
            }
        }
        if let Some(file) = kill.then(|| fds.next()).flatten() {
            self.tasks[at].kill = Some(file);
        }
        done()
    }

    fn attach(&mut self, id: &str) -> Answer {
        let at = self.find(id)?;
        let failed = |e: io::Error| Refused::system("attach", &e);
        let task = &mut self.tasks[at];
        let mut fds = Vec::new();
        match task.stdio {
            Stdio::Null | Stdio::Passed => return Err(state("the task has no streams here")),
            Stdio::Log { .. } => fds.extend(task.stdin.as_ref().map(OwnedFd::try_clone).transpose().map_err(failed)?),
            Stdio::LogTerminal | Stdio::Terminal => {
                let master = task.terminal.as_ref().ok_or_else(|| state("the task has no terminal yet"))?;
                fds.push(master.try_clone().map_err(failed)?.into());
            }
        }
        if task.stdio == Stdio::Terminal {
            return Ok((Reply::Done, fds));
        }
        if !matches!(task.state, State::Starting | State::Running) {
            return Err(state("the task has ended"));
        }
        let count = if task.stdio == Stdio::LogTerminal { 1 } else { 2 };
        for source in &mut task.sources[..count] {
            let copy = match source {
                Some(source) => source.copy().map_err(failed)?,
                // The stream has ended while the process lives: a copy of nothing.
                None => Some(io::pipe().map_err(failed)?.0.into()),
            };
            fds.push(copy.ok_or_else(|| Refused::new(Refusal::Limit, "too many are attached to this task"))?);
        }
        Ok((Reply::Done, fds))
    }

    fn resize(&mut self, id: &str, rows: u16, cols: u16) -> Answer {
        let at = self.find(id)?;
        let terminal = self.tasks[at].terminal.as_ref().ok_or_else(|| state("the task has no terminal"))?;
        pty::set_size(terminal.as_fd(), rows, cols).map_err(|e| Refused::system("resize", &e))?;
        done()
    }

    fn close_stdin(&mut self, id: &str) -> Answer {
        let at = self.find(id)?;
        let task = &mut self.tasks[at];
        if task.stdio != (Stdio::Log { stdin: true }) {
            return Err(state("the task has no stdin pipe"));
        }
        task.stdin = None;
        done()
    }

    fn forget(&mut self, id: &str) -> Answer {
        let at = self.find(id)?;
        if self.tasks[at].exit().is_none() {
            return Err(state("the task lives; end it first"));
        }
        let task = self.tasks.remove(at);
        if let Some(channel) = &task.channel {
            self.io.forget(channel.as_fd());
        }
        if let Some((_, init)) = &task.init {
            // It is reaped like an orphan, then.
            self.io.forget(init.as_fd());
        }
        self.directory.remove_record(id);
        done()
    }
}

/// A task as the protocol shows it.
fn listed(task: &Task) -> frame::Task {
    frame::Task {
        id: task.id.clone(),
        kind: task.kind,
        pid: task.pid,
        exit: task.exit(),
        log_dropped: task.log.dropped(),
    }
}
