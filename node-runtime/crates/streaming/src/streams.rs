//! What a session sees of its client, whatever the wire format is.
//!
//! Owns: the seam between wire formats and sessions. Must not: know either.
use crate::protocol::Size;
use crate::spdy_session::SpdyFinish;
use crate::websocket::ChannelFinish;
use crate::wire::status::Outcome;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Bytes of the client.
pub type Reader = Box<dyn AsyncRead + Send + Unpin>;
/// Bytes for the client; `shutdown` is the end of the stream.
pub type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// Streams of an exec or attach.
pub struct RemoteStreams {
    /// If the token has it.
    pub stdin: Option<Stdin>,
    /// If the token has it.
    pub stdout: Option<Writer>,
    /// If the token has it.
    pub stderr: Option<Writer>,
    /// The last size that the client told; the sender goes when no more come.
    pub size: watch::Receiver<Option<Size>>,
    /// Tells the end.
    pub finish: Finish,
}

/// What the client sends to a process.
pub struct Stdin {
    /// Bytes; the end is the client's.
    pub reader: Reader,
    /// Ending this tells the client that the process takes no more, where the wire format has a word for it.
    pub back: Option<Writer>,
}

/// One connection to a port of a pod.
pub struct Pair {
    /// Port.
    pub port: u16,
    /// What the client sends; an error is a client that has given this connection up.
    pub reader: Reader,
    /// Whether the end of `reader` can be told: else the end of what the port sends is the end of all.
    pub half_close: bool,
    /// What the port sends.
    pub data: Box<dyn Resettable>,
    /// What went wrong.
    pub error: Box<dyn Resettable>,
}

/// A stream that can be ended by force.
pub trait Resettable: AsyncWrite + Send + Unpin {
    /// Ends the stream in both directions, where the wire format has a word for it.
    fn reset(&mut self);
}

/// How the end is told, and the connection closed.
pub enum Finish {
    /// Over WebSocket.
    Channels(ChannelFinish),
    /// Over SPDY.
    Spdy(SpdyFinish),
}

impl Finish {
    /// Tells how the session ended, after all output, and closes the connection.
    pub async fn tell(self, outcome: &Outcome) {
        match self {
            Self::Channels(finish) => finish.tell(outcome).await,
            Self::Spdy(finish) => finish.tell(outcome).await,
        }
    }
}

/// One connection's life: whether the client is still there, and when a byte last moved. Copies share it.
#[derive(Debug, Clone)]
pub struct Line {
    gone: CancellationToken,
    began: Instant,
    moved: Arc<AtomicU64>,
}

impl Default for Line {
    fn default() -> Self {
        Self { gone: CancellationToken::new(), began: Instant::now(), moved: Arc::default() }
    }
}

impl Line {
    /// The client is gone.
    pub fn cut(&self) {
        self.gone.cancel();
    }

    /// Whether it is.
    pub fn is_cut(&self) -> bool {
        self.gone.is_cancelled()
    }

    /// Resolves when the client is gone.
    pub async fn gone(&self) {
        self.gone.cancelled().await;
    }

    /// A byte has moved, in either direction.
    pub fn touch(&self) {
        self.moved.store(self.age(), Ordering::Relaxed);
    }

    fn age(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Cuts the line when no byte has moved for `limit`.
    pub async fn watch_idle(&self, limit: Duration) {
        loop {
            let idle = Duration::from_millis(self.age().saturating_sub(self.moved.load(Ordering::Relaxed)));
            match limit.checked_sub(idle) {
                Some(rest) if !rest.is_zero() => tokio::time::sleep(rest).await,
                _ => break,
            }
        }
        tracing::info!("no byte has moved for {} s, the session ends", limit.as_secs());
        self.cut();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_idle_line_is_cut_and_a_busy_one_is_not() {
        let line = Line::default();
        let watched = line.clone();
        tokio::spawn(async move { watched.watch_idle(Duration::from_secs(100)).await });
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(90)).await;
            line.touch();
            assert!(!line.is_cut());
        }
        tokio::time::sleep(Duration::from_secs(99)).await;
        assert!(!line.is_cut());
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(line.is_cut());
    }
}
