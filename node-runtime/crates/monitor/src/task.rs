//! One task: the descriptors and the state of a process that is supervised.
//!
//! Owns: the state and what it allows. Must not: act on it (`supervise`, `request`).
use crate::log::Log;
use crate::oom::OomCounter;
use crate::source::Source;
use berth_monitor_api::frame::{Exit, Stdio, TaskKind};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// How long output may still come after the main process has ended, if something else holds its pipes.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);
/// How long it may be silent in that time.
const DRAIN_SILENCE: Duration = Duration::from_millis(200);

/// Where a task is in its life.
#[derive(Debug, Clone, Copy)]
pub enum State {
    /// Init runs and has not named the main process.
    Starting,
    /// The main process is known.
    Running,
    /// It has ended; its output is still read.
    Draining {
        /// How it ended.
        exit: Exit,
        /// When reading ends if nothing more comes.
        silent_at: Instant,
        /// When reading ends in any case.
        until: Instant,
    },
    /// All is over.
    Ended {
        /// How.
        exit: Exit,
        /// Number of this end among all of this monitor.
        sequence: u64,
    },
}

/// A task.
#[derive(Debug)]
pub struct Task {
    /// Number in the event loop.
    pub serial: u32,
    /// Id.
    pub id: String,
    /// What it is.
    pub kind: TaskKind,
    /// Its streams.
    pub stdio: Stdio,
    /// Where it is in its life.
    pub state: State,
    /// Init, while it has not been reaped: process id, pidfd.
    pub init: Option<(u32, OwnedFd)>,
    /// The main process, while it has not been reaped.
    pub child: Option<OwnedFd>,
    /// Process id of the main process, also when it has ended; 0 before it is known.
    pub pid: u32,
    /// Socket to init.
    pub channel: Option<OwnedFd>,
    /// Write end of the stdin pipe.
    pub stdin: Option<OwnedFd>,
    /// The terminal's master.
    pub terminal: Option<File>,
    /// What is read for the log: stdout (or the terminal), stderr.
    pub sources: [Option<Source>; 2],
    /// The log.
    pub log: Log<File>,
    /// OOM counter of its cgroup.
    pub oom: Option<OomCounter>,
    /// `cgroup.kill` of its cgroup.
    pub kill: Option<File>,
}

impl Task {
    /// How it ended, once that is final.
    pub fn exit(&self) -> Option<Exit> {
        match self.state {
            State::Ended { exit, .. } => Some(exit),
            _ => None,
        }
    }

    /// Number of its end, if it has ended.
    pub fn sequence(&self) -> Option<u64> {
        match self.state {
            State::Ended { sequence, .. } => Some(sequence),
            _ => None,
        }
    }

    /// Whether init still has to name the main process.
    pub fn is_starting(&self) -> bool {
        matches!(self.state, State::Starting)
    }

    /// The state after the main process's end.
    pub fn draining(exit: Exit) -> State {
        let now = Instant::now();
        State::Draining { exit, silent_at: now + DRAIN_SILENCE, until: now + DRAIN_LIMIT }
    }

    /// Output came: the silence starts anew.
    pub fn heard(&mut self) {
        if let State::Draining { silent_at, .. } = &mut self.state {
            *silent_at = Instant::now() + DRAIN_SILENCE;
        }
    }

    /// When something is due for this task without an event.
    pub fn due(&self) -> Option<Instant> {
        let drained = match self.state {
            State::Draining { silent_at, until, .. } => Some(silent_at.min(until)),
            _ => None,
        };
        let parked = self.sources.iter().flatten().filter_map(|source| source.parked_until);
        parked.chain(drained).min()
    }
}
