//! One connection to one monitor.
//!
//! Owns: matching replies to requests, handing exits on, noticing the monitor's end. Must not: reconnect by itself; whoever holds the
//! pod decides that.
use crate::channel::{Channel, watch};
use crate::{CALL_LIMIT, Program, Start, figures};
use berth_model::{Error, ErrorKind, PodId, Result, ResultExt};
use berth_monitor_api::frame::{self, Exit, Refusal, Reply, Request, Spawn, Stdio, Tagged, Task, TaskKind};
use berth_monitor_api::spec::{InitSpec, MAX_SPEC};
use berth_sys::{memfd, pidfd, socket};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot, watch as state};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout, timeout_at};

/// How long after the end of a connection the monitor's own end may still show.
const LAST_BREATH: Duration = Duration::from_millis(200);
const SIGKILL: i32 = 9;
/// How often a socket that is not there yet is tried.
const RETRY: Duration = Duration::from_millis(2);

/// Why a connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// The monitor's process has ended.
    ProcessEnded,
    /// The monitor lives, but this connection is gone; connect again.
    ConnectionLost,
}

/// Where a new task's streams go; see [`Stdio`].
#[derive(Debug)]
pub enum TaskStdio<'a> {
    /// /dev/null.
    Null,
    /// Pipes to the log.
    Log {
        /// Keep a pipe for stdin.
        stdin: bool,
    },
    /// A terminal to the log.
    LogTerminal,
    /// These: stdin, stdout, stderr.
    Passed([BorrowedFd<'a>; 3]),
    /// A terminal for [`Monitor::attach`].
    Terminal,
}

/// A task to start.
#[derive(Debug)]
pub struct SpawnRequest<'a> {
    /// Init, of the daemon's own version.
    pub init: &'a Program,
    /// Id, unique in the pod: that of the pod, the container or the exec.
    pub id: &'a str,
    /// What it is.
    pub kind: TaskKind,
    /// Its streams.
    pub stdio: TaskStdio<'a>,
    /// Id of a running task that init gets the pidfd of.
    pub join: Option<&'a str>,
    /// Log file, open for appending.
    pub log: Option<BorrowedFd<'a>>,
    /// `memory.events` or `memory.oom_control` of its cgroup, open for reading.
    pub oom: Option<BorrowedFd<'a>>,
    /// `cgroup.kill` of its cgroup, open for writing.
    pub kill: Option<BorrowedFd<'a>>,
    /// What init makes.
    pub spec: &'a InitSpec,
}

