//! The state of one connection: its streams, what waits for readers and for the writer, their lives and its end. The transitions that
//! frames make are in [`super::receiving`], those of writing in [`super::sending`].
//!
//! Shared by the two tasks and the handles under one lock, which is held for no I/O. Must not: do I/O, await, start a task.
//!
//! What the peer sends is held until it is read. A peer that counts windows is told, stream by stream, how much it may send ahead;
//! if it sends more, that stream is reset. A peer that does not count sends as it likes: up to [`Limits::buffered`] bytes wait here,
//! over all streams, and then the connection is not read until a reader takes some. Resetting the stream instead would break a plain
//! `kubectl exec -i` into a slow process. The other direction flows on in any case.
use super::frame::{Frame, INITIAL_WINDOW_SIZE, MAX_31};
use super::headers::{Encoder, Headers};
use super::output::{Output, QUEUE};
use super::timer::Times;
use super::window::{INITIAL, Peer};
use super::{Limits, Status};
use berth_model::{Error, ErrorKind, Result};
use bytes::Bytes;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio::sync::{Notify, watch};

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Streams come and go.
    Open,
    /// Nothing can be written any more. What the peer had sent before is still there to be read.
    Broken,
    /// What was queued is written, then GOAWAY. What the peer sends is thrown away.
    Closing,
    /// GOAWAY is written. The peer may still be sending: an end now could destroy what it has not read yet.
    Told,
    /// The tasks end.
    Ended,
}

/// How the peer, or we, ended what it sends on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// In order.
    Fin,
    /// Both directions, with this status.
    Reset(u32),
}

/// One stream.
#[derive(Debug)]
pub struct Entry {
    pub(super) pieces: VecDeque<Bytes>,
    pub(super) end: Option<End>,
    pub(super) read_waker: Option<Waker>,
    pub(super) reader: bool,
    /// Bytes that were read, and that the peer was not told of.
    pub(super) credit: u32,
    /// Bytes that the peer may send, if it counts.
    pub(super) granted: i64,
    pub(super) window: i64,
    /// Bytes that are queued or being written.
    pub(super) queued: usize,
    /// We send nothing more.
    pub(super) finished: bool,
    pub(super) write_waker: Option<Waker>,
    pub(super) writer: bool,
    /// Ours, and not answered.
    pub(super) opening: bool,
}

/// See the module.
#[derive(Debug)]
pub struct State {
    pub(super) limits: Limits,
    pub(super) phase: Phase,
    /// Why it ended, or ends, if not in order.
    pub(super) error: Option<Error>,
    pub(super) output: Output,
    pub(super) timer: Arc<Notify>,
    /// Becomes true with [`Phase::Ended`].
    pub(super) gone: watch::Sender<bool>,
    pub(super) times: Times,
    pub(super) streams: HashMap<u32, Entry>,
    /// We have finished, nobody reads, and the peer has not finished.
    pub(super) unread: BTreeSet<u32>,
    pub(super) encoder: Encoder,
    /// 1: our ids are odd.
    pub(super) parity: u32,
    pub(super) next_id: u32,
    pub(super) next_ping: u32,
    pub(super) last_received: u32,
    /// Streams of the peer's that were not looked at.
    pub(super) incoming: VecDeque<(u32, Headers)>,
    pub(super) incoming_waker: Option<Waker>,
    pub(super) accepting: bool,
    pub(super) peer_going: bool,
    /// Bytes that wait for readers, with what holding them costs.
    pub(super) held: usize,
    pub(super) reader_waker: Option<Waker>,
    pub(super) credit: u32,
    pub(super) streams_peer: Peer,
    pub(super) connection_peer: Peer,
    pub(super) window: i64,
    pub(super) initial_window: i64,
    pub(super) probe: Option<u32>,
    pub(super) crowded: bool,
}

pub(super) fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

pub(super) fn protocol(problem: impl std::fmt::Display) -> Error {
    Error::invalid("SPDY connection", problem)
}

impl State {
    /// A fresh one. The first frames tell the peer how much it may send.
    pub fn new(limits: Limits, client: bool) -> Self {
        let parity = u32::from(client);
        let mut state = Self {
            phase: Phase::Open,
            error: None,
            output: Output::default(),
            timer: Arc::default(),
            gone: watch::Sender::new(false),
            times: Times::new(),
            streams: HashMap::new(),
            unread: BTreeSet::new(),
            encoder: Encoder::default(),
            parity,
            next_id: 2 - parity,
            next_ping: 2 - parity,
            last_received: 0,
            incoming: VecDeque::new(),
            incoming_waker: None,
            accepting: true,
            peer_going: false,
            held: 0,
            reader_waker: None,
            credit: 0,
            streams_peer: Peer::Unknown,
            connection_peer: Peer::Unknown,
            window: INITIAL,
            initial_window: INITIAL,
            probe: None,
            crowded: false,
            limits,
        };
        let window = state.limits.stream_window.clamp(INITIAL as u32, MAX_31);
        state.limits.stream_window = window;
        state.limits.buffered = state.limits.buffered.clamp(window as usize, MAX_31 as usize);
        state.urgent(&Frame::Settings { values: vec![(INITIAL_WINDOW_SIZE, window)] });
        let delta = state.limits.buffered as u32 - INITIAL as u32;
        state.urgent(&Frame::WindowUpdate { id: 0, delta });
        state
    }

