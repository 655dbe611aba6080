//! What happens to a task by itself: init names the main process, output comes, processes end.
//!
//! Owns: the transitions of a task's state that no request causes. Must not: send anything but exits to the daemon.
use crate::log::Stream;
use crate::server::{Server, now};
use crate::source::{Found, Source};
use crate::task::{State, Task};
use crate::token::{Part, Token};
use berth_monitor_api::child::{ChildMessage, PACKET_LEN};
use berth_monitor_api::frame::{Exit, Stdio, TaskKind};
use berth_monitor_api::record::ExitRecord;
use berth_sys::pidfd::{self, Child, ExitStatus, Zombie};
use berth_sys::poll::Interest;
use berth_sys::socket::{self, Wait};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

/// Reads of one stream in a row, so that one loud container does not silence the others.
const READS: usize = 4;
/// Exit code for a process whose status was lost. It cannot happen while the monitor is the only one to reap its children.
const LOST: ExitStatus = ExitStatus::Exited(255);
const SIGKILL: i32 = 9;

/// Reaps a process that may have ended; `None` if it has not.
fn reap(process: BorrowedFd<'_>) -> Option<ExitStatus> {
    match pidfd::try_wait(Child::Fd(process), Zombie::Reap) {
        Ok(found) => found.map(|(_, status)| status),
        Err(_) => Some(LOST),
    }
}

