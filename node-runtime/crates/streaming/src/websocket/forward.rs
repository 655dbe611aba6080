//! Port-forward over channels: two for each port, data and error, the first at twice the port's place in the list.
//!
//! Owns: which channel is which stream. Must not: connect to anything.
use super::{ChannelWriter, QUEUE, Socket, message, next, part, until_gone, write};
use crate::streams::{Line, Pair};
use crate::wire::channels::{self, Piece};
use crate::wire::protocols::Channels;
use futures_util::StreamExt;
use futures_util::stream::SplitStream;
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

/// Bytes of a port that wait for its connection.
const BUFFER: usize = 64 * 1024;

/// Closes the connection once all pairs are done.
pub struct Closing {
    queue: mpsc::Sender<Message>,
    writer: JoinHandle<()>,
    reader: JoinHandle<()>,
}

impl Closing {
    /// Says farewell.
    pub async fn close(self) {
        part(self.queue, self.writer, self.reader).await;
    }
}

/// The pairs of a connection that has just been made. At most 127 ports, as a channel is a byte.
pub async fn pairs(socket: Socket, base64: bool, ports: &[u16], line: &Line) -> (Vec<Pair>, Closing) {
    let how = Channels { base64, status: true, close: false };
    let (sink, stream) = socket.split();
    let (queue, messages) = mpsc::channel(QUEUE);
    let writer = tokio::spawn(write(sink, messages, line.clone()));
    let mut pairs = Vec::new();
    let mut inputs = Vec::new();
    for (channel, port) in (0u8..).step_by(2).zip(ports.iter().copied()) {
        // Each channel begins with its port.
        for channel in [channel, channel + 1] {
            let _ = queue.send(message(how, channel, &port.to_le_bytes())).await;
        }
        let (input, reader) = tokio::io::duplex(BUFFER);
        inputs.push(Some(input));
        let output = |channel| Box::new(ChannelWriter::new(how, channel, queue.clone()));
        pairs.push(Pair {
            port,
            reader: Box::new(reader),
            half_close: false,
            data: output(channel),
            error: output(channel + 1),
        });
    }
    let reader = tokio::spawn(until_gone(read(stream, how, inputs, line.clone()), line.clone()));
    (pairs, Closing { queue, writer, reader })
}

async fn read(mut stream: SplitStream<Socket>, how: Channels, mut inputs: Vec<Option<DuplexStream>>, line: Line) {
    while let Some(body) = next(&mut stream, &line).await {
        match channels::take_apart(how, &body) {
            Ok(Piece::Data { channel, bytes }) if channel % 2 == 0 => {
                let Some(slot) = inputs.get_mut(usize::from(channel / 2)) else { continue };
                if let Some(input) = slot
                    && input.write_all(&bytes).await.is_err()
                {
                    *slot = None;
                }
            }
            Ok(_) => {}
            Err(e) => {
                tracing::debug!("a client's message: {e}");
                break;
            }
        }
    }
    line.cut();
}
