//! The event loop.
//!
//! Owns: the descriptors that are watched, the tables of connections and tasks, the timers. Must not: block, on anything: a stopped
//! daemon, a full disk and a silent container are all the same to it.
use crate::connection::Connection;
use crate::files::Directory;
use crate::log;
use crate::task::{State, Task};
use crate::token::{Part, Token};
use berth_sys::poll::{BATCH, Epoll, Event, Interest};
use berth_sys::process::{self, ChildSignal};
use berth_sys::scratch::Scratch;
use berth_sys::socket;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Most connections: the daemon, its successor during an upgrade, and the streaming processes of both and of those before them whose
/// last session still runs.
const MAX_CONNECTIONS: usize = 16;
/// Size of one read, and room for the longest frame.
const INPUT: usize = 64 * 1024;
/// Room for records on their way to a file.
const RECORDS: usize = 128 * 1024;
/// After so long without work the buffers' memory is given back.
const IDLE: Duration = Duration::from_millis(100);
/// How often an exit record that did not fit on its file system is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// SIGHUP, SIGINT, SIGPIPE, SIGTERM (signal(7)): none of them ends a monitor.
const IGNORED: [i32; 4] = [1, 2, 13, 15];

const _: () = assert!(RECORDS >= log::MIN_BUFFER && INPUT >= berth_monitor_api::frame::MAX_FRAME);

/// What is shared by everything that is watched.
pub struct Io {
    /// The interest list.
    pub epoll: Epoll,
    buffer: Scratch,
    dirty: bool,
}

impl Io {
    /// A buffer for input, of which a frame fits into, and one for records.
    pub fn buffers(&mut self) -> (&mut [u8], &mut [u8]) {
        self.dirty = true;
        self.buffer.split_at_mut(INPUT)
    }

    /// Watches a descriptor. One that cannot be watched (a regular file) never has news.
    pub fn watch(&self, fd: BorrowedFd<'_>, token: Token, interest: Interest) {
        let _ = self.epoll.add(fd, token.encode(), interest);
    }

    /// Stops watching a descriptor that is about to be closed.
    pub fn forget(&self, fd: BorrowedFd<'_>) {
        let _ = self.epoll.remove(fd);
    }
}

/// The monitor.
pub struct Server {
    /// Id of the pod.
    pub pod: String,
    /// The runtime directory.
    pub directory: Directory,
    /// What is watched, and buffers.
    pub io: Io,
    /// Connections.
    pub connections: Vec<Connection>,
    /// Tasks, by rising serial number.
    pub tasks: Vec<Task>,
    /// /dev/null, for reading and writing.
    pub null: File,
    /// Limits of open files that tasks start with.
    pub nofile: (u64, u64),
    /// How many tasks have ended.
    pub ended: u64,
    /// Whether adopted children may wait to be reaped.
    pub orphans: bool,
    /// Whether to end.
    pub stop: bool,
    listener: OwnedFd,
    child_signal: ChildSignal,
    next_serial: u32,
    retry_at: Option<Instant>,
}