impl Server {
    /// Reads what init has sent.
    pub fn pump_channel(&mut self, at: usize) {
        loop {
            let Some(channel) = &self.tasks[at].channel else { return };
            let mut packet = [0; PACKET_LEN];
            let result = match socket::recv(channel.as_fd(), &mut packet, Wait::No) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                // The end of the conversation.
                Ok((0, _)) => {
                    self.close_channel(at);
                    return;
                }
                Ok((length, fds)) => self.child_message(at, &packet[..length], fds),
                Err(e) => Err(e),
            };
            if result.is_err() {
                // An init that breaks the protocol is ended; what it has made so far goes with its daemon's socket.
                self.close_channel(at);
                if let Some((_, init)) = &self.tasks[at].init {
                    let _ = pidfd::signal(init.as_fd(), SIGKILL);
                }
                return;
            }
        }
    }

    fn close_channel(&mut self, at: usize) {
        if let Some(channel) = self.tasks[at].channel.take() {
            self.io.forget(channel.as_fd());
        }
    }

    fn child_message(&mut self, at: usize, packet: &[u8], mut fds: Vec<OwnedFd>) -> io::Result<()> {
        let refused = || io::Error::from(io::ErrorKind::InvalidData);
        let message = ChildMessage::decode(packet).map_err(|_| refused())?;
        let fd = fds.pop().filter(|_| fds.is_empty()).ok_or_else(refused)?;
        match message {
            ChildMessage::Child { pid } if self.tasks[at].is_starting() => self.name_child(at, pid),
            ChildMessage::Terminal if self.tasks[at].terminal.is_none() => self.take_terminal(at, fd),
            _ => Err(refused()),
        }
    }

    /// Takes a process as the task's main one, if it really is a child of ours that no other task has. The pidfd is our own: an
    /// unreaped child's number cannot have been given to another process.
    fn name_child(&mut self, at: usize, pid: u32) -> io::Result<()> {
        let taken = |task: &Task| task.child.is_some() && task.pid == pid;
        let init_of_other = |task: &Task| task.init.as_ref().is_some_and(|(init, _)| *init == pid);
        let child = pidfd::open(pid)?;
        if !pidfd::is_child(child.as_fd()) || self.tasks.iter().any(|task| taken(task) || init_of_other(task)) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let task = &mut self.tasks[at];
        self.io.watch(child.as_fd(), Token::Task(task.serial, Part::Child), Interest::Read);
        task.child = Some(child);
        task.pid = pid;
        task.state = State::Running;
        Ok(())
    }

    fn take_terminal(&mut self, at: usize, master: OwnedFd) -> io::Result<()> {
        let task = &mut self.tasks[at];
        match task.stdio {
            Stdio::Terminal => {}
            Stdio::LogTerminal => {
                let source = Source::new(master.try_clone()?, Stream::Stdout, true)?;
                self.io.watch(source.file.as_fd(), Token::Task(task.serial, Part::Output(0)), Interest::Read);
                task.sources[0] = Some(source);
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
        task.terminal = Some(master.into());
        Ok(())
    }

    /// Output has come, or its end.
    pub fn output_ready(&mut self, at: usize, index: usize) {
        for _ in 0..READS {
            let task = &mut self.tasks[at];
            let Some(source) = &mut task.sources[index] else { return };
            let (input, records) = self.io.buffers();
            match source.read(input) {
                Found::Bytes(n) => {
                    source.tee(&input[..n]);
                    task.log.write(source.stream, &mut source.lines, &input[..n], now(), records);
                    task.heard();
                    if n < input.len() {
                        return;
                    }
                }
                Found::Nothing => return,
                // While its process lives, somebody may open the terminal again.
                Found::Hangup if task.child.is_some() => {
                    source.park();
                    self.io.forget(source.file.as_fd());
                    return;
                }
                Found::Hangup | Found::End => {
                    self.close_source(at, index);
                    if matches!(self.tasks[at].state, State::Draining { .. }) {
                        self.finish_if_silent(at);
                    }
                    return;
                }
            }
        }
    }

    /// Looks again at terminals that nobody had open.
    pub fn unpark(&mut self, at: usize, now: Instant) {
        let task = &mut self.tasks[at];
        for (index, source) in task.sources.iter_mut().enumerate() {
            let Some(source) = source.as_mut().filter(|s| s.parked_until.is_some_and(|at| at <= now)) else { continue };
            source.parked_until = None;
            self.io.watch(source.file.as_fd(), Token::Task(task.serial, Part::Output(index)), Interest::Read);
        }
    }

    fn close_source(&mut self, at: usize, index: usize) {
        let task = &mut self.tasks[at];
        if let Some(mut source) = task.sources[index].take() {
            self.io.forget(source.file.as_fd());
            let (_, records) = self.io.buffers();
            task.log.finish(source.stream, &mut source.lines, now(), records);
        }
    }

    /// The cgroup's memory events have changed.
    pub fn oom_changed(&mut self, at: usize) {
        if let Some(oom) = &mut self.tasks[at].oom
            && !oom.refresh()
        {
            // The cgroup is gone; its file would report that for ever.
            self.io.forget(oom.file.as_fd());
        }
    }

    /// Init may have ended.
    pub fn init_ended(&mut self, at: usize) {
        let Some((_, init)) = &self.tasks[at].init else { return };
        let Some(status) = reap(init.as_fd()) else { return };
        // What it said before it ended comes first.
        self.pump_channel(at);
        let task = &mut self.tasks[at];
        if let Some((_, init)) = task.init.take() {
            self.io.forget(init.as_fd());
        }
        if task.is_starting() {
            let done = task.kind == TaskKind::Sandbox && status == ExitStatus::Exited(0);
            self.main_ended(at, status, !done);
        }
    }

    /// The main process may have ended.
    pub fn child_ended(&mut self, at: usize) {
        let Some(child) = &self.tasks[at].child else { return };
        let Some(status) = reap(child.as_fd()) else { return };
        if let Some(child) = self.tasks[at].child.take() {
            self.io.forget(child.as_fd());
        }
        self.main_ended(at, status, false);
    }

    /// The task's process has ended: note it where it survives, end what it left in its cgroup, then read the rest of the output.
    fn main_ended(&mut self, at: usize, status: ExitStatus, start_failed: bool) {
        let task = &mut self.tasks[at];
        let oom_kills = task.oom.take().map_or(0, |mut oom| {
            self.io.forget(oom.file.as_fd());
            oom.refresh();
            oom.latest()
        });
        let exit = Exit {
            code: status.code(),
            signaled: matches!(status, ExitStatus::Signaled(_)),
            start_failed,
            oom_kills,
            finished_at: i64::try_from(now().as_nanos()).unwrap_or(i64::MAX),
        };
        self.directory.write_record(&task.id, ExitRecord { kind: task.kind, pid: task.pid, exit });
        if let Some(mut kill) = task.kill.take() {
            // Fails if the cgroup is gone, and then nothing is left in it.
            let _ = kill.write(b"1");
        }
        task.stdin = None;
        task.state = Task::draining(exit);
        self.output_ready(at, 0);
        self.output_ready(at, 1);
        self.finish_if_silent(at);
    }

    fn finish_if_silent(&mut self, at: usize) {
        let task = &self.tasks[at];
        if matches!(task.state, State::Draining { .. }) && task.sources.iter().all(Option::is_none) {
            self.finish(at);
        }
    }

    /// All is read, or enough was waited: the task has ended.
    pub fn finish(&mut self, at: usize) {
        self.close_source(at, 0);
        self.close_source(at, 1);
        let task = &mut self.tasks[at];
        let State::Draining { exit, .. } = task.state else { return };
        task.log.close();
        task.state = State::Ended { exit, sequence: self.ended };
        self.ended += 1;
        self.send_exits();
    }

    /// Reaps children that came to us because their parents ended. Not while an init has yet to name its child: that one may have
    /// ended already, and its status must be kept.
    pub fn reap_orphans(&mut self) {
        if self.tasks.iter().any(Task::is_starting) {
            return;
        }
        self.orphans = false;
        while let Ok(Some((pid, _))) = pidfd::try_wait(Child::Any, Zombie::Keep) {
            let main = |task: &Task| task.child.is_some() && task.pid == pid;
            let init = |task: &Task| task.init.as_ref().is_some_and(|(init, _)| *init == pid);
            if let Some(at) = self.tasks.iter().position(main) {
                self.child_ended(at);
            } else if let Some(at) = self.tasks.iter().position(init) {
                self.init_ended(at);
            } else if pidfd::try_wait(Child::Pid(pid), Zombie::Reap).is_err() {
                return;
            }
        }
    }
}
