//! Port-forward: pairs, half-close, refusals, the tunnel.
use crate::client::{LIMIT, open, read_all, socket, upgrade_spdy};
use crate::node::{Node, Promise};
use berth_streaming::spdy::{self, Connection, Limits};
use futures_util::{SinkExt, StreamExt};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

/// A server that answers when its client has ended: with what it got, backwards.
async fn reverser() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut all = Vec::new();
                stream.read_to_end(&mut all).await.unwrap();
                all.reverse();
                stream.write_all(&all).await.unwrap();
            });
        }
    });
    port
}

/// A port that nobody listens on.
async fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

async fn connect(node: &Node, token: &str) -> Connection {
    node.promise(token, Promise::Forward { ports: Vec::new() });
    let path = format!("/portforward/{token}");
    let (stream, chosen) = upgrade_spdy(node.address, &path, &["portforward.k8s.io"]).await;
    assert_eq!(chosen.as_deref(), Some("portforward.k8s.io"));
    spdy::client(stream, Limits::default())
}

async fn exchange(connection: &Connection, port: u16, request: Option<&str>, body: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let port = port.to_string();
    let mut headers = vec![("streamtype", "error"), ("port", port.as_str())];
    headers.extend(request.map(|request| ("requestid", request)));
    let (mut error, mut unused) = open(connection, &headers).await;
    unused.shutdown().await.unwrap();
    headers[0].1 = "data";
    let (mut reader, mut writer) = open(connection, &headers).await;
    writer.write_all(body).await.unwrap();
    writer.shutdown().await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(LIMIT, reader.read_to_end(&mut answer)).await.expect("the stream does not end");
    (answer, read_all(&mut error).await)
}

#[tokio::test]
async fn half_close_goes_both_ways() {
    let node = Node::start().await;
    let port = reverser().await;
    let connection = connect(&node, "t").await;
    for request in [Some("0"), Some("1"), None, Some("0")] {
        let (answer, error) = exchange(&connection, port, request, b"abc").await;
        assert_eq!((answer.as_slice(), error.as_slice()), (&b"cba"[..], &b""[..]), "{request:?}");
    }
    connection.close().await.unwrap();
}

#[tokio::test]
async fn a_refused_port_is_told_and_the_connection_stays() {
    let node = Node::start().await;
    let (good, bad) = (reverser().await, closed_port().await);
    let connection = connect(&node, "t").await;
    let (answer, error) = exchange(&connection, bad, Some("0"), b"").await;
    let error = String::from_utf8(error).unwrap();
    assert_eq!(answer, b"");
    assert!(error.starts_with(&format!("error forwarding port {bad} to pod ")), "{error}");
    assert!(error.contains("127.0.0.1: connection refused"), "{error}");
    let (answer, _) = exchange(&connection, good, Some("1"), b"xyz").await;
    assert_eq!(answer, b"zyx");
    let nonsense = connection.open(&[("streamtype".into(), "data".into()), ("port".into(), "0".into())]).await;
    assert!(nonsense.is_err());
}

#[tokio::test]
async fn many_at_once_over_one_connection() {
    let node = Node::start().await;
    let port = reverser().await;
    let connection = connect(&node, "t").await;
    let body: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
    let expected: Vec<u8> = body.iter().rev().copied().collect();
    let all = (0..100).map(|n| {
        let (connection, body) = (&connection, &body);
        async move { exchange(connection, port, Some(&n.to_string()), body).await }
    });
    for (answer, error) in futures_util::future::join_all(all).await {
        assert!(answer == expected && error.is_empty());
    }
}

#[tokio::test]
async fn a_client_that_gives_up_frees_the_pod_s_connection() {
    let node = Node::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let connection = connect(&node, "t").await;
    let headers = |kind| [("streamtype", kind), ("port", port.as_str()), ("requestid", "0")];
    let _error = open(&connection, &headers("error")).await;
    let (_reader, mut writer) = open(&connection, &headers("data")).await;
    let (mut stream, _) = listener.accept().await.unwrap();
    writer.reset();
    let mut rest = Vec::new();
    let _ = timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await.expect("it stays open");
}

#[tokio::test]
async fn channels_begin_with_their_ports() {
    let node = Node::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, bad) = (listener.local_addr().unwrap().port(), closed_port().await);
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut four = [0; 4];
        stream.read_exact(&mut four).await.unwrap();
        stream.write_all(b"pong").await.unwrap();
    });
    // The ports come with the token, or with the query if it has none.
    node.promise("t", Promise::Forward { ports: Vec::new() });
    let path = format!("/portforward/t?port={port},{bad}");
    let (mut socket, _) = socket(node.address, &path, "v4.channel.k8s.io").await;
    socket.send(Message::Binary(b"\0ping".to_vec().into())).await.unwrap();
    let mut heard: [Vec<u8>; 4] = Default::default();
    let listen = async {
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Binary(body) = message {
                heard[usize::from(body[0])].extend_from_slice(&body[1..]);
            }
        }
    };
    timeout(LIMIT, listen).await.expect("the session does not end");
    let begin = |port: u16| port.to_le_bytes().to_vec();
    assert_eq!(heard[0], [begin(port), b"pong".to_vec()].concat());
    assert_eq!(heard[1], begin(port));
    assert_eq!(heard[2], begin(bad));
    assert!(String::from_utf8_lossy(&heard[3][2..]).contains("connection refused"));
}

/// The client's end of a tunnel: SPDY bytes in binary messages.
async fn tunnel(mut socket: crate::client::Socket) -> tokio::io::DuplexStream {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    tokio::spawn(async move {
        let (mut from, mut to) = tokio::io::split(ours);
        let mut chunk = vec![0; 1000];
        loop {
            tokio::select! {
                read = from.read(&mut chunk) => match read {
                    Ok(n @ 1..) => socket.send(Message::Binary(chunk[..n].to_vec().into())).await.unwrap(),
                    _ => break,
                },
                message = socket.next() => match message {
                    Some(Ok(Message::Binary(body))) => to.write_all(&body).await.unwrap(),
                    Some(Ok(_)) => {}
                    _ => break,
                },
            }
        }
    });
    theirs
}

#[tokio::test]
async fn spdy_inside_a_websocket() {
    let node = Node::start().await;
    let port = reverser().await;
    node.promise("t", Promise::Forward { ports: vec![port] });
    let name = "SPDY/3.1+portforward.k8s.io";
    let (socket, chosen) = socket(node.address, "/portforward/t", name).await;
    assert_eq!(chosen.as_deref(), Some(name));
    let connection = spdy::client(tunnel(socket).await, Limits::default());
    let body = vec![b'q'; 200_000];
    let (answer, error) = exchange(&connection, port, Some("0"), &body).await;
    assert!(answer == body && error.is_empty());
}
