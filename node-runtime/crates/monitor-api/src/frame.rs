//! Daemon to monitor. Frozen: see the crate's header.
//!
//! One `SOCK_SEQPACKET` packet per frame, at most [`MAX_FRAME`] bytes: version (u16), type (u16), tag (u32), fields.
//! A reply carries the tag of its request. Events have tag 0 and go to every connection that subscribed.
//! Descriptors travel in the ancillary data of the frame that names them, in the order that its documentation gives.
use crate::codec::{DecodeError, Reader, Writer};

/// Version of this protocol. A higher one knows more messages; those of a lower one mean the same for ever, so that daemon and monitor
/// of different versions understand each other. Who asks for a message that the other does not know gets an error.
pub const VERSION: u16 = if cfg!(feature = "next-version") { 2 } else { 1 };
/// Longest frame in bytes.
pub const MAX_FRAME: usize = 64 * 1024;
/// Longest id of a task in bytes.
pub const MAX_ID: usize = 64;
/// Most descriptors in one frame.
pub const MAX_FDS: usize = 16;
/// Most tasks in one [`Reply::Tasks`]; a monitor refuses to supervise more.
pub const MAX_TASKS: usize = 400;
const MAX_MESSAGE: usize = 4096;

/// What a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskKind {
    /// Makes a pod's namespaces; with a shared pid namespace its child stays as that namespace's PID 1.
    Sandbox,
    /// A container's main process.
    Container,
    /// A command in a running container.
    Exec,
}

/// Where a task's standard streams go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stdio {
    /// All three are /dev/null.
    Null,
    /// Pipes of the monitor; what comes out is written to the log fd in CRI format.
    Log {
        /// Keep a pipe for stdin, else /dev/null.
        stdin: bool,
    },
    /// The terminal that init sends; what comes out is written to the log fd as stdout.
    LogTerminal,
    /// Descriptors of the daemon: stdin, stdout, stderr.
    Passed,
    /// The terminal that init sends; the monitor keeps its master for [`Request::Attach`] and does not read from it.
    Terminal,
}

/// Whether a text can be a task's id: 1 to [`MAX_ID`] ASCII letters, digits, `_` and `-`. It becomes a file's name.
pub fn is_task_id(text: &str) -> bool {
    (1..=MAX_ID).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// The order in which descriptors follow a [`Request::Spawn`]: always the init executable, the spec and the sync socket;
/// then those whose flag is set; then, for [`Stdio::Passed`], stdin, stdout, stderr.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spawn {
    /// Id of the new task, unique within the monitor; see [`is_task_id`].
    pub id: String,
    /// What it is.
    pub kind: TaskKind,
    /// Its streams.
    pub stdio: Stdio,
    /// Id of the task whose pidfd init gets as [`crate::init_fd::TARGET`]; empty is none.
    pub join: String,
    /// A log file follows, opened for appending ([`Stdio::Log`], [`Stdio::LogTerminal`]).
    pub log_fd: bool,
    /// The cgroup's `memory.events` (v2) or `memory.oom_control` (v1) follows; its `oom_kill` count is read at exit.
    pub oom_fd: bool,
    /// The cgroup's `cgroup.kill` follows; `1` is written when the main process has ended, so that nothing outlives it.
    pub kill_fd: bool,
}

