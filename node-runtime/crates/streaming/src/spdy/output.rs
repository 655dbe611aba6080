//! What waits to be written: frames in their order, and what may overtake them.
//!
//! Frames with header blocks are compressed when they are queued, so they keep their order and are never dropped. Data of a stream
//! that is reset is. Window updates have no frame until they are written: they add up. Must not: do I/O.
use bytes::Bytes;
use std::collections::VecDeque;
use std::task::Waker;

/// Data of one stream that waits, in bytes; a stream that has more must wait.
pub const STREAM_QUEUE: usize = 128 * 1024;
/// Data of all streams that waits, in bytes.
pub const QUEUE: usize = 1024 * 1024;
/// Control frames that wait. A peer that does not read, and makes us answer that often, is cut off.
pub const MAX_CONTROL_FRAMES: usize = 8192;
const BATCH: usize = 256 * 1024;
const BATCH_FRAMES: usize = 64;

#[derive(Debug)]
struct Queued {
    stream: u32,
    data: bool,
    bytes: Bytes,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Output {
    urgent: VecDeque<Bytes>,
    queue: VecDeque<Queued>,
    /// Bytes of data frames, queued or being written.
    pub data: usize,
    control: usize,
    /// Streams (0: the connection) that the peer may send more on.
    pub updates: VecDeque<u32>,
    /// Of the task that writes.
    pub waker: Option<Waker>,
}

/// What is written at once.
#[derive(Debug, Default)]
pub struct Batch {
    /// Whole frames.
    pub frames: VecDeque<Bytes>,
    /// Data frames in it: stream and bytes.
    pub data: Vec<(u32, usize)>,
    /// It ends with GOAWAY.
    pub last: bool,
}

impl Output {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// A data frame.
    pub fn push_data(&mut self, stream: u32, bytes: Bytes) {
        self.data += bytes.len();
        self.queue.push_back(Queued { stream, data: true, bytes });
        self.wake();
    }

    /// A control frame that keeps its place. False: there are too many.
    #[must_use]
    pub fn push_control(&mut self, stream: u32, bytes: Bytes) -> bool {
        self.control += 1;
        self.queue.push_back(Queued { stream, data: false, bytes });
        self.wake();
        self.control <= MAX_CONTROL_FRAMES
    }

    /// A control frame that overtakes. False: there are too many.
    #[must_use]
    pub fn push_urgent(&mut self, bytes: Bytes) -> bool {
        self.control += 1;
        self.urgent.push_back(bytes);
        self.wake();
        self.control <= MAX_CONTROL_FRAMES
    }

    /// An update of this stream's window is due.
    pub fn push_update(&mut self, stream: u32) {
        self.updates.push_back(stream);
        self.wake();
    }

    /// Forgets data of a stream that is not being written yet. Returns its bytes.
    pub fn drop_data(&mut self, stream: u32) -> usize {
        let before = self.data;
        let data = &mut self.data;
        self.queue.retain(|queued| {
            let dropped = queued.data && queued.stream == stream;
            if dropped {
                *data -= queued.bytes.len();
            }
            !dropped
        });
        before - self.data
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        let waker = self.waker.take();
        *self = Self::default();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Adds what comes next, up to a size that one write may take.
    pub fn fill(&mut self, batch: &mut Batch) {
        self.control -= self.urgent.len();
        batch.frames.extend(self.urgent.drain(..));
        let mut size = 0;
        while size < BATCH && batch.frames.len() < BATCH_FRAMES {
            let Some(queued) = self.queue.pop_front() else { break };
            size += queued.bytes.len();
            if queued.data {
                batch.data.push((queued.stream, queued.bytes.len()));
            } else {
                self.control -= 1;
            }
            batch.frames.push_back(queued.bytes);
        }
    }
}
