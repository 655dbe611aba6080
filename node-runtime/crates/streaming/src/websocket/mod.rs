//! Sessions over WebSocket (RFC 6455).
//!
//! Owns: the connection after its upgrade, its limits, its readers and its writer. Must not: know what a session does.
//!
//! We send no pings: TCP's own keepalive finds a client that vanished, and unlike a ping it leaves one alone whose reader has only
//! stopped reading. Clients' pings are answered.
mod forward;
mod remote;
mod tunnel;
mod writer;

pub use forward::pairs;
pub use remote::{ChannelFinish, remote};
pub use tunnel::Tunnel;
pub use writer::ChannelWriter;

use crate::streams::Line;
use crate::wire::channels;
use crate::wire::protocols::Channels;
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

/// Largest message of a client in bytes: clients send what they read at once, which is 32 KiB with all that we know.
pub const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// Most bytes that wait to be written.
const MAX_WAITING: usize = MAX_MESSAGE;
/// Messages that wait for the connection, of all channels together.
pub const QUEUE: usize = 4;
/// How long the client may take to end the connection after we did.
const LINGER: Duration = Duration::from_secs(5);

/// A connection.
pub type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// The answer's `Sec-WebSocket-Accept`. Errors say what is wrong with the request.
pub fn accept(headers: &HeaderMap) -> Result<HeaderValue, &'static str> {
    if headers.get("sec-websocket-version").is_none_or(|version| version.as_bytes() != b"13") {
        return Err("Sec-WebSocket-Version must be 13");
    }
    // 16 bytes in base64.
    let key = headers.get("sec-websocket-key").filter(|key| key.len() == 24);
    let key = key.ok_or("Sec-WebSocket-Key must have 24 characters")?;
    HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(|_| "Sec-WebSocket-Key is not base64")
}

/// The connection after the upgrade.
pub async fn open(upgraded: Upgraded) -> Socket {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
        .read_buffer_size(64 * 1024)
        .write_buffer_size(64 * 1024)
        .max_write_buffer_size(MAX_WAITING + 64 * 1024);
    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await
}

/// A channel's message.
fn message(how: Channels, channel: u8, bytes: &[u8]) -> Message {
    let body = channels::put_together(how, channel, bytes);
    if how.base64 {
        // Base64 and a digit are ASCII.
        Utf8Bytes::try_from(body).map_or_else(|_| Message::Binary(Bytes::new()), Message::Text)
    } else {
        Message::Binary(body)
    }
}

/// The message that says that all is said.
fn farewell() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::from_static("") }))
}

/// Writes what the channels send until the farewell.
async fn write(mut sink: SplitSink<Socket, Message>, mut queue: mpsc::Receiver<Message>, line: Line) {
    let writing = async {
        while let Some(message) = queue.recv().await {
            let last = message.is_close();
            line.touch();
            if sink.send(message).await.is_err() {
                return Err(());
            }
            if last {
                return Ok(());
            }
        }
        Ok(())
    };
    tokio::select! {
        written = writing => if written.is_err() { line.cut() },
        () = line.gone() => {}
    }
}

/// The next message's body; `None` is the end, for whatever reason.
async fn next(stream: &mut SplitStream<Socket>, line: &Line) -> Option<Bytes> {
    loop {
        let body = match stream.next().await? {
            Ok(Message::Binary(body)) => body,
            Ok(Message::Text(text)) => text.into(),
            Ok(Message::Close(_)) => return None,
            Ok(_) => continue,
            Err(e) => {
                tracing::debug!("WebSocket: {e}");
                return None;
            }
        };
        line.touch();
        return Some(body);
    }
}

/// Lets go of the connection's reading half when the client is gone, whatever it waits for.
async fn until_gone(reading: impl Future<Output = ()>, line: Line) {
    tokio::select! {
        () = reading => {}
        () = line.gone() => {}
    }
}

/// Says farewell, and waits until the client has ended the connection too: what it still sends would otherwise make the kernel reset
/// the connection and throw the last of our bytes away.
async fn part(queue: mpsc::Sender<Message>, writer: tokio::task::JoinHandle<()>, reader: tokio::task::JoinHandle<()>) {
    let (writer_stop, reader_stop) = (writer.abort_handle(), reader.abort_handle());
    // The writer ends by itself when the client is gone.
    let _ = queue.send(farewell()).await;
    let _ = writer.await;
    let _ = timeout(LINGER, reader).await;
    writer_stop.abort();
    reader_stop.abort();
}