/// Time since 1970.
pub fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl Server {
    /// Sets the process up and listens. An error says which step failed.
    pub fn start(pod: &str, dir: &Path) -> Result<Self, String> {
        let at = |step: &'static str| move |e: std::io::Error| format!("{step}: {e}");
        process::set_name(c"berth-monitor");
        process::start_session();
        process::become_subreaper().map_err(at("become subreaper"))?;
        process::ignore_signals(&IGNORED).map_err(at("ignore signals"))?;
        let child_signal = ChildSignal::new().map_err(at("signalfd"))?;
        let nofile = process::raise_nofile().map_err(at("raise the limit of open files"))?;
        let null = File::options().read(true).write(true).open("/dev/null").map_err(at("open /dev/null"))?;
        let directory = Directory::open(dir)?;
        let listener = directory.listen().map_err(at("listen"))?;
        // The directory a monitor was started in is none of its business, and must not be held.
        std::env::set_current_dir("/").map_err(at("chdir /"))?;
        let epoll = Epoll::new().map_err(at("epoll"))?;
        let buffer = Scratch::new(INPUT + RECORDS).map_err(at("map buffers"))?;
        let io = Io { epoll, buffer, dirty: false };
        io.watch(listener.as_fd(), Token::Listener, Interest::Read);
        io.watch(child_signal.as_fd(), Token::ChildSignal, Interest::Read);
        Ok(Self {
            pod: pod.to_owned(),
            directory,
            io,
            connections: Vec::new(),
            tasks: Vec::new(),
            null,
            nofile,
            ended: 0,
            orphans: false,
            stop: false,
            listener,
            child_signal,
            next_serial: 1,
            retry_at: None,
        })
    }

    /// Works until told to stop.
    pub fn run(&mut self) {
        let mut events: Vec<Event> = Vec::with_capacity(BATCH);
        while !self.stop {
            let timeout = self.timeout();
            if self.io.epoll.wait(&mut events, timeout).is_err() {
                // Nothing but a bug of ours makes epoll_wait fail; do not turn it into a busy loop.
                std::thread::sleep(IDLE);
            }
            if events.is_empty() && self.io.dirty {
                self.io.buffer.release();
                self.io.dirty = false;
            }
            for event in &events {
                self.dispatch(*event);
            }
            self.tick();
        }
        self.directory.remove_socket();
    }

    /// A number for something new.
    pub fn serial(&mut self) -> u32 {
        let serial = self.next_serial;
        self.next_serial = self.next_serial.wrapping_add(1).max(1);
        serial
    }

    /// Place of a task by its serial number.
    pub fn task_at(&self, serial: u32) -> Option<usize> {
        self.tasks.iter().position(|task| task.serial == serial)
    }

    fn dispatch(&mut self, event: Event) {
        match Token::decode(event.token) {
            Some(Token::Listener) => self.accept(),
            Some(Token::ChildSignal) => {
                self.child_signal.clear();
                self.orphans = true;
            }
            Some(Token::Connection(serial)) => self.connection_ready(serial, event),
            Some(Token::Task(serial, part)) => {
                if let Some(at) = self.task_at(serial) {
                    match part {
                        Part::Init => self.init_ended(at),
                        Part::Child => self.child_ended(at),
                        Part::Channel => self.pump_channel(at),
                        Part::Output(index) => self.output_ready(at, index),
                        Part::Oom => self.oom_changed(at),
                    }
                }
            }
            None => {}
        }
    }

    /// Takes connections of the user that the monitor runs as (root); closes others at once.
    fn accept(&mut self) {
        while let Ok(fd) = socket::accept(self.listener.as_fd()) {
            let trusted = socket::peer(fd.as_fd()).is_ok_and(|peer| peer.uid == process::effective_uid());
            if !trusted || self.connections.len() >= MAX_CONNECTIONS {
                continue;
            }
            let serial = self.serial();
            self.io.watch(fd.as_fd(), Token::Connection(serial), Interest::Read);
            self.connections.push(Connection::new(serial, fd));
        }
    }

    /// How long to wait for events.
    fn timeout(&self) -> Option<Duration> {
        let due = self.tasks.iter().filter_map(Task::due).chain(self.retry_at).min();
        let due = due.map(|at| at.saturating_duration_since(Instant::now()));
        if self.io.dirty { Some(due.map_or(IDLE, |due| due.min(IDLE))) } else { due }
    }

    /// Does what is due without an event.
    fn tick(&mut self) {
        let now = Instant::now();
        for at in 0..self.tasks.len() {
            if self.tasks[at].due().is_some_and(|due| due <= now) {
                self.unpark(at, now);
                if matches!(self.tasks[at].state, State::Draining { silent_at, until, .. } if silent_at.min(until) <= now)
                {
                    self.finish(at);
                }
            }
        }
        if self.directory.has_unwritten() && self.retry_at.is_none_or(|at| at <= now) {
            self.directory.retry();
            self.retry_at = self.directory.has_unwritten().then(|| now + RETRY);
        }
        if self.orphans {
            self.reap_orphans();
        }
    }
}