/// A request of the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// First on every connection. Reply: [`Reply::Hello`].
    Hello,
    /// Starts a task. Reply: [`Reply::Spawned`] once init was executed; how it goes on, the sync socket tells.
    Spawn(Spawn),
    /// Sends a signal through the task's pidfd. Reply: [`Reply::Done`].
    Signal {
        /// Task.
        id: String,
        /// Signal number.
        signal: i32,
    },
    /// Switches the log to the descriptor that follows, between two records. Reply: [`Reply::Done`].
    ReopenLog {
        /// Task.
        id: String,
    },
    /// Asks for a task's streams. Reply: [`Reply::Done`] with descriptors: for [`Stdio::Terminal`] the master; for
    /// [`Stdio::LogTerminal`] the master, for writing only, and a pipe to read a copy of the output from; for [`Stdio::Log`]
    /// the write end of the stdin pipe, if it has one that is open, and two pipes to read copies of stdout and stderr from.
    /// Who reads too slowly loses bytes of his copy; the container and its log never wait for him.
    Attach {
        /// Task.
        id: String,
    },
    /// Sets the size of a task's terminal. Reply: [`Reply::Done`].
    Resize {
        /// Task.
        id: String,
        /// Rows.
        rows: u16,
        /// Columns.
        cols: u16,
    },
    /// Closes a task's stdin pipe. Reply: [`Reply::Done`].
    CloseStdin {
        /// Task.
        id: String,
    },
    /// Asks for all tasks, ended ones that were not forgotten included. Reply: [`Reply::Tasks`].
    List,
    /// Forgets an ended task and removes its exit record. Reply: [`Reply::Done`].
    Forget {
        /// Task.
        id: String,
    },
    /// From now on exits come as [`Reply::Exited`] on this connection. Reply: [`Reply::Done`].
    Subscribe,
    /// Gives a task descriptors of a cgroup that it did not have when it was spawned: a systemd scope is made around a process
    /// that lives already. Follow, as flagged: the file with `oom_kill`, and `cgroup.kill`. Reply: [`Reply::Done`].
    Cgroup {
        /// Task.
        id: String,
        /// `memory.events` follows.
        oom_fd: bool,
        /// `cgroup.kill` follows.
        kill_fd: bool,
    },
    /// Ends the monitor. Refused while a task lives. Reply: [`Reply::Done`], then end of file.
    Shutdown,
}

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Exit code, or 128 + signal.
    pub code: i32,
    /// Whether a signal ended it.
    pub signaled: bool,
    /// Init ended before it named a child: the program was never executed.
    pub start_failed: bool,
    /// `oom_kill` of the cgroup when it ended; 0 if there was no descriptor to read it from.
    pub oom_kills: u64,
    /// When, in Unix nanoseconds.
    pub finished_at: i64,
}

/// One task as the monitor sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Id.
    pub id: String,
    /// What it is.
    pub kind: TaskKind,
    /// Process id of the child; 0 before init has named it.
    pub pid: u32,
    /// How it ended, if it did.
    pub exit: Option<Exit>,
    /// Log bytes that could not be written (disk full).
    pub log_dropped: u64,
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No such task.
    NotFound,
    /// The id is taken.
    Exists,
    /// The task is in the wrong state, or of the wrong kind.
    State,
    /// The frame was not understood, or its descriptors were wrong.
    BadRequest,
    /// Too many tasks.
    Limit,
    /// A system call failed.
    System,
}

/// A reply or event of the monitor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Who speaks.
    Hello {
        /// Protocol version of the monitor.
        version: u16,
        /// Its process id.
        pid: u32,
        /// The pod it was started for.
        pod: String,
    },
    /// Init runs.
    Spawned {
        /// Its process id.
        init_pid: u32,
    },
    /// Done.
    Done,
    /// All tasks.
    Tasks(Vec<Task>),
    /// Not done.
    Refused {
        /// Why.
        refusal: Refusal,
        /// The errno behind it, or 0.
        errno: i32,
        /// In words.
        message: String,
    },
    /// Event: a task ended. Its record is on tmpfs already.
    Exited {
        /// Task.
        id: String,
        /// How.
        exit: Exit,
    },
}

/// A frame with its tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tagged<T> {
    /// Tag.
    pub tag: u32,
    /// Body.
    pub body: T,
}

// === codec ===

fn header(kind: u16, tag: u32) -> Writer {
    let mut w = Writer::default();
    w.u16(VERSION).u16(kind).u32(tag);
    w
}