    pub(super) fn entry(&self) -> Entry {
        Entry {
            pieces: VecDeque::new(),
            end: None,
            read_waker: None,
            reader: true,
            credit: 0,
            granted: i64::from(self.limits.stream_window),
            window: self.initial_window,
            queued: 0,
            finished: false,
            write_waker: None,
            writer: true,
            opening: false,
        }
    }

    fn check_flood(&mut self, fits: bool) {
        if !fits {
            let message = "SPDY connection: the peer asks for answers and does not read them";
            self.fail(Error::new(ErrorKind::ResourceExhausted, message));
        }
    }

    pub(super) fn urgent(&mut self, frame: &Frame<'_>) {
        let fits = self.output.push_urgent(frame.encode().freeze());
        self.check_flood(fits);
    }

    pub(super) fn control(&mut self, stream: u32, frame: &Frame<'_>) {
        let fits = self.output.push_control(stream, frame.encode().freeze());
        self.check_flood(fits);
    }

    /// A PING with an id of ours; `urgent`: it need not wait for what is queued.
    pub(super) fn ping(&mut self, urgent: bool) -> u32 {
        let id = self.next_ping;
        self.next_ping = if id > MAX_31 - 2 { 2 - self.parity } else { id + 2 };
        let frame = Frame::Ping { id };
        if urgent {
            self.urgent(&frame)
        } else {
            self.control(0, &frame)
        }
        id
    }

    /// Ends both directions; what waits is thrown away, and the peer is told.
    pub fn reset(&mut self, id: u32, status: Status) {
        let over = self.phase != Phase::Open;
        let Some(entry) = self.streams.get(&id) else { return };
        let closed = entry.finished && entry.end.is_some() && entry.queued == 0;
        if closed || over || matches!(entry.end, Some(End::Reset(_))) {
            return;
        }
        self.end_stream(id, status as u32);
        self.control(id, &Frame::RstStream { id, status: status as u32 });
    }

    pub(super) fn end_stream(&mut self, id: u32, status: u32) {
        self.unread.remove(&id);
        let dropped = self.output.drop_data(id);
        let Some(entry) = self.streams.get_mut(&id) else { return };
        entry.queued -= dropped;
        entry.end = Some(End::Reset(status));
        entry.finished = true;
        wake(&mut entry.write_waker);
        wake(&mut entry.read_waker);
        self.discard(id);
        self.uncrowd();
    }

