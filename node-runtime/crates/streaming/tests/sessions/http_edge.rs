//! Requests that are no sessions, and connections that are no requests.
use crate::client::{LIMIT, hear, raw, say, socket};
use crate::node::{ALL, Node, OUTPUT, until};
use berth_streaming::{Listen, TlsFiles};
use rustls::pki_types::CertificateDer;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

fn request(line: &str, headers: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: x\r\n{headers}\r\n")
}

const SPDY: &str = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n";
const SOCKET: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                      Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[tokio::test]
async fn what_is_refused_before_a_session() {
    let node = Node::start().await;
    node.exec("t", ALL, "true");
    let v9 = format!("{SPDY}X-Stream-Protocol-Version: v9.channel.k8s.io\r\n");
    let short = SOCKET.replace("dGhlIHNhbXBsZSBub25jZQ==", "short");
    for (line, headers, status, word) in [
        ("GET /exec/unknown", SPDY, 404, "no such session"),
        ("GET /attach/t", SPDY, 404, "no such session"),
        ("GET /portforward/t", SPDY, 404, "no such session"),
        ("GET /", SPDY, 404, "/exec"),
        ("GET /exec/../t", SPDY, 404, "/exec"),
        ("PUT /exec/t", SPDY, 405, "GET or POST"),
        ("GET /exec/t", "", 400, "Upgrade"),
        ("GET /exec/t", "Connection: Upgrade\r\nUpgrade: h2c\r\n", 400, "neither"),
        ("GET /exec/t", v9.as_str(), 400, "v4.channel.k8s.io, v3.channel.k8s.io"),
        ("POST /exec/t", SOCKET, 400, "GET"),
        ("GET /exec/t", short.as_str(), 400, "Sec-WebSocket-Key"),
        ("GET /portforward/t?port=0", SOCKET, 400, "65535"),
    ] {
        let answer = raw(node.address, &request(line, headers)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{line} {headers}: {answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(body.contains(word) && body.lines().count() == 1, "{answer}");
        assert_eq!(
            head.to_lowercase().contains("x-accepted-stream-protocol-versions"),
            headers.contains("v9"),
            "{head}"
        );
    }
    // None of these has used the token up; a session does.
    let (mut first, _) = socket(node.address, "/exec/t", "v4.channel.k8s.io").await;
    assert_eq!(hear(&mut first, false).await.code(), 0);
    assert!(raw(node.address, &request("GET /exec/t", SPDY)).await.starts_with("HTTP/1.1 404 "));
}

#[tokio::test]
async fn heads_that_are_too_long_or_do_not_come() {
    let node = Node::start().await;
    let long = format!("X: {}\r\n", "y".repeat(40_000));
    let answer = raw(node.address, &request("GET /exec/t", &long)).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let many = "X: y\r\n".repeat(100);
    assert!(raw(node.address, &request("GET /exec/t", &many)).await.starts_with("HTTP/1.1 431 "));
    let began = Instant::now();
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    stream.write_all(b"GET /exec/t HTTP/1.1\r\nHost: x\r\n").await.unwrap();
    let mut rest = Vec::new();
    let _ = timeout(LIMIT, stream.read_to_end(&mut rest)).await.expect("it stays open");
    assert!(began.elapsed() > Duration::from_secs(5));
}

#[tokio::test]
async fn malformed_messages_end_their_session_alone() {
    let node = Node::start().await;
    node.exec("good", ALL, "read a; exit 2");
    let (mut good, _) = socket(node.address, "/exec/good", "v4.channel.k8s.io").await;
    let unmasked: &[u8] = &[0x82, 3, 0, b'h', b'i'];
    let huge: &[u8] = &[0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4];
    let reserved: &[u8] = &[0xf3, 0x80, 1, 2, 3, 4];
    for bytes in [unmasked, huge, reserved] {
        node.exec("bad", ALL, "sleep 100");
        let mut stream = TcpStream::connect(node.address).await.unwrap();
        stream.write_all(request("GET /exec/bad", SOCKET).as_bytes()).await.unwrap();
        until("the command runs", || node.has_begun("bad")).await;
        stream.write_all(bytes).await.unwrap();
        let mut rest = Vec::new();
        let _ = timeout(LIMIT, stream.read_to_end(&mut rest)).await.expect("it stays open");
        until("the command has ended", || !node.has_begun("bad")).await;
    }
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    node.exec("spdy", ALL, "true");
    stream.write_all(request("GET /exec/spdy", SPDY).as_bytes()).await.unwrap();
    stream.write_all(&[0xff; 4096]).await.unwrap();
    let mut rest = Vec::new();
    let _ = timeout(LIMIT, stream.read_to_end(&mut rest)).await.expect("it stays open");
    until("the token is given up", || node.is_abandoned("spdy")).await;
    say(&mut good, 0, b"\n").await;
    assert_eq!(hear(&mut good, false).await.code(), 2);
}

#[tokio::test]
async fn connections_over_the_limit_are_told_so() {
    let node = Node::with(|options| options.connections = 5).await;
    let mut idle = Vec::new();
    for _ in 0..5 {
        idle.push(TcpStream::connect(node.address).await.unwrap());
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut told = 0;
    let text = request("GET /exec/t", SPDY);
    let asking = (0..1000).map(|_| async {
        let mut stream = TcpStream::connect(node.address).await.unwrap();
        let mut answer = Vec::new();
        // Far beyond the limit a connection is closed without a word.
        let _ = stream.write_all(text.as_bytes()).await;
        let _ = timeout(LIMIT, stream.read_to_end(&mut answer)).await.expect("it stays open");
        String::from_utf8(answer).unwrap()
    });
    for answer in futures_util::future::join_all(asking).await {
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 429 "), "{answer}");
        told += usize::from(!answer.is_empty());
    }
    assert!(told >= 100, "{told}");
    drop(idle);
    tokio::time::sleep(Duration::from_millis(200)).await;
    node.exec("t", OUTPUT, "exit 1");
    let (mut socket, _) = socket(node.address, "/exec/t", "v4.channel.k8s.io").await;
    assert_eq!(hear(&mut socket, false).await.code(), 1);
}

#[tokio::test]
async fn without_a_daemon_and_without_sessions_it_ends() {
    let mut node = Node::start().await;
    let _idle = TcpStream::connect(node.address).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let began = Instant::now();
    node.kill_daemon().await;
    timeout(Duration::from_secs(10), &mut node.process).await.unwrap().unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_fixed_port_that_the_predecessor_still_holds() {
    let predecessor = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = predecessor.local_addr().unwrap();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(400));
        drop(predecessor);
    });
    let node = Node::with(|options| options.listen = Listen::Address(address)).await;
    assert_eq!(node.address, address);
    let bound = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = bound.local_addr().unwrap();
    let node = Node::with(|options| options.listen = Listen::Bound(bound)).await;
    assert_eq!(node.address, address);
}

#[tokio::test]
async fn tls() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let files = TlsFiles { certificate: directory.path().join("cert.pem"), key: directory.path().join("key.pem") };
    std::fs::write(&files.certificate, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    let node = Node::with(|options| options.tls = Some(files)).await;
    node.exec("t", OUTPUT, "head -c 100000 /dev/zero; exit 5");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(made.cert.der().to_vec())).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = TcpStream::connect(node.address).await.unwrap();
    let mut stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
    stream.write_all(request("GET /exec/t", SOCKET).as_bytes()).await.unwrap();
    let mut all = Vec::new();
    let _ = timeout(LIMIT, stream.read_to_end(&mut all)).await.expect("it stays open");
    let text = String::from_utf8_lossy(&all);
    assert!(text.starts_with("HTTP/1.1 101 "), "{text}");
    assert!(text.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "the accept key of RFC 6455, section 1.3");
    assert!(text.contains("exit code: 5") && all.len() > 100_000);
    // A client without TLS is no client.
    let answer = timeout(LIMIT, async {
        let mut stream = TcpStream::connect(node.address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        answer
    });
    assert!(!answer.await.unwrap().starts_with(b"HTTP"));
}