fn open(bytes: &[u8]) -> Result<(u16, u32, Reader<'_>), DecodeError> {
    if bytes.len() > MAX_FRAME {
        return Err(DecodeError::TooLong);
    }
    let mut r = Reader(bytes);
    let _version = r.u16()?;
    let (kind, tag) = (r.u16()?, r.u32()?);
    Ok((kind, tag, r))
}

/// Defines an enumeration's wire numbers once, for both directions.
macro_rules! wire_numbers {
    ($type:ident { $($variant:ident = $number:literal),+ $(,)? }) => {
        impl $type {
            fn number(self) -> u8 {
                match self { $(Self::$variant => $number),+ }
            }
            fn from_number(n: u8) -> Result<Self, DecodeError> {
                match n { $($number => Ok(Self::$variant),)+ _ => Err(DecodeError::BadValue) }
            }
        }
    };
}

wire_numbers!(TaskKind { Sandbox = 1, Container = 2, Exec = 3 });
wire_numbers!(Refusal { NotFound = 1, Exists = 2, State = 3, BadRequest = 4, Limit = 5, System = 6 });

impl Stdio {
    fn number(self) -> u8 {
        match self {
            Self::Null => 1,
            Self::Log { stdin: false } => 2,
            Self::Log { stdin: true } => 3,
            Self::LogTerminal => 4,
            Self::Passed => 5,
            Self::Terminal => 6,
        }
    }
    fn from_number(n: u8) -> Result<Self, DecodeError> {
        Ok(match n {
            1 => Self::Null,
            2 => Self::Log { stdin: false },
            3 => Self::Log { stdin: true },
            4 => Self::LogTerminal,
            5 => Self::Passed,
            6 => Self::Terminal,
            _ => return Err(DecodeError::BadValue),
        })
    }
}

impl Tagged<Request> {
    /// The packet.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = header(self.body.kind(), self.tag);
        match &self.body {
            Request::Hello | Request::List | Request::Subscribe | Request::Shutdown => {}
            Request::Spawn(s) => {
                w.text(&s.id).u8(s.kind.number()).u8(s.stdio.number()).text(&s.join);
                w.u8(s.log_fd.into()).u8(s.oom_fd.into()).u8(s.kill_fd.into());
            }
            Request::Signal { id, signal } => {
                w.text(id).i32(*signal);
            }
            Request::Cgroup { id, oom_fd, kill_fd } => {
                w.text(id).u8((*oom_fd).into()).u8((*kill_fd).into());
            }
            Request::Resize { id, rows, cols } => {
                w.text(id).u16(*rows).u16(*cols);
            }
            Request::ReopenLog { id }
            | Request::Attach { id }
            | Request::CloseStdin { id }
            | Request::Forget { id } => {
                w.text(id);
            }
        }
        w.finish()
    }

    /// Reads a packet.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (kind, tag, mut r) = open(bytes)?;
        let body = match kind {
            1 => Request::Hello,
            2 => Request::Spawn(Spawn {
                id: r.text(MAX_ID)?,
                kind: TaskKind::from_number(r.u8()?)?,
                stdio: Stdio::from_number(r.u8()?)?,
                join: r.text(MAX_ID)?,
                log_fd: r.bool()?,
                oom_fd: r.bool()?,
                kill_fd: r.bool()?,
            }),
            3 => Request::Signal { id: r.text(MAX_ID)?, signal: r.i32()? },
            4 => Request::ReopenLog { id: r.text(MAX_ID)? },
            5 => Request::Attach { id: r.text(MAX_ID)? },
            6 => Request::Resize { id: r.text(MAX_ID)?, rows: r.u16()?, cols: r.u16()? },
            7 => Request::CloseStdin { id: r.text(MAX_ID)? },
            8 => Request::List,
            9 => Request::Forget { id: r.text(MAX_ID)? },
            12 => Request::Cgroup { id: r.text(MAX_ID)?, oom_fd: r.bool()?, kill_fd: r.bool()? },
            10 => Request::Subscribe,
            11 => Request::Shutdown,
            other => return Err(DecodeError::UnknownType(other)),
        };
        r.end()?;
        Ok(Self { tag, body })
    }
}

