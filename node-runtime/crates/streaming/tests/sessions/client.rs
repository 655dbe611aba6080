//! Clients: WebSocket and SPDY, as Kubernetes' own use them.
use base64::Engine as _;
use berth_streaming::spdy;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::Request;
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;

/// Longer than anything takes that is right.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Sends bytes and returns the answer up to its end, or up to the limit.
pub async fn raw(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(LIMIT, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    String::from_utf8(answer).unwrap()
}

pub type Socket = WebSocketStream<TcpStream>;

pub async fn socket(address: SocketAddr, path: &str, protocol: &str) -> (Socket, Option<String>) {
    let request = Request::get(format!("ws://{address}{path}"))
        .header("Host", address.to_string())
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", generate_key());
    let request = if protocol.is_empty() { request } else { request.header("Sec-WebSocket-Protocol", protocol) };
    let stream = TcpStream::connect(address).await.unwrap();
    let opened = tokio_tungstenite::client_async(request.body(()).unwrap(), stream).await;
    let (socket, answer) = opened.unwrap();
    let chosen = answer.headers().get("sec-websocket-protocol").map(|name| name.to_str().unwrap().to_owned());
    (socket, chosen)
}

/// What came over the channels, and the order in which they came.
#[derive(Debug, Default)]
pub struct Heard {
    pub channels: [Vec<u8>; 5],
    pub order: Vec<u8>,
    pub close: Option<u16>,
}

impl Heard {
    pub fn text(&self, channel: usize) -> String {
        String::from_utf8(self.channels[channel].clone()).unwrap()
    }

    pub fn status(&self) -> Value {
        serde_json::from_slice(&self.channels[3]).unwrap()
    }

    /// The exit code of the status; 0 for a success.
    pub fn code(&self) -> i64 {
        let status = self.status();
        if status["status"] == "Success" {
            return 0;
        }
        status["details"]["causes"][0]["message"].as_str().unwrap().parse().unwrap()
    }
}

/// Listens until the connection ends.
pub async fn hear(socket: &mut Socket, base64: bool) -> Heard {
    let mut heard = Heard::default();
    let listen = async {
        while let Some(message) = socket.next().await {
            let (channel, bytes) = match message {
                Ok(Message::Binary(body)) if !base64 => (body[0], body.slice(1..)),
                Ok(Message::Text(text)) if base64 => {
                    let bytes = base64::engine::general_purpose::STANDARD.decode(&text.as_bytes()[1..]).unwrap();
                    (text.as_bytes()[0] - b'0', Bytes::from(bytes))
                }
                Ok(Message::Close(frame)) => {
                    heard.close = frame.map(|frame| frame.code.into());
                    continue;
                }
                Ok(other) => panic!("{other:?}"),
                Err(e) => panic!("{e} after {:?}", heard.order),
            };
            heard.channels[usize::from(channel)].extend_from_slice(&bytes);
            heard.order.push(channel);
        }
    };
    timeout(LIMIT, listen).await.expect("the session does not end");
    heard
}

pub async fn say(socket: &mut Socket, channel: u8, bytes: &[u8]) {
    let mut body = vec![channel];
    body.extend_from_slice(bytes);
    socket.send(Message::Binary(body.into())).await.unwrap();
}

/// Upgrades to SPDY; gives the chosen protocol too.
pub async fn upgrade_spdy(address: SocketAddr, path: &str, protocols: &[&str]) -> (TcpStream, Option<String>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut request =
        format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n");
    for protocol in protocols {
        request += &format!("X-Stream-Protocol-Version: {protocol}\r\n");
    }
    stream.write_all(format!("{request}\r\n").as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(LIMIT, stream.read_u8()).await.unwrap().unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(head.contains("\r\nupgrade: spdy/3.1\r\n"), "{head}");
    let chosen = head.lines().find_map(|line| line.strip_prefix("x-stream-protocol-version: ")).map(str::to_owned);
    (stream, chosen)
}

pub type Handles = (spdy::StreamReader, spdy::StreamWriter);

pub async fn open(connection: &spdy::Connection, headers: &[(&str, &str)]) -> Handles {
    let headers: Vec<_> = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    timeout(LIMIT, connection.open(&headers)).await.unwrap().unwrap()
}

pub async fn typed(connection: &spdy::Connection, kind: &str) -> Handles {
    open(connection, &[("streamtype", kind)]).await
}

pub async fn read_all(reader: &mut spdy::StreamReader) -> Vec<u8> {
    let mut all = Vec::new();
    timeout(LIMIT, reader.read_to_end(&mut all)).await.expect("the stream does not end").unwrap();
    all
}
