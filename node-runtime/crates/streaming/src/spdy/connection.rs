//! A connection's two tasks and its handles: one task reads, the other writes and keeps the time; all they know is in [`State`].
//!
//! Must not: decide anything about streams.
use super::Limits;
use super::frame::{Frame, Head};
use super::headers::Decoder;
use super::input::Input;
use super::output::Batch;
use super::state::{Phase, State};
use super::stream::{Stream, StreamReader, StreamWriter, handles};
use berth_model::{Error, ErrorKind, Result, ResultExt};
use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::Instant;

/// Pieces below this are copied out of what they were read into: they would hold much more memory than they are.
const SMALL: usize = 4096;
const MAX_SLICES: usize = 64;
/// "Never", for a sleep that something else ends.
const LONG: Duration = Duration::from_secs(24 * 3600);

/// The state, with its lock.
#[derive(Debug)]
pub(super) struct Shared(Mutex<State>);

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One end of a connection. Dropped, it ends without a word; streams then see errors.
#[derive(Debug)]
pub struct Connection {
    shared: Arc<Shared>,
    gone: watch::Receiver<bool>,
}

/// The streams that the peer opens. Dropped, they are refused.
#[derive(Debug)]
pub struct Incoming {
    shared: Arc<Shared>,
    failed: bool,
}

/// Serves SPDY on a transport whose upgrade was answered: the peer is the client.
///
/// # Panics
/// Outside a tokio runtime.
pub fn serve<I>(io: I, limits: Limits) -> (Connection, Incoming)
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    start(io, limits, false)
}

/// Speaks SPDY as the client; streams that the peer opens are refused.
///
/// # Panics
/// Outside a tokio runtime.
pub fn client<I>(io: I, limits: Limits) -> Connection
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    start(io, limits, true).0
}

fn start<I>(io: I, limits: Limits, client: bool) -> (Connection, Incoming)
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let state = State::new(limits, client);
    let gone = state.gone.subscribe();
    let shared = Arc::new(Shared(Mutex::new(state)));
    let (reading, writing) = tokio::io::split(io);
    tokio::spawn(until_gone(gone.clone(), read(Arc::clone(&shared), reading)));
    tokio::spawn(until_gone(gone.clone(), write(Arc::clone(&shared), writing)));
    (Connection { shared: Arc::clone(&shared), gone }, Incoming { shared, failed: false })
}

impl Incoming {
    /// The next stream. None: the connection ended in order, or the peer says that it opens no more. An error comes once.
    pub async fn next(&mut self) -> Option<Result<Stream>> {
        if let Some((id, headers)) = poll_fn(|cx| self.shared.lock().poll_incoming(cx)).await {
            return Some(Ok(Stream::new(Arc::clone(&self.shared), id, headers)));
        }
        let error = self.shared.lock().error.clone().filter(|_| !self.failed)?;
        self.failed = true;
        Some(Err(error))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.shared.lock().stop_accepting();
    }
}

impl Connection {
    /// Opens a stream and waits for the answer. Names are lower-case. Errors: the peer refuses it; the connection ends.
    pub async fn open(&self, headers: &[(String, String)]) -> Result<(StreamReader, StreamWriter)> {
        let id = self.shared.lock().open(headers)?;
        let handles = handles(&self.shared, id);
        poll_fn(|cx| self.shared.lock().poll_opened(cx, id)).await.context(|| format!("SPDY stream {id}"))?;
        Ok(handles)
    }

    /// Writes what was queued, and GOAWAY, and waits for the peer to end, at most a minute longer. From now on streams can neither be read nor
    /// written. Errors: the peer did not take everything within [`Limits::close_within`] of the last it took; the transport failed.
    pub async fn close(&self) -> Result<()> {
        self.shared.lock().close();
        self.gone().await
    }

    /// Waits until the transport has ended, for whatever reason. Errors: it did not end in order.
    pub fn gone(&self) -> impl Future<Output = Result<()>> + Send + use<> {
        let (shared, mut gone) = (Arc::clone(&self.shared), self.gone.clone());
        async move {
            // The sender lives as long as what `shared` holds.
            let _ = gone.wait_for(|gone| *gone).await;
            shared.lock().error.clone().map_or(Ok(()), Err)
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.lock().end(None);
    }
}

async fn until_gone(mut gone: watch::Receiver<bool>, task: impl Future<Output = ()>) {
    tokio::select! {
        _ = gone.wait_for(|gone| *gone) => {}
        () = task => {}
    }
}

/// Why reading stopped.
enum Stop {
    Transport(Error),
    Protocol(Error),
}

impl From<Error> for Stop {
    fn from(e: Error) -> Self {
        Self::Protocol(e)
    }
}

impl From<io::Error> for Stop {
    fn from(e: io::Error) -> Self {
        Self::Transport(transport(e))
    }
}

fn transport(e: io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, format!("SPDY connection: {e}"))
}

