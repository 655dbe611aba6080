//! What the peer sends, frame by frame, until a reader takes it. Part of [`State`]. Must not: do I/O, await.
use super::Status;
use super::frame::{Frame, INITIAL_WINDOW_SIZE, MAX_31};
use super::headers::{Decoder, Headers};
use super::output::Batch;
use super::state::{End, Entry, Phase, State, gone, protocol, wake, was_reset};
use super::window::{Peer, widened};
use berth_model::Result;
use bytes::Bytes;
use std::io;
use std::task::{Context, Poll};
use tokio::time::Instant;

/// What holding a piece costs beside its bytes: a flood of one-byte frames is counted by it.
const PIECE: usize = 64;

impl State {
    /// One control frame. Errors end the connection.
    pub fn received(&mut self, frame: &Frame<'_>, decoder: &mut Decoder) -> Result<()> {
        self.times.heard(!matches!(frame, Frame::Ping { .. }));
        match frame {
            Frame::SynStream { id, fin, unidirectional, block, .. } => {
                let headers = decoder.decode(block)?;
                self.opened(*id, *fin, *unidirectional, headers)?;
            }
            Frame::SynReply { id, fin, block } => {
                decoder.decode(block)?;
                self.answered(*id);
                self.finished(*id, *fin);
            }
            Frame::Headers { id, fin, block } => {
                decoder.decode(block)?;
                self.finished(*id, *fin);
            }
            Frame::RstStream { id, status } => self.end_stream(*id, *status),
            Frame::Settings { values } => self.settings(values)?,
            Frame::Ping { id } if id & 1 != self.parity => self.urgent(&Frame::Ping { id: *id }),
            Frame::Ping { id } => {
                if self.probe == Some(*id) {
                    self.peer_ignores();
                }
            }
            Frame::GoAway { .. } => {
                self.peer_going = true;
                wake(&mut self.incoming_waker);
            }
            Frame::WindowUpdate { id, delta } => self.widen(*id, *delta)?,
        }
        Ok(())
    }

    fn opened(&mut self, id: u32, fin: bool, unidirectional: bool, headers: Headers) -> Result<()> {
        if id & 1 == self.parity || self.streams.contains_key(&id) {
            return Err(protocol(format!("stream {id} is not the peer's to open")));
        }
        if self.phase != Phase::Open {
            return Ok(());
        }
        let refused = if id <= self.last_received {
            Some(Status::ProtocolError)
        } else if !self.accepting || self.streams.len() >= self.limits.streams {
            Some(Status::RefusedStream)
        } else {
            None
        };
        self.last_received = self.last_received.max(id);
        if let Some(status) = refused {
            self.control(id, &Frame::RstStream { id, status: status as u32 });
            return Ok(());
        }
        let end = fin.then_some(End::Fin);
        self.streams.insert(id, Entry { end, finished: unidirectional, ..self.entry() });
        self.incoming.push_back((id, headers));
        wake(&mut self.incoming_waker);
        Ok(())
    }

    fn answered(&mut self, id: u32) {
        if let Some(entry) = self.streams.get_mut(&id) {
            entry.opening = false;
            wake(&mut entry.write_waker);
        }
    }

    fn finished(&mut self, id: u32, fin: bool) {
        if !fin {
            return;
        }
        self.unread.remove(&id);
        if let Some(entry) = self.streams.get_mut(&id) {
            entry.end.get_or_insert(End::Fin);
            wake(&mut entry.read_waker);
        }
    }

    fn settings(&mut self, values: &[(u32, u32)]) -> Result<()> {
        for (_, value) in values.iter().filter(|(id, _)| *id == INITIAL_WINDOW_SIZE) {
            let delta = i64::from(value & MAX_31) - self.initial_window;
            self.initial_window += delta;
            for entry in self.streams.values_mut() {
                entry.window += delta;
            }
        }
        self.streams_peer = Peer::Counts;
        self.wake_writers();
        Ok(())
    }

    fn widen(&mut self, id: u32, delta: u32) -> Result<()> {
        if id == 0 {
            self.connection_peer = Peer::Counts;
            self.window = widened(self.window, delta).ok_or_else(|| protocol("its window grows beyond 2^31 - 1"))?;
            self.wake_writers();
            return Ok(());
        }
        self.streams_peer = Peer::Counts;
        let Some(entry) = self.streams.get_mut(&id) else { return Ok(()) };
        if let Some(window) = widened(entry.window, delta) {
            entry.window = window;
            wake(&mut entry.write_waker);
        } else {
            self.reset(id, Status::FlowControlError);
        }
        Ok(())
    }