    /// The next stream that the peer opened; None: there will be none.
    pub fn poll_incoming(&mut self, cx: &Context<'_>) -> Poll<Option<(u32, Headers)>> {
        if let Some(stream) = self.incoming.pop_front() {
            return Poll::Ready(Some(stream));
        }
        if self.phase != Phase::Open || self.peer_going {
            return Poll::Ready(None);
        }
        self.incoming_waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Nobody takes streams any more: those that wait, and those to come, are refused.
    pub fn stop_accepting(&mut self) {
        self.accepting = false;
        for (id, _) in std::mem::take(&mut self.incoming) {
            self.refuse(id, Status::RefusedStream);
        }
    }

    /// Answers a stream of the peer's. Errors: it is over, or the connection is.
    pub fn accept(&mut self, id: u32) -> io::Result<()> {
        if let Some(over) = self.over() {
            return Err(over);
        }
        if let Some(Entry { end: Some(End::Reset(status)), .. }) = self.streams.get(&id) {
            return Err(was_reset(*status));
        }
        let block = self.encoder.encode(&[]).map_err(io::Error::other)?;
        self.control(id, &Frame::SynReply { id, fin: false, block: &block });
        Ok(())
    }

    /// Answers a stream of the peer's with a reset, and forgets it.
    pub fn refuse(&mut self, id: u32, status: Status) {
        let reset = matches!(self.streams.get(&id), None | Some(Entry { end: Some(End::Reset(_)), .. }));
        if self.phase == Phase::Open && !reset {
            self.control(id, &Frame::RstStream { id, status: status as u32 });
        }
        self.discard(id);
        self.streams.remove(&id);
    }

    /// Opens a stream. Errors: headers beyond the limits, no ids left, the connection is over.
    pub fn open(&mut self, headers: &[(String, String)]) -> Result<u32> {
        if let Some(over) = self.over() {
            return Err(over.into());
        }
        if self.peer_going {
            return Err(Error::new(ErrorKind::Unavailable, "SPDY connection: the peer takes no more streams"));
        }
        let id = self.next_id;
        if id > MAX_31 {
            return Err(Error::new(ErrorKind::ResourceExhausted, "SPDY connection: all stream ids are used"));
        }
        let block = self.encoder.encode(headers)?;
        self.next_id += 2;
        self.streams.insert(id, Entry { opening: true, ..self.entry() });
        let frame =
            Frame::SynStream { id, associated: 0, priority: 0, fin: false, unidirectional: false, block: &block };
        self.control(id, &frame);
        Ok(id)
    }

    /// Until the peer has answered a stream of ours.
    pub fn poll_opened(&mut self, cx: &Context<'_>, id: u32) -> Poll<io::Result<()>> {
        if let Err(e) = self.writable(id) {
            return Poll::Ready(Err(e));
        }
        match self.streams.get_mut(&id).filter(|e| e.opening) {
            None => Poll::Ready(Ok(())),
            Some(entry) => {
                entry.write_waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// The reading handle is gone: what still comes is thrown away.
    pub fn drop_reader(&mut self, id: u32) {
        if let Some(entry) = self.streams.get_mut(&id) {
            entry.reader = false;
            self.discard(id);
        }
        self.forget(id);
    }

    /// The writing handle is gone.
    pub fn drop_writer(&mut self, id: u32) {
        if let Some(entry) = self.streams.get_mut(&id) {
            entry.writer = false;
        }
        self.forget(id);
    }

    /// When both handles are gone: a stream that we have not finished is cancelled; one that only the peer has not finished is
    /// cancelled when something still comes (moby/spdystream never finishes streams that it only reads from).
    fn forget(&mut self, id: u32) {
        let Some(entry) = self.streams.get(&id).filter(|e| !e.reader && !e.writer) else { return };
        if !entry.finished {
            self.reset(id, Status::Cancel);
        } else if entry.end.is_none() {
            self.unread.insert(id);
            if self.unread.len() > self.limits.streams {
                self.unread.pop_first();
            }
        }
        self.streams.remove(&id);
    }

    pub(super) fn uncrowd(&mut self) {
        if self.crowded && self.output.data <= QUEUE / 2 {
            self.wake_writers();
        }
    }

    pub(super) fn wake_writers(&mut self) {
        self.crowded = false;
        for entry in self.streams.values_mut() {
            wake(&mut entry.write_waker);
        }
    }

    /// Why nothing more can be read or written, if that is so.
    pub fn over(&self) -> Option<io::Error> {
        let kind = io::ErrorKind::ConnectionAborted;
        match (&self.error, self.phase) {
            (_, Phase::Open) => None,
            (Some(error), _) => Some(io::Error::new(kind, error.clone())),
            (None, Phase::Ended) => Some(io::Error::new(io::ErrorKind::UnexpectedEof, "the SPDY connection ended")),
            (None, _) => Some(io::Error::new(kind, "the SPDY connection is about to end")),
        }
    }

    /// Begins the orderly end.
    pub fn close(&mut self) {
        if self.phase == Phase::Open {
            self.phase = Phase::Closing;
            self.times.closing();
            self.wake_all();
        }
    }

    /// The peer broke the protocol, or a limit: it is told, without what else was queued.
    pub fn fail(&mut self, error: Error) {
        if self.phase == Phase::Open {
            self.error = Some(error);
            self.output.clear();
            self.close();
        }
    }

    /// Whether what the peer sends still matters.
    pub(super) fn is_listening(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Broken)
    }

    /// The transport takes nothing more. Its other direction says itself when it ends.
    pub fn broken(&mut self, error: Error) {
        if self.phase != Phase::Open {
            return self.end(Some(error));
        }
        self.phase = Phase::Broken;
        // A peer that said that it goes has gone.
        self.error = (!self.peer_going).then_some(error);
        self.output.clear();
        self.times.told();
        self.wake_all();
    }

    /// The transport is not needed any more.
    pub fn end(&mut self, error: Option<Error>) {
        if self.phase != Phase::Ended {
            self.phase = Phase::Ended;
            self.error = self.error.take().or(error);
            self.wake_all();
            self.gone.send_replace(true);
        }
    }

    fn wake_all(&mut self) {
        self.timer.notify_one();
        self.wake_writers();
        for entry in self.streams.values_mut() {
            wake(&mut entry.read_waker);
        }
        for waker in [&mut self.incoming_waker, &mut self.reader_waker, &mut self.output.waker] {
            wake(waker);
        }
    }
}

pub(super) fn was_reset(status: u32) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, format!("the SPDY stream was reset (status {status})"))
}

pub(super) fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the SPDY stream is over")
}
