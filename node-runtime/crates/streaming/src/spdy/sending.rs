//! What goes to the peer: data as far as queues and windows allow, and the batches that the writer takes. Part of [`State`].
//! Must not: do I/O, await.
use super::frame::{Frame, data_head};
use super::output::{Batch, QUEUE, STREAM_QUEUE};
use super::state::{End, Entry, Phase, State, gone, wake, was_reset};
use super::window::{PROBE_TIME, Peer};
use bytes::{BufMut, Bytes, BytesMut};
use std::io;
use std::task::{Context, Poll};
use tokio::time::Instant;

/// Longest data frame of ours, in bytes.
const MAX_DATA: usize = 32 * 1024;

impl State {
    /// Queues some of `data`. Returns how much.
    pub fn poll_write(&mut self, cx: &Context<'_>, id: u32, data: &[u8]) -> Poll<io::Result<usize>> {
        if let Err(e) = self.writable(id) {
            return Poll::Ready(Err(e));
        }
        let Some(entry) = self.streams.get_mut(&id) else { return Poll::Ready(Err(gone())) };
        let by_stream = self.streams_peer.allows(entry.window);
        let allowed = by_stream.min(self.connection_peer.allows(self.window)).min(data.len()).min(MAX_DATA);
        if allowed > 0 && entry.queued < STREAM_QUEUE && self.output.data < QUEUE {
            let mut frame = BytesMut::with_capacity(data_head(id, false, allowed).len() + allowed);
            frame.put_slice(&data_head(id, false, allowed));
            frame.put_slice(&data[..allowed]);
            entry.window -= allowed as i64;
            self.window -= allowed as i64;
            entry.queued += frame.len();
            self.output.push_data(id, frame.freeze());
            return Poll::Ready(Ok(allowed));
        }
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.crowded |= self.output.data >= QUEUE;
        entry.write_waker = Some(cx.waker().clone());
        let exhausted = if by_stream == 0 { self.streams_peer } else { self.connection_peer };
        if allowed == 0 && exhausted == Peer::Unknown && self.probe.is_none() {
            self.probe = Some(self.ping(false));
            self.times.probe = Some(Instant::now() + PROBE_TIME);
            self.timer.notify_one();
        }
        Poll::Pending
    }

    /// The probe's answer, or none, came before any update.
    pub(super) fn peer_ignores(&mut self) {
        self.probe = None;
        self.times.probe = None;
        for peer in [&mut self.streams_peer, &mut self.connection_peer] {
            if *peer == Peer::Unknown {
                *peer = Peer::Ignores;
            }
        }
        self.wake_writers();
    }

    pub(super) fn writable(&self, id: u32) -> io::Result<()> {
        if let Some(over) = self.over() {
            return Err(over);
        }
        match self.streams.get(&id) {
            Some(Entry { end: Some(End::Reset(status)), .. }) => Err(was_reset(*status)),
            Some(entry) if !entry.finished => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::BrokenPipe, "this end of the SPDY stream is finished")),
        }
    }

    /// Until everything that was written to the stream is with the transport.
    pub fn poll_flush(&mut self, cx: &Context<'_>, id: u32) -> Poll<io::Result<()>> {
        let over = if self.phase == Phase::Ended { self.over() } else { None };
        match self.streams.get_mut(&id) {
            Some(entry) if entry.queued > 0 => match over {
                Some(over) => Poll::Ready(Err(over)),
                None => {
                    entry.write_waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            },
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Queues FIN, once.
    pub fn finish(&mut self, id: u32) -> io::Result<()> {
        if self.streams.get(&id).is_some_and(|e| e.finished && !matches!(e.end, Some(End::Reset(_)))) {
            return Ok(());
        }
        self.writable(id)?;
        if let Some(entry) = self.streams.get_mut(&id) {
            let frame = Bytes::copy_from_slice(&data_head(id, true, 0));
            entry.finished = true;
            entry.queued += frame.len();
            self.output.push_data(id, frame);
        }
        Ok(())
    }

    /// What is to be written next.
    pub fn poll_batch(&mut self, cx: &Context<'_>) -> Poll<Batch> {
        let mut batch = Batch::default();
        self.updates(&mut batch);
        self.output.fill(&mut batch);
        if batch.frames.is_empty() && self.phase == Phase::Closing {
            let frame = Frame::GoAway { last: self.last_received, status: u32::from(self.error.is_some()) };
            batch.frames.push_back(frame.encode().freeze());
            batch.last = true;
        }
        if batch.frames.is_empty() || self.phase == Phase::Ended {
            self.output.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(batch)
    }

    /// A batch is with the transport.
    pub fn written(&mut self, batch: &Batch) {
        for (id, bytes) in &batch.data {
            self.output.data = self.output.data.saturating_sub(*bytes);
            if let Some(entry) = self.streams.get_mut(id) {
                entry.queued = entry.queued.saturating_sub(*bytes);
                wake(&mut entry.write_waker);
            }
        }
        self.times.sent(!batch.data.is_empty());
        self.uncrowd();
        if batch.last && self.phase == Phase::Closing {
            self.phase = Phase::Told;
            self.times.told();
            self.timer.notify_one();
            if self.error.is_some() {
                self.end(None);
            }
        }
    }
}