/// A connection. Copies share it; the last one closes it.
#[derive(Debug, Clone)]
pub struct Monitor(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    reader: AbortHandle,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

#[derive(Debug)]
struct Shared {
    pod: PodId,
    pid: u32,
    channel: Channel,
    next_tag: AtomicU32,
    /// Version of the protocol that the monitor speaks; 0 until it has said it.
    version: AtomicU16,
    table: Mutex<Table>,
    closed: state::Sender<Option<Closed>>,
}

#[derive(Debug, Default)]
struct Table {
    waiting: HashMap<u32, oneshot::Sender<(Reply, Vec<OwnedFd>)>>,
    exits: Vec<mpsc::UnboundedSender<(String, Exit)>>,
    closed: bool,
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while it holds the lock; and a table after a panic is still a table.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads replies and exits until the connection or the process is over.
    async fn read(self: Arc<Self>, process: AsyncFd<OwnedFd>) {
        let mut buffer = vec![0; frame::MAX_FRAME];
        let closed = loop {
            tokio::select! {
                biased;
                packet = self.channel.recv(&mut buffer) => match packet {
                    Ok((length, fds)) if length > 0 => {
                        let Ok(frame) = Tagged::<Reply>::decode(&buffer[..length]) else { break Closed::ConnectionLost };
                        self.received(frame, fds);
                    }
                    // The end: usually because the process ends, which shows a moment later.
                    _ => match timeout(LAST_BREATH, process.readable()).await {
                        Ok(_) => break Closed::ProcessEnded,
                        Err(_) => break Closed::ConnectionLost,
                    },
                },
                _ = process.readable() => break Closed::ProcessEnded,
            }
        };
        let mut table = self.table();
        table.closed = true;
        table.waiting.clear();
        table.exits.clear();
        drop(table);
        self.closed.send_replace(Some(closed));
    }

    fn received(&self, frame: Tagged<Reply>, fds: Vec<OwnedFd>) {
        let mut table = self.table();
        match frame.body {
            Reply::Exited { id, exit } => table.exits.retain(|sender| sender.send((id.clone(), exit)).is_ok()),
            reply => {
                if let Some(sender) = table.waiting.remove(&frame.tag) {
                    // Who asked may have stopped waiting.
                    let _ = sender.send((reply, fds));
                }
            }
        }
    }
}

impl Monitor {
    /// Connects to the monitor of a pod, whose runtime directory is `dir`, and waits until `deadline` for one that is just
    /// starting. `Unavailable` if nobody listens by then.
    pub async fn connect(dir: &Path, pod: &PodId, deadline: Instant) -> Result<Self> {
        let directory: PathBuf = dir.to_owned();
        let directory = tokio::task::spawn_blocking(move || File::open(directory)).await.map_err(joined)?;
        let directory = directory.context(|| format!("runtime directory {}", dir.display()))?;
        let fd = loop {
            match socket::connect(directory.as_fd(), berth_monitor_api::SOCKET) {
                Ok(fd) => break fd,
                Err(e) if Instant::now() >= deadline => {
                    let text = format!("monitor of pod {pod} does not listen in {}: {e}", dir.display());
                    return Err(Error::new(ErrorKind::Unavailable, text));
                }
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        };
        let hello = Self::greet(fd, pod);
        let late =
            |_| Error::new(ErrorKind::DeadlineExceeded, format!("monitor of pod {pod} accepts but does not answer"));
        timeout_at(deadline.max(Instant::now() + LAST_BREATH), hello).await.map_err(late)?
    }

    async fn greet(fd: OwnedFd, pod: &PodId) -> Result<Self> {
        let at = || format!("monitor of pod {pod}");
        // The process that listens is the one that answers below, so the number still means it when the pidfd is opened.
        let pid = socket::peer(fd.as_fd()).context(at)?.pid;
        let process = pidfd::open(pid).and_then(watch).context(at)?;
        let shared = Arc::new(Shared {
            pod: pod.clone(),
            pid,
            channel: Channel::new(fd).context(at)?,
            next_tag: AtomicU32::new(1),
            version: AtomicU16::new(0),
            table: Mutex::default(),
            closed: state::Sender::new(None),
        });
        let reader = tokio::spawn(Arc::clone(&shared).read(process)).abort_handle();
        let monitor = Self(Arc::new(Handle { shared, reader }));
        match monitor.request(Request::Hello, &[]).await?.0 {
            Reply::Hello { pod: other, .. } if other != pod.as_str() => {
                Err(Error::internal(format!("{} says that it is of pod {other}", at())))
            }
            // Any version will do: what this one says, every monitor understands.
            Reply::Hello { version, .. } => {
                monitor.0.shared.version.store(version, Ordering::Relaxed);
                monitor.done(Request::Subscribe).await?;
                Ok(monitor)
            }
            other => Err(monitor.unexpected(&other)),
        }
    }

    /// Process id of the monitor.
    pub fn pid(&self) -> u32 {
        self.0.shared.pid
    }

    /// Version of the protocol that the monitor speaks.
    pub fn version(&self) -> u16 {
        self.0.shared.version.load(Ordering::Relaxed)
    }

    /// Starts a task: init has been executed when this returns, and [`Start`] tells how it goes on.
    pub async fn spawn(&self, request: SpawnRequest<'_>) -> Result<Start> {
        let bytes = request.spec.encode();
        if bytes.len() > MAX_SPEC {
            let problem = format!("arguments, environment and mounts of {} take {} bytes", request.id, bytes.len());
            return Err(Error::invalid("spec", format!("{problem}, the limit is {MAX_SPEC}")));
        }
        let spec = memfd::sealed("berth-spec", &bytes).context(|| "memory file for the spec")?;
        let (ours, sync) = socket::pair().context(|| "socket pair for the start")?;
        let mut fds = vec![request.init.as_fd(), spec.as_fd(), sync.as_fd()];
        fds.extend([request.log, request.oom, request.kill].into_iter().flatten());
        let stdio = match request.stdio {
            TaskStdio::Null => Stdio::Null,
            TaskStdio::Log { stdin } => Stdio::Log { stdin },
            TaskStdio::LogTerminal => Stdio::LogTerminal,
            TaskStdio::Terminal => Stdio::Terminal,
            TaskStdio::Passed(streams) => {
                fds.extend(streams);
                Stdio::Passed
            }
        };
        let spawn = Request::Spawn(Spawn {
            id: request.id.to_owned(),
            kind: request.kind,
            stdio,
            join: request.join.unwrap_or_default().to_owned(),
            log_fd: request.log.is_some(),
            oom_fd: request.oom.is_some(),
            kill_fd: request.kill.is_some(),
        });
        match self.request(spawn, &fds).await?.0 {
            // Our copy of init's end is closed when this returns, so that init's death is the end of the conversation.
            Reply::Spawned { init_pid } => Start::new(request.id, ours, init_pid),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Sends a signal to a task.
    pub async fn signal(&self, id: &str, signal: i32) -> Result<()> {
        self.done(Request::Signal { id: id.to_owned(), signal }).await
    }

    /// Switches a task's log to another file, between two records.
    pub async fn reopen_log(&self, id: &str, file: BorrowedFd<'_>) -> Result<()> {
        match self.request(Request::ReopenLog { id: id.to_owned() }, &[file]).await?.0 {
            Reply::Done => Ok(()),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Hands over descriptors of a cgroup that was made around a task's living process.
    pub async fn set_cgroup(&self, id: &str, oom: Option<BorrowedFd<'_>>, kill: Option<BorrowedFd<'_>>) -> Result<()> {
        let request = Request::Cgroup { id: id.to_owned(), oom_fd: oom.is_some(), kill_fd: kill.is_some() };
        let fds: Vec<BorrowedFd<'_>> = [oom, kill].into_iter().flatten().collect();
        match self.request(request, &fds).await?.0 {
            Reply::Done => Ok(()),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Descriptors of a task's streams; which, [`Request::Attach`] says. Never empty.
    pub async fn attach(&self, id: &str) -> Result<Vec<OwnedFd>> {
        match self.request(Request::Attach { id: id.to_owned() }, &[]).await? {
            (Reply::Done, fds) if !fds.is_empty() => Ok(fds),
            (other, _) => Err(self.unexpected(&other)),
        }
    }

    /// Sets the size of a task's terminal.
    pub async fn resize(&self, id: &str, rows: u16, cols: u16) -> Result<()> {
        self.done(Request::Resize { id: id.to_owned(), rows, cols }).await
    }

    /// Closes a task's stdin pipe.
    pub async fn close_stdin(&self, id: &str) -> Result<()> {
        self.done(Request::CloseStdin { id: id.to_owned() }).await
    }

    /// All tasks that were not forgotten.
    pub async fn list(&self) -> Result<Vec<Task>> {
        match self.request(Request::List, &[]).await?.0 {
            Reply::Tasks(tasks) => Ok(tasks),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Forgets an ended task and its exit record.
    pub async fn forget(&self, id: &str) -> Result<()> {
        self.done(Request::Forget { id: id.to_owned() }).await
    }

    /// Ends the monitor; refused while a task lives. Returns when its process is gone.
    pub async fn shutdown(&self) -> Result<()> {
        self.done(Request::Shutdown).await?;
        match timeout(CALL_LIMIT, self.closed()).await {
            Ok(_) => Ok(()),
            Err(_) => Err(self.late("end")),
        }
    }

    /// Kills the monitor, if the connection still stands: then the process is the one that answered.
    pub fn kill(&self) -> Result<()> {
        if self.0.shared.table().closed {
            return Ok(());
        }
        match pidfd::open(self.pid()).and_then(|process| pidfd::signal(process.as_fd(), SIGKILL)) {
            Err(e) if e.raw_os_error() != Some(rustix::io::Errno::SRCH.raw_os_error()) => Err(Error::from(e)),
            _ => Ok(()),
        }
    }

    /// Exits from now on. Take this first and [`Monitor::list`] second, and none is missed.
    pub fn exits(&self) -> mpsc::UnboundedReceiver<(String, Exit)> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut table = self.0.shared.table();
        if !table.closed {
            table.exits.push(sender);
        }
        receiver
    }

    /// Resolves when the connection or the monitor is gone; at once if it is already.
    pub async fn closed(&self) -> Closed {
        let mut closed = self.0.shared.closed.subscribe();
        let state = closed.wait_for(Option::is_some).await.map(|state| *state);
        // The sender lives in `self`, so there is a state.
        state.ok().flatten().unwrap_or(Closed::ConnectionLost)
    }

    async fn done(&self, request: Request) -> Result<()> {
        match self.request(request, &[]).await?.0 {
            Reply::Done => Ok(()),
            other => Err(self.unexpected(&other)),
        }
    }

    /// One request and its reply, within [`CALL_LIMIT`]. Refusals are errors.
    async fn request(&self, body: Request, fds: &[BorrowedFd<'_>]) -> Result<(Reply, Vec<OwnedFd>)> {
        let kind = figures::place(&body);
        let result = self.exchange(body, fds).await;
        figures::count(kind, result.is_err());
        result
    }

    async fn exchange(&self, body: Request, fds: &[BorrowedFd<'_>]) -> Result<(Reply, Vec<OwnedFd>)> {
        let shared = &self.0.shared;
        let tag = shared.next_tag.fetch_add(1, Ordering::Relaxed).max(1);
        let (sender, receiver) = oneshot::channel();
        {
            let mut table = shared.table();
            if table.closed {
                return Err(self.gone("the connection is closed"));
            }
            table.waiting.insert(tag, sender);
        }
        let forget = Forget { shared, tag };
        let exchange = async {
            shared.channel.send(&Tagged { tag, body }.encode(), fds).await.map_err(|e: io::Error| self.gone(e))?;
            receiver.await.map_err(|_| self.gone("it ended before it answered"))
        };
        let result = timeout(CALL_LIMIT, exchange).await.map_err(|_| self.late("answer"))?;
        drop(forget);
        match result? {
            (Reply::Refused { refusal, errno, message }, _) => Err(self.refused(refusal, errno, &message)),
            answered => Ok(answered),
        }
    }

    fn gone(&self, why: impl std::fmt::Display) -> Error {
        Error::new(ErrorKind::Unavailable, format!("monitor of pod {}: {why}", self.0.shared.pod))
    }

    fn late(&self, what: &str) -> Error {
        let text = format!("monitor of pod {} did not {what} within {} s", self.0.shared.pod, CALL_LIMIT.as_secs());
        Error::new(ErrorKind::DeadlineExceeded, text)
    }

    fn unexpected(&self, reply: &Reply) -> Error {
        Error::internal(format!("monitor of pod {} answered with {reply:?}", self.0.shared.pod))
    }

    fn refused(&self, refusal: Refusal, errno: i32, message: &str) -> Error {
        let kind = match refusal {
            Refusal::NotFound => ErrorKind::NotFound,
            Refusal::Exists => ErrorKind::AlreadyExists,
            Refusal::State => ErrorKind::FailedPrecondition,
            Refusal::Limit => ErrorKind::ResourceExhausted,
            Refusal::System => return Error::from(io::Error::from_raw_os_error(errno)).context(message),
            Refusal::BadRequest => ErrorKind::Internal,
        };
        Error::new(kind, message)
    }
}

/// Takes a request out of the table, also when its caller stops waiting.
struct Forget<'a> {
    shared: &'a Shared,
    tag: u32,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.shared.table().waiting.remove(&self.tag);
    }
}

/// A blocking task that panicked or was dropped with the runtime.
fn joined(e: tokio::task::JoinError) -> Error {
    Error::internal(format!("blocking task: {e}"))
}
