//! Exec and attach over channels.
//!
//! Owns: which channel is which stream. Must not: know processes.
use super::{ChannelWriter, QUEUE, Socket, message, next, part, until_gone, write};
use crate::protocol::{Size, Streams};
use crate::streams::{Finish, Line, RemoteStreams, Stdin, Writer};
use crate::wire::channels::{self, ERROR, Piece, RESIZE, STDERR, STDIN, STDOUT};
use crate::wire::protocols::Channels;
use crate::wire::resize::SizeReader;
use crate::wire::status::Outcome;
use futures_util::StreamExt;
use futures_util::stream::SplitStream;
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

/// Bytes of stdin that wait for the process.
const STDIN_BUFFER: usize = 64 * 1024;

/// How an exec or attach over channels ends.
pub struct ChannelFinish {
    how: Channels,
    queue: mpsc::Sender<Message>,
    writer: JoinHandle<()>,
    reader: JoinHandle<()>,
}

impl ChannelFinish {
    /// Tells the outcome after all output, and closes the connection.
    pub async fn tell(self, outcome: &Outcome) {
        if let Some(body) = outcome.encode(self.how.status) {
            // An error is a client that is gone.
            let _ = self.queue.send(message(self.how, ERROR, &body)).await;
        }
        part(self.queue, self.writer, self.reader).await;
    }
}

/// The streams of a connection that has just been made.
pub async fn remote(socket: Socket, how: Channels, streams: Streams, line: &Line) -> RemoteStreams {
    let (sink, stream) = socket.split();
    let (queue, messages) = mpsc::channel(QUEUE);
    let writer = tokio::spawn(write(sink, messages, line.clone()));
    let (input, stdin) = tokio::io::duplex(STDIN_BUFFER);
    let (sizes, size) = watch::channel(None);
    let input = streams.stdin.then_some(input);
    let reader = tokio::spawn(until_gone(read(stream, how, input, sizes, line.clone()), line.clone()));
    // Clients wait for an empty message on the first channel that they read, as a sign that the session is there.
    let first = if streams.stdout {
        STDOUT
    } else if streams.stderr {
        STDERR
    } else {
        ERROR
    };
    let _ = queue.send(message(how, first, b"")).await;
    let output = |wanted: bool, channel| -> Option<Writer> {
        wanted.then(|| Box::new(ChannelWriter::new(how, channel, queue.clone())) as Writer)
    };
    RemoteStreams {
        stdin: streams.stdin.then(|| Stdin { reader: Box::new(stdin), back: None }),
        stdout: output(streams.stdout, STDOUT),
        stderr: output(streams.stderr, STDERR),
        size,
        finish: Finish::Channels(ChannelFinish { how, queue: queue.clone(), writer, reader }),
    }
}

/// Sorts what the client sends. A process that does not read its stdin stops all of it, as there is one connection for all.
async fn read(
    mut stream: SplitStream<Socket>,
    how: Channels,
    mut stdin: Option<DuplexStream>,
    sizes: watch::Sender<Option<Size>>,
    line: Line,
) {
    let mut reader = SizeReader::default();
    while let Some(body) = next(&mut stream, &line).await {
        match channels::take_apart(how, &body) {
            Ok(Piece::Data { channel: STDIN, bytes }) => {
                if let Some(input) = &mut stdin
                    && input.write_all(&bytes).await.is_err()
                {
                    // The process has closed its stdin; what still comes is thrown away.
                    stdin = None;
                }
            }
            Ok(Piece::Data { channel: RESIZE, bytes }) => {
                if let Some(size) = reader.push(&bytes) {
                    sizes.send_replace(Some(size));
                }
            }
            Ok(Piece::Close { channel: STDIN }) => stdin = None,
            // Channels that are not the client's to write are passed over, as the peers do.
            Ok(Piece::Data { .. } | Piece::Close { .. } | Piece::Nothing) => {}
            Err(e) => {
                tracing::debug!("a client's message: {e}");
                break;
            }
        }
    }
    line.cut();
}