async fn read<I: AsyncRead>(shared: Arc<Shared>, io: ReadHalf<I>) {
    let mut input = Input::new(io);
    let stopped = frames(&shared, &mut input).await;
    match stopped {
        Ok(()) => shared.lock().end(None),
        Err(Stop::Transport(e)) => {
            let mut state = shared.lock();
            // After a GOAWAY of either the peer may end as it likes.
            let error = (state.phase == Phase::Open && !state.peer_going).then_some(e);
            state.end(error);
        }
        Err(Stop::Protocol(e)) => {
            shared.lock().fail(e);
            // A peer that is still sending would lose the GOAWAY to a reset of the transport.
            while let Ok(true) = input.skip().await {}
        }
    }
}

/// Until the transport ends between two frames.
async fn frames<R: AsyncRead + Unpin>(shared: &Shared, input: &mut Input<R>) -> Result<(), Stop> {
    let mut decoder = Decoder::default();
    while let Some(head) = input.head().await? {
        match Head::parse(head)? {
            Head::Data { id, fin, length } => data(shared, input, (id, fin), length).await?,
            Head::Control { kind, flags, length } => {
                let payload = input.payload(length).await?;
                if let Some(frame) = Frame::parse(kind, flags, &payload)? {
                    shared.lock().received(&frame, &mut decoder)?;
                }
            }
        }
    }
    Ok(())
}

async fn data<R: AsyncRead + Unpin>(
    shared: &Shared,
    input: &mut Input<R>,
    (id, fin): (u32, bool),
    length: usize,
) -> io::Result<()> {
    shared.lock().data_begins(id, length);
    if length == 0 {
        shared.lock().data(id, Bytes::new(), fin);
    }
    let mut left = length;
    while left > 0 {
        let mut piece = input.piece(left).await?;
        left -= piece.len();
        poll_fn(|cx| shared.lock().poll_room(cx, id, piece.len())).await;
        let mut state = shared.lock();
        if piece.len() < SMALL || state.is_holding() {
            piece = Bytes::copy_from_slice(&piece);
        }
        state.data(id, piece, fin && left == 0);
    }
    Ok(())
}

async fn write<I: AsyncWrite>(shared: Arc<Shared>, mut io: WriteHalf<I>) {
    let writing = async {
        if let Err(e) = batches(&shared, &mut io).await {
            shared.lock().broken(transport(e));
        }
        // The peer's end, or the time for it, is still to come.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = writing => {}
        () = keep_time(&shared) => {}
    }
}

/// Until GOAWAY is written.
async fn batches<W: AsyncWrite + Unpin>(shared: &Shared, io: &mut W) -> io::Result<()> {
    loop {
        let mut batch = poll_fn(|cx| shared.lock().poll_batch(cx)).await;
        write_frames(shared, io, &mut batch).await?;
        io.flush().await?;
        if batch.last {
            io.shutdown().await?;
        }
        shared.lock().written(&batch);
        if batch.last {
            return Ok(());
        }
    }
}

async fn write_frames<W: AsyncWrite + Unpin>(shared: &Shared, io: &mut W, batch: &mut Batch) -> io::Result<()> {
    let frames = &mut batch.frames;
    while let Some(first) = frames.front() {
        let written = if frames.len() > 1 && io.is_write_vectored() {
            let slices: Vec<_> = frames.iter().take(MAX_SLICES).map(|frame| IoSlice::new(frame)).collect();
            io.write_vectored(&slices).await?
        } else {
            io.write(first).await?
        };
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        advance(frames, written);
        if !frames.is_empty() {
            shared.lock().times.sent(!batch.data.is_empty());
        }
    }
    Ok(())
}

fn advance(frames: &mut VecDeque<Bytes>, mut written: usize) {
    while let Some(first) = frames.front_mut() {
        let step = written.min(first.len());
        first.advance(step);
        written -= step;
        if first.is_empty() {
            frames.pop_front();
        } else if written == 0 {
            return;
        }
    }
}

async fn keep_time(shared: &Shared) {
    let changed = Arc::clone(&shared.lock().timer);
    loop {
        let next = shared.lock().tick(Instant::now());
        let sleep = tokio::time::sleep_until(next.unwrap_or_else(|| Instant::now() + LONG));
        tokio::select! {
            () = sleep => {}
            () = changed.notified() => {}
        }
    }
}
