//! Whole connections: both ends of ours, and one of ours against a peer that is made of single frames.
mod pair;
mod peer;
mod windows;

use super::frame::{Frame, HEAD, Head, data_head};
use super::headers::{Decoder, Encoder};
use super::*;
use std::future::Future;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

const PIPE: usize = 64 * 1024;

fn headers(kind: &str) -> Vec<(String, String)> {
    vec![("streamtype".to_owned(), kind.to_owned())]
}

/// Both ends are ours.
fn pair(limits: Limits) -> (Connection, Connection, Incoming) {
    let (near, far) = tokio::io::duplex(PIPE);
    let (server, incoming) = serve(far, limits.clone());
    (client(near, limits), server, incoming)
}

/// Fails instead of hanging.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("it hangs")
}

/// What a peer of single frames received.
#[derive(Debug, PartialEq, Eq)]
enum Got {
    Data(u32, bool, usize),
    Reply(u32),
    Reset(u32, u32),
    Ping(u32),
    GoAway(u32, u32),
    Update(u32, u32),
    Settings,
}

/// A client made of single frames.
struct Peer {
    io: DuplexStream,
    encoder: Encoder,
    decoder: Decoder,
}

impl Peer {
    fn new(limits: Limits) -> (Self, Connection, Incoming) {
        let (io, far) = tokio::io::duplex(PIPE);
        let (server, incoming) = serve(far, limits);
        (Self { io, encoder: Encoder::default(), decoder: Decoder::default() }, server, incoming)
    }

    async fn send(&mut self, frame: Frame<'_>) {
        soon(self.io.write_all(&frame.encode())).await.unwrap();
    }

    async fn open(&mut self, id: u32) {
        let block = self.encoder.encode(&headers("data")).unwrap();
        let frame =
            Frame::SynStream { id, associated: 0, priority: 0, fin: false, unidirectional: false, block: &block };
        self.send(frame).await;
    }

    async fn data(&mut self, id: u32, fin: bool, data: &[u8]) {
        soon(self.io.write_all(&data_head(id, fin, data.len()))).await.unwrap();
        soon(self.io.write_all(data)).await.unwrap();
    }

    /// The next frame; None is the end.
    async fn receive(&mut self) -> Option<Got> {
        let mut head = [0; HEAD];
        soon(self.io.read_exact(&mut head)).await.ok()?;
        let (Head::Data { length, .. } | Head::Control { length, .. }) = Head::parse(head).unwrap();
        let mut payload = vec![0; length];
        soon(self.io.read_exact(&mut payload)).await.unwrap();
        let (kind, flags) = match Head::parse(head).unwrap() {
            Head::Data { id, fin, length } => return Some(Got::Data(id, fin, length)),
            Head::Control { kind, flags, .. } => (kind, flags),
        };
        Some(match Frame::parse(kind, flags, &payload).unwrap().unwrap() {
            Frame::SynReply { id, block, .. } => {
                self.decoder.decode(block).unwrap();
                Got::Reply(id)
            }
            Frame::RstStream { id, status } => Got::Reset(id, status),
            Frame::Ping { id } => Got::Ping(id),
            Frame::GoAway { last, status } => Got::GoAway(last, status),
            Frame::WindowUpdate { id, delta } => Got::Update(id, delta),
            Frame::Settings { .. } => Got::Settings,
            other => panic!("{other:?} was not expected"),
        })
    }

    /// Reads until this comes.
    async fn until(&mut self, wanted: Got) {
        loop {
            let got = self.receive().await.unwrap_or_else(|| panic!("the end came, and not {wanted:?}"));
            if got == wanted {
                return;
            }
        }
    }

    /// Reads data of a stream until that many bytes came.
    async fn bytes(&mut self, stream: u32, wanted: usize) {
        let mut sum = 0;
        while sum < wanted {
            if let Some(Got::Data(id, _, length)) = self.receive().await
                && id == stream
            {
                sum += length;
            }
        }
        assert_eq!(sum, wanted);
    }
}

async fn accepted(incoming: &mut Incoming) -> (StreamReader, StreamWriter) {
    soon(incoming.next()).await.unwrap().unwrap().accept().await.unwrap()
}

type Handles = (StreamReader, StreamWriter);

/// Both ends of a new stream.
async fn both(client: &Connection, incoming: &mut Incoming, kind: &str) -> (Handles, Handles) {
    let headers = headers(kind);
    let (near, far) = soon(async { tokio::join!(client.open(&headers), accepted(incoming)) }).await;
    (near.unwrap(), far)
}

async fn refused_to_read(reader: &mut StreamReader) -> std::io::ErrorKind {
    let mut rest = Vec::new();
    soon(reader.read_to_end(&mut rest)).await.unwrap_err().kind()
}
