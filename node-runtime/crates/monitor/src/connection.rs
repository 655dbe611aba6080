//! Connections of daemons: frames in, frames out.
//!
//! Owns: reading, decoding and sending. Must not: queue. A peer that does not take its replies is disconnected; exits that it has
//! not taken are sent when it has room again, from the table of tasks, and a new connection finds them in the list.
use crate::server::Server;
use crate::task::Task;
use crate::token::Token;
use berth_monitor_api::DecodeError;
use berth_monitor_api::frame::{Refusal, Reply, Request, Tagged};
use berth_sys::poll::{Event, Interest};
use berth_sys::socket::{self, Wait};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Frames of one connection in a row.
const FRAMES: usize = 8;

/// A connection.
#[derive(Debug)]
pub struct Connection {
    /// Number in the event loop.
    pub serial: u32,
    fd: OwnedFd,
    /// Whether it has said Hello.
    pub greeted: bool,
    /// The sequence number of the next exit to send, if it has subscribed.
    pub next_exit: Option<u64>,
    /// Whether exits wait for room.
    waiting: bool,
}

/// A request that is not carried out.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub refusal: Refusal,
    /// The errno behind it, or 0.
    pub errno: i32,
    /// In words.
    pub message: String,
}

impl Refused {
    /// A refusal in words.
    pub fn new(refusal: Refusal, message: impl Into<String>) -> Self {
        Self { refusal, errno: 0, message: message.into() }
    }

    /// A system call failed.
    pub fn system(step: &str, error: &io::Error) -> Self {
        let errno = error.raw_os_error().unwrap_or(0);
        Self { refusal: Refusal::System, errno, message: format!("{step}: {error}") }
    }
}

impl Connection {
    /// A connection that was just accepted.
    pub fn new(serial: u32, fd: OwnedFd) -> Self {
        Self { serial, fd, greeted: false, next_exit: None, waiting: false }
    }

    fn send(&self, reply: &Tagged<Reply>, fds: &[OwnedFd]) -> io::Result<()> {
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        socket::send(self.fd.as_fd(), &reply.encode(), &fds, Wait::No)
    }
}

impl Server {
    fn connection_at(&self, serial: u32) -> Option<usize> {
        self.connections.iter().position(|connection| connection.serial == serial)
    }

    fn disconnect(&mut self, at: usize) {
        let connection = self.connections.swap_remove(at);
        self.io.forget(connection.fd.as_fd());
    }

    /// Something happened on a connection.
    pub fn connection_ready(&mut self, serial: u32, event: Event) {
        if event.writable
            && let Some(at) = self.connection_at(serial)
            && !self.send_exits_to(at)
        {
            self.disconnect(at);
        }
        if event.readable {
            for _ in 0..FRAMES {
                let Some(at) = self.connection_at(serial) else { return };
                match self.serve_frame(at) {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(_) => {
                        self.disconnect(at);
                        return;
                    }
                }
            }
        }
    }

    /// Reads and answers one frame; false if there is none. An error ends the connection: a packet over the limits, one too short
    /// to have a tag, a peer that does not take its reply, or the end.
    fn serve_frame(&mut self, at: usize) -> io::Result<bool> {
        let (input, _) = self.io.buffers();
        let (length, fds) = match socket::recv(self.connections[at].fd.as_fd(), input, Wait::No) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            other => other?,
        };
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let frame = &input[..length];
        let Some(tag) = frame.get(4..8).and_then(|tag| tag.try_into().ok()).map(u32::from_le_bytes) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let decoded = Tagged::<Request>::decode(frame);
        let (reply, fds) = match self.answer(at, decoded, fds) {
            Ok((reply, fds)) => (reply, fds),
            Err(Refused { refusal, errno, message }) => (Reply::Refused { refusal, errno, message }, Vec::new()),
        };
        // Taking one request neither adds nor removes connections.
        self.connections[at].send(&Tagged { tag, body: reply }, &fds)?;
        Ok(true)
    }

    fn answer(
        &mut self,
        at: usize,
        decoded: Result<Tagged<Request>, DecodeError>,
        fds: Vec<OwnedFd>,
    ) -> Result<(Reply, Vec<OwnedFd>), Refused> {
        let request = decoded.map_err(|e| Refused::new(Refusal::BadRequest, e.to_string()))?.body;
        if !self.connections[at].greeted && request != Request::Hello {
            return Err(Refused::new(Refusal::BadRequest, "the first request of a connection is Hello"));
        }
        self.serve(at, request, fds)
    }

    /// Sends ended tasks to all who have subscribed.
    pub fn send_exits(&mut self) {
        let mut at = 0;
        while at < self.connections.len() {
            if self.send_exits_to(at) {
                at += 1;
            } else {
                self.disconnect(at);
            }
        }
    }

    /// Sends those exits that a connection has not had, in order, as far as it has room. False if it is broken.
    fn send_exits_to(&mut self, at: usize) -> bool {
        let connection = &mut self.connections[at];
        let mut full = false;
        while let Some(next) = connection.next_exit.filter(|next| *next < self.ended) {
            let ended = |task: &Task| task.sequence().filter(|sequence| *sequence >= next);
            let first = self.tasks.iter().filter_map(|task| Some((ended(task)?, task))).min_by_key(|(seq, _)| *seq);
            let Some((sequence, task)) = first else { break };
            let Some(exit) = task.exit() else { break };
            let event = Tagged { tag: 0, body: Reply::Exited { id: task.id.clone(), exit } };
            match connection.send(&event, &[]) {
                Ok(()) => connection.next_exit = Some(sequence + 1),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    full = true;
                    break;
                }
                Err(_) => return false,
            }
        }
        if full != connection.waiting {
            connection.waiting = full;
            let interest = if full { Interest::ReadWrite } else { Interest::Read };
            let token = Token::Connection(connection.serial).encode();
            return self.io.epoll.modify(connection.fd.as_fd(), token, interest).is_ok();
        }
        true
    }
}