impl Request {
    fn kind(&self) -> u16 {
        match self {
            Self::Hello => 1,
            Self::Spawn(_) => 2,
            Self::Signal { .. } => 3,
            Self::ReopenLog { .. } => 4,
            Self::Attach { .. } => 5,
            Self::Resize { .. } => 6,
            Self::CloseStdin { .. } => 7,
            Self::List => 8,
            Self::Forget { .. } => 9,
            Self::Subscribe => 10,
            Self::Shutdown => 11,
            Self::Cgroup { .. } => 12,
        }
    }
}

fn write_exit(w: &mut Writer, exit: &Exit) {
    w.i32(exit.code).u8(exit.signaled.into()).u8(exit.start_failed.into()).u64(exit.oom_kills).i64(exit.finished_at);
}

fn read_exit(r: &mut Reader<'_>) -> Result<Exit, DecodeError> {
    Ok(Exit {
        code: r.i32()?,
        signaled: r.bool()?,
        start_failed: r.bool()?,
        oom_kills: r.u64()?,
        finished_at: r.i64()?,
    })
}

fn write_task(w: &mut Writer, task: &Task) {
    w.text(&task.id).u8(task.kind.number()).u32(task.pid).u64(task.log_dropped).u8(task.exit.is_some().into());
    if let Some(exit) = &task.exit {
        write_exit(w, exit);
    }
}

fn read_task(r: &mut Reader<'_>) -> Result<Task, DecodeError> {
    Ok(Task {
        id: r.text(MAX_ID)?,
        kind: TaskKind::from_number(r.u8()?)?,
        pid: r.u32()?,
        log_dropped: r.u64()?,
        exit: if r.bool()? { Some(read_exit(r)?) } else { None },
    })
}

impl Tagged<Reply> {
    /// The packet.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = header(self.body.kind(), self.tag);
        match &self.body {
            Reply::Hello { version, pid, pod } => {
                w.u16(*version).u32(*pid).text(pod);
            }
            Reply::Spawned { init_pid } => {
                w.u32(*init_pid);
            }
            Reply::Done => {}
            Reply::Tasks(tasks) => {
                w.u32(u32::try_from(tasks.len()).unwrap_or(u32::MAX));
                tasks.iter().for_each(|t| write_task(&mut w, t));
            }
            Reply::Refused { refusal, errno, message } => {
                w.u8(refusal.number()).i32(*errno).text(message);
            }
            Reply::Exited { id, exit } => {
                w.text(id);
                write_exit(&mut w, exit);
            }
        }
        w.finish()
    }

    /// Reads a packet.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (kind, tag, mut r) = open(bytes)?;
        let body = match kind {
            101 => Reply::Hello { version: r.u16()?, pid: r.u32()?, pod: r.text(MAX_ID)? },
            102 => Reply::Spawned { init_pid: r.u32()? },
            103 => Reply::Done,
            104 => {
                let count = r.u32()? as usize;
                if count > MAX_TASKS {
                    return Err(DecodeError::TooLong);
                }
                Reply::Tasks((0..count).map(|_| read_task(&mut r)).collect::<Result<_, _>>()?)
            }
            105 => Reply::Refused {
                refusal: Refusal::from_number(r.u8()?)?,
                errno: r.i32()?,
                message: r.text(MAX_MESSAGE)?,
            },
            106 => Reply::Exited { id: r.text(MAX_ID)?, exit: read_exit(&mut r)? },
            other => return Err(DecodeError::UnknownType(other)),
        };
        r.end()?;
        Ok(Self { tag, body })
    }
}

