//! A channel for writing.
//!
//! Owns: cutting bytes into messages. Must not: write to the connection, which belongs to one task.
use super::message;
use crate::streams::Resettable;
use crate::wire::protocols::Channels;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::PollSender;

/// Most bytes of one message of ours; clients read with buffers of 32 KiB.
const MAX_PIECE: usize = 32 * 1024;

/// Writes one channel. There is no end of a channel on the wire; `shutdown` does nothing.
pub struct ChannelWriter {
    how: Channels,
    channel: u8,
    queue: PollSender<Message>,
}

impl ChannelWriter {
    /// For a channel.
    pub fn new(how: Channels, channel: u8, queue: mpsc::Sender<Message>) -> Self {
        Self { how, channel, queue: PollSender::new(queue) }
    }
}

impl AsyncWrite for ChannelWriter {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        ready!(self.queue.poll_reserve(cx)).map_err(gone)?;
        let piece = &bytes[..bytes.len().min(MAX_PIECE)];
        let message = message(self.how, self.channel, piece);
        self.queue.send_item(message).map_err(gone)?;
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Resettable for ChannelWriter {
    fn reset(&mut self) {}
}