    /// The head of a data frame; its bytes come by [`State::data`], also when they are not wanted.
    pub fn data_begins(&mut self, id: u32, length: usize) {
        self.times.heard(true);
        if !self.is_listening() || length == 0 {
            return;
        }
        let counts = self.streams_peer == Peer::Counts;
        let Some(entry) = self.streams.get_mut(&id) else { return self.data_for_nobody(id) };
        entry.granted -= length as i64;
        if counts && entry.granted < 0 {
            self.reset(id, Status::FlowControlError);
        }
    }

    fn data_for_nobody(&mut self, id: u32) {
        let never = if id & 1 == self.parity { id >= self.next_id } else { id > self.last_received };
        let status = if never { Status::InvalidStream } else { Status::Cancel };
        // Once: what is under way when our reset comes is no offence.
        if never || self.unread.remove(&id) {
            self.control(id, &Frame::RstStream { id, status: status as u32 });
        }
    }

    /// Whether that many more bytes may be held. What is not wanted needs no room.
    pub fn poll_room(&mut self, cx: &Context<'_>, id: u32, length: usize) -> Poll<()> {
        let wanted = self.is_listening() && self.streams.get(&id).is_some_and(|e| e.reader && e.end.is_none());
        if !wanted || self.held == 0 || self.held + length <= self.limits.buffered {
            self.times.paused = None;
            return Poll::Ready(());
        }
        if self.times.paused.is_none() {
            self.times.paused = Some(Instant::now());
            self.timer.notify_one();
        }
        self.reader_waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Whether readers are behind: then what is held must not hold more memory than it has bytes.
    pub fn is_holding(&self) -> bool {
        self.held > self.limits.buffered / 16
    }

    /// Data, or the end, of a stream.
    pub fn data(&mut self, id: u32, piece: Bytes, fin: bool) {
        let length = piece.len();
        let wanted = self.is_listening();
        match self.streams.get_mut(&id).filter(|e| wanted && e.reader && e.end.is_none()) {
            Some(entry) if length > 0 => {
                entry.pieces.push_back(piece);
                self.held += length + PIECE;
                wake(&mut entry.read_waker);
            }
            Some(_) => {}
            None => self.consumed(id, length),
        }
        self.finished(id, fin);
    }

    /// Bytes left our hands: the peer may send as many again.
    fn consumed(&mut self, id: u32, length: usize) {
        self.credit = self.credit.saturating_add(length as u32);
        if self.credit as usize >= self.limits.buffered / 4 && !self.output.updates.contains(&0) {
            self.output.push_update(0);
        }
        let Some(entry) = self.streams.get_mut(&id).filter(|e| e.end.is_none()) else { return };
        let due = self.limits.stream_window / 2;
        if entry.credit < due && entry.credit.saturating_add(length as u32) >= due {
            self.output.push_update(id);
        }
        entry.credit = entry.credit.saturating_add(length as u32);
    }

    pub(super) fn updates(&mut self, batch: &mut Batch) {
        for id in std::mem::take(&mut self.output.updates) {
            let delta = if id == 0 {
                std::mem::take(&mut self.credit)
            } else {
                let Some(entry) = self.streams.get_mut(&id).filter(|e| e.end.is_none()) else { continue };
                entry.granted += i64::from(entry.credit);
                std::mem::take(&mut entry.credit)
            };
            batch.frames.push_back(Frame::WindowUpdate { id, delta: delta.min(MAX_31) }.encode().freeze());
        }
    }

    /// The next piece of a stream; None is its end.
    pub fn poll_piece(&mut self, cx: &Context<'_>, id: u32) -> Poll<io::Result<Option<Bytes>>> {
        let over = if self.phase == Phase::Broken { None } else { self.over() };
        let Some(entry) = self.streams.get_mut(&id) else { return Poll::Ready(Err(over.unwrap_or_else(gone))) };
        if let Some(piece) = entry.pieces.pop_front() {
            self.release(piece.len() + PIECE);
            self.consumed(id, piece.len());
            return Poll::Ready(Ok(Some(piece)));
        }
        match (entry.end, over) {
            (Some(End::Fin), _) => Poll::Ready(Ok(None)),
            (Some(End::Reset(status)), _) => Poll::Ready(Err(was_reset(status))),
            (None, Some(over)) => Poll::Ready(Err(over)),
            (None, None) => {
                entry.read_waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn release(&mut self, bytes: usize) {
        self.held -= bytes;
        wake(&mut self.reader_waker);
    }

    /// Throws away what waits for the stream's reader.
    pub(super) fn discard(&mut self, id: u32) {
        let Some(entry) = self.streams.get_mut(&id) else { return };
        let pieces = std::mem::take(&mut entry.pieces);
        for piece in pieces {
            self.release(piece.len() + PIECE);
            self.consumed(id, piece.len());
        }
        // What comes for it now needs no room.
        wake(&mut self.reader_waker);
    }
}
