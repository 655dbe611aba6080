//! A stream of bytes inside binary messages: the tunnel that carries a SPDY connection.
//!
//! Owns: the edges between messages and bytes. Must not: know SPDY.
use super::{Socket, farewell};
use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::{Error, Message};

/// Most bytes of one message of ours.
const MAX_PIECE: usize = 32 * 1024;

/// The bytes of a connection.
pub struct Tunnel {
    socket: Socket,
    rest: Bytes,
    parting: bool,
}

impl Tunnel {
    /// Over this connection.
    pub fn new(socket: Socket) -> Self {
        Self { socket, rest: Bytes::new(), parting: false }
    }
}

fn error(e: Error) -> io::Error {
    match e {
        Error::Io(e) => e,
        Error::ConnectionClosed | Error::AlreadyClosed => io::ErrorKind::BrokenPipe.into(),
        other => io::Error::new(io::ErrorKind::InvalidData, other.to_string()),
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(body))) => self.rest = body,
                Some(Ok(Message::Text(_))) => {
                    let problem = "a text message in a tunnel of bytes";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, problem)));
                }
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Ok(_)) => {}
                Some(Err(Error::ConnectionClosed)) => return Poll::Ready(Ok(())),
                Some(Err(e)) => return Poll::Ready(Err(error(e))),
            }
        }
        let length = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest[..length]);
        self.rest.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(error)?;
        let piece = &bytes[..bytes.len().min(MAX_PIECE)];
        let message = Message::Binary(Bytes::copy_from_slice(piece));
        Pin::new(&mut self.socket).start_send(message).map_err(error)?;
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(error)
    }

    /// The farewell of RFC 6455; the client answers it and then the connection ends.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.parting {
            ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(error)?;
            Pin::new(&mut self.socket).start_send(farewell()).map_err(error)?;
            self.parting = true;
        }
        match ready!(Pin::new(&mut self.socket).poll_flush(cx)) {
            Err(Error::ConnectionClosed) | Ok(()) => Poll::Ready(Ok(())),
            Err(e) => Poll::Ready(Err(error(e))),
        }
    }
}