impl Reply {
    fn kind(&self) -> u16 {
        match self {
            Self::Hello { .. } => 101,
            Self::Spawned { .. } => 102,
            Self::Done => 103,
            Self::Tasks(_) => 104,
            Self::Refused { .. } => 105,
            Self::Exited { .. } => 106,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn exit() -> Exit {
        Exit { code: 137, signaled: true, start_failed: false, oom_kills: 2, finished_at: 1_700_000_000_000_000_000 }
    }

    #[test]
    fn requests_round_trip() {
        let id = || "a".repeat(64);
        let spawn = |kind, stdio| {
            Request::Spawn(Spawn { id: id(), kind, stdio, join: id(), log_fd: true, oom_fd: false, kill_fd: true })
        };
        let all = [
            Request::Hello,
            spawn(TaskKind::Sandbox, Stdio::Null),
            spawn(TaskKind::Container, Stdio::Log { stdin: true }),
            spawn(TaskKind::Container, Stdio::Log { stdin: false }),
            spawn(TaskKind::Container, Stdio::LogTerminal),
            spawn(TaskKind::Exec, Stdio::Passed),
            spawn(TaskKind::Exec, Stdio::Terminal),
            Request::Signal { id: id(), signal: 15 },
            Request::ReopenLog { id: id() },
            Request::Attach { id: id() },
            Request::Resize { id: id(), rows: 24, cols: 80 },
            Request::CloseStdin { id: id() },
            Request::List,
            Request::Forget { id: id() },
            Request::Subscribe,
            Request::Shutdown,
            Request::Cgroup { id: id(), oom_fd: true, kill_fd: false },
        ];
        for (tag, body) in (7..).zip(all) {
            let frame = Tagged { tag, body };
            assert_eq!(Tagged::<Request>::decode(&frame.encode()), Ok(frame));
        }
    }

    #[test]
    fn replies_round_trip_and_the_longest_list_fits() {
        let task = |exit| Task { id: "b".repeat(64), kind: TaskKind::Exec, pid: 42, exit, log_dropped: 1 };
        let all = [
            Reply::Hello { version: 1, pid: 9, pod: "p".repeat(64) },
            Reply::Spawned { init_pid: 3 },
            Reply::Done,
            Reply::Tasks(vec![task(None), task(Some(exit()))]),
            Reply::Tasks(vec![task(Some(exit())); MAX_TASKS]),
            Reply::Refused { refusal: Refusal::State, errno: 3, message: "task has ended".into() },
            Reply::Exited { id: "c".into(), exit: exit() },
        ];
        for (tag, body) in (0..).zip(all) {
            let frame = Tagged { tag, body };
            let bytes = frame.encode();
            assert!(bytes.len() <= MAX_FRAME, "{} bytes", bytes.len());
            assert_eq!(Tagged::<Reply>::decode(&bytes), Ok(frame));
        }
    }

    #[test]
    fn ids_cannot_leave_their_directory() {
        assert!(is_task_id(&"a".repeat(64)) && is_task_id("exec-1_b"));
        for bad in ["", ".", "..", "a/b", "a b", "a\0", "\u{e9}", &"a".repeat(65)] {
            assert!(!is_task_id(bad), "{bad:?}");
        }
    }

    #[test]
    fn version_one_is_frozen() {
        let frame = Tagged { tag: 2, body: Request::Signal { id: "ab".into(), signal: 9 } };
        let [low, high] = VERSION.to_le_bytes();
        assert_eq!(frame.encode(), [low, high, 3, 0, 2, 0, 0, 0, 2, 0, 0, 0, b'a', b'b', 9, 0, 0, 0]);
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(frame) = Tagged::<Request>::decode(&bytes) {
                prop_assert_eq!(Tagged::<Request>::decode(&frame.encode()), Ok(frame));
            }
            let _ = Tagged::<Reply>::decode(&bytes);
            let _ = crate::child::ChildMessage::decode(&bytes);
        }
    }
}
