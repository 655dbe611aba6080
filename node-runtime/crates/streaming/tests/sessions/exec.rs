//! Exec: streams, ends, and clients that misbehave.
use crate::client::{LIMIT, hear, read_all, say, socket, typed, upgrade_spdy};
use crate::node::{ALL, Node, OUTPUT, Promise, until};
use berth_streaming::protocol::{Refusal, Streams};
use berth_streaming::spdy;
use futures_util::{SinkExt, StreamExt};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn output_comes_before_the_status_and_the_code_is_told() {
    let node = Node::start().await;
    for (protocol, base64) in
        [("v5.channel.k8s.io", false), ("v4.channel.k8s.io", false), ("v4.base64.channel.k8s.io", true)]
    {
        node.exec("t", OUTPUT, "head -c 300000 /dev/zero; echo oops >&2; exit 7");
        let (mut socket, chosen) = socket(node.address, "/exec/t", protocol).await;
        assert_eq!(chosen.as_deref(), Some(protocol));
        let heard = hear(&mut socket, base64).await;
        assert_eq!((heard.channels[1].len(), heard.text(2).as_str()), (300_000, "oops\n"));
        assert_eq!(heard.code(), 7);
        assert_eq!((heard.order.first(), heard.order.last()), (Some(&1), Some(&3)), "{protocol}");
        assert_eq!(heard.close, Some(1000));
    }
}

#[tokio::test]
async fn old_protocols_tell_the_end_in_words() {
    let node = Node::start().await;
    for (protocol, base64) in [("", false), ("channel.k8s.io", false), ("base64.channel.k8s.io", true)] {
        node.exec("t", OUTPUT, "echo hi; exit 3");
        let (mut socket, _) = socket(node.address, "/exec/t", protocol).await;
        let heard = hear(&mut socket, base64).await;
        assert_eq!(heard.text(1), "hi\n");
        assert_eq!(heard.text(3), "command terminated with non-zero exit code: 3");
    }
    node.exec("good", OUTPUT, "true");
    let (mut socket, _) = socket(node.address, "/exec/good", "").await;
    assert_eq!(hear(&mut socket, false).await.text(3), "");
}

#[tokio::test]
async fn spdy_in_all_versions() {
    let node = Node::start().await;
    for (version, told) in [
        (&["v4.channel.k8s.io", "v3.channel.k8s.io"][..], "\"reason\":\"ExitCode\",\"message\":\"5\""),
        (&["v3.channel.k8s.io"], "command terminated with non-zero exit code: 5"),
        (&["v2.channel.k8s.io"], "command terminated with non-zero exit code: 5"),
        (&["channel.k8s.io"], "command terminated with non-zero exit code: 5"),
        (&[], "command terminated with non-zero exit code: 5"),
    ] {
        node.exec("t", ALL, "cat; echo done >&2; exit 5");
        let (stream, chosen) = upgrade_spdy(node.address, "/exec/t", version).await;
        assert_eq!(chosen.as_deref(), version.first().copied());
        let connection = spdy::client(stream, spdy::Limits::default());
        let (mut error, _e) = typed(&connection, "error").await;
        let (mut back, mut stdin) = typed(&connection, "stdin").await;
        let (mut stdout, _o) = typed(&connection, "stdout").await;
        let (mut stderr, _r) = typed(&connection, "stderr").await;
        if chosen.as_deref() == Some("channel.k8s.io") || chosen.is_none() {
            assert_eq!(read_all(&mut back).await, b"");
        }
        stdin.write_all(b"to and fro").await.unwrap();
        stdin.shutdown().await.unwrap();
        assert_eq!(read_all(&mut stdout).await, b"to and fro");
        assert_eq!(read_all(&mut stderr).await, b"done\n");
        let status = String::from_utf8(read_all(&mut error).await).unwrap();
        assert!(status.contains(told), "{version:?}: {status}");
        connection.gone().await.unwrap();
    }
}

#[tokio::test]
async fn megabytes_through_stdin_and_back() {
    let node = Node::start().await;
    let sent: Vec<u8> = (0..8_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    node.exec("s", ALL, "cat");
    let (stream, _) = upgrade_spdy(node.address, "/exec/s", &["v4.channel.k8s.io"]).await;
    let connection = spdy::client(stream, spdy::Limits::default());
    let (mut error, _e) = typed(&connection, "error").await;
    let (_back, mut stdin) = typed(&connection, "stdin").await;
    let (mut stdout, _o) = typed(&connection, "stdout").await;
    let (_stderr, _r) = typed(&connection, "stderr").await;
    let copy = sent.clone();
    let writing = tokio::spawn(async move {
        stdin.write_all(&copy).await.unwrap();
        stdin.shutdown().await.unwrap();
        stdin
    });
    assert!(read_all(&mut stdout).await == sent);
    drop(writing.await.unwrap());
    assert!(String::from_utf8(read_all(&mut error).await).unwrap().contains("Success"));

    node.exec("w", ALL, "cat");
    let (socket, _) = socket(node.address, "/exec/w", "v5.channel.k8s.io").await;
    // A client that reads while it writes, as all do.
    let (mut writer, mut reader) = socket.split();
    let copy = sent.clone();
    let writing = tokio::spawn(async move {
        for piece in copy.chunks(1_000_000) {
            writer.send(Message::Binary([&[0], piece].concat().into())).await.unwrap();
        }
        writer.send(Message::Binary(vec![255, 0].into())).await.unwrap();
        writer
    });
    let mut heard = Vec::new();
    loop {
        match timeout(LIMIT, reader.next()).await.unwrap().unwrap().unwrap() {
            Message::Binary(body) if body[0] == 1 => heard.extend_from_slice(&body[1..]),
            Message::Binary(body) if body[0] == 3 => break,
            _ => {}
        }
    }
    assert!(heard == sent);
    drop(writing.await.unwrap());
}

#[tokio::test]
async fn a_program_that_is_not_there() {
    let node = Node::start().await;
    node.promise("t", Promise::Refuse { streams: OUTPUT, refusal: Refusal::Command { code: 127 } });
    let (mut socket, _) = socket(node.address, "/exec/t", "v4.channel.k8s.io").await;
    let heard = hear(&mut socket, false).await;
    assert_eq!(heard.code(), 127);
    assert!(heard.text(2).contains("nope"), "{heard:?}");
    node.promise("u", Promise::Refuse { streams: OUTPUT, refusal: Refusal::State });
    let (mut socket, _) = crate::client::socket(node.address, "/exec/u", "v4.channel.k8s.io").await;
    assert_eq!(hear(&mut socket, false).await.status()["code"], 500);
}

#[tokio::test]
async fn a_child_in_the_background_does_not_hold_the_end() {
    let node = Node::start().await;
    node.exec("t", OUTPUT, "sleep 20 & echo here; exit 4");
    let began = Instant::now();
    let (mut socket, _) = socket(node.address, "/exec/t", "v4.channel.k8s.io").await;
    let heard = hear(&mut socket, false).await;
    assert_eq!((heard.text(1).as_str(), heard.code()), ("here\n", 4));
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn streams_that_the_client_did_not_ask_for() {
    let node = Node::start().await;
    let streams = Streams { stdout: false, ..OUTPUT };
    node.exec("t", streams, "head -c 1000000 /dev/zero; echo only >&2");
    let (mut socket, _) = socket(node.address, "/exec/t", "v4.channel.k8s.io").await;
    say(&mut socket, 0, b"nobody reads this").await;
    say(&mut socket, 77, b"nor this").await;
    let heard = hear(&mut socket, false).await;
    assert_eq!((heard.channels[1].len(), heard.text(2).as_str(), heard.code()), (0, "only\n", 0));
}

#[tokio::test]
async fn a_process_that_takes_no_stdin() {
    let node = Node::start().await;
    node.exec("t", ALL, "exec 0<&-; sleep 0.3; echo end");
    let (mut socket, _) = socket(node.address, "/exec/t", "v4.channel.k8s.io").await;
    for _ in 0..40 {
        say(&mut socket, 0, &[0; 10_000]).await;
    }
    let heard = hear(&mut socket, false).await;
    assert_eq!((heard.text(1).as_str(), heard.code()), ("end\n", 0));
}

#[tokio::test]
async fn a_terminal_and_its_sizes() {
    let node = Node::start().await;
    let streams = Streams { stdin: true, stdout: true, stderr: false, tty: true };
    node.exec("t", streams, "stty -echo; stty size; read x; stty size; exit 9");
    let (mut socket, _) = socket(node.address, "/exec/t", "v4.channel.k8s.io").await;
    say(&mut socket, 4, b"{\"Width\":101,\"Height\":31}").await;
    until("the command runs", || node.has_begun("t")).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    say(&mut socket, 4, b"{\"Width\":102,\"Height\":32}").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    say(&mut socket, 0, b"x\n").await;
    let heard = hear(&mut socket, false).await;
    assert_eq!((heard.text(1).as_str(), heard.code()), ("31 101\r\n32 102\r\n", 9));

    node.exec("s", streams, "stty size; exit 0");
    let (stream, _) = upgrade_spdy(node.address, "/exec/s", &["v4.channel.k8s.io"]).await;
    let connection = spdy::client(stream, spdy::Limits::default());
    let (mut error, _e) = typed(&connection, "error").await;
    let (_back, _stdin) = typed(&connection, "stdin").await;
    let (mut stdout, _o) = typed(&connection, "stdout").await;
    let (_r, mut resize) = typed(&connection, "resize").await;
    resize.write_all(b"{\"Width\":77,\"Height\":22}\n").await.unwrap();
    assert_eq!(read_all(&mut stdout).await, b"22 77\r\n");
    assert!(String::from_utf8(read_all(&mut error).await).unwrap().contains("Success"));
}

#[tokio::test]
async fn a_command_whose_client_vanishes_is_hung_up() {
    let node = Node::start().await;
    // It reads no stdin, so that only the connection itself can tell.
    node.exec("t", ALL, "sleep 100");
    let (mut socket, _) = socket(node.address, "/exec/t", "v4.channel.k8s.io").await;
    until("the command runs", || node.has_begun("t")).await;
    // As much as stops our reader, and little enough that the end still fits into the window.
    for _ in 0..4 {
        say(&mut socket, 0, &[0; 45_000]).await;
    }
    drop(socket);
    until("the command t has ended", || node.has_ended("t")).await;
    assert_eq!(node.signals("t"), [1]);

    node.exec("u", ALL, "trap '' HUP; while :; do sleep 0.1; done");
    let (stream, _) = upgrade_spdy(node.address, "/exec/u", &["v4.channel.k8s.io"]).await;
    let connection = spdy::client(stream, spdy::Limits::default());
    let mut kept = Vec::new();
    for kind in ["error", "stdin", "stdout", "stderr"] {
        kept.push(typed(&connection, kind).await);
    }
    until("the command runs", || node.has_begun("u")).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop((connection, kept));
    until("the command u has ended", || node.has_ended("u")).await;
    assert_eq!(node.signals("u"), [1, 9]);
}

#[tokio::test]
async fn a_stalled_client_stalls_nobody_else() {
    let node = Node::start().await;
    node.exec("slow", OUTPUT, "head -c 20000000 /dev/zero; exit 6");
    let (mut slow, _) = socket(node.address, "/exec/slow", "v4.channel.k8s.io").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    node.exec("quick", OUTPUT, "head -c 1000000 /dev/zero");
    let (mut quick, _) = socket(node.address, "/exec/quick", "v4.channel.k8s.io").await;
    let heard = hear(&mut quick, false).await;
    assert_eq!((heard.channels[1].len(), heard.code()), (1_000_000, 0));
    assert!(!node.has_ended("slow"), "its process waits for the client");
    let heard = hear(&mut slow, false).await;
    assert_eq!((heard.channels[1].len(), heard.code()), (20_000_000, 6));
}

#[tokio::test]
async fn sessions_outlive_the_daemon() {
    let mut node = Node::start().await;
    node.exec("t", ALL, "read a; echo $a; exit 8");
    node.exec("later", ALL, "true");
    let (mut socket, _) = socket(node.address, "/exec/t", "v4.channel.k8s.io").await;
    until("the command runs", || node.has_begun("t")).await;
    node.kill_daemon().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(tokio::net::TcpStream::connect(node.address).await.is_err(), "nobody listens any more");
    assert!(!node.process.is_finished());
    say(&mut socket, 0, b"still here\n").await;
    let heard = hear(&mut socket, false).await;
    assert_eq!((heard.text(1).as_str(), heard.code()), ("still here\n", 8));
    timeout(Duration::from_secs(10), &mut node.process).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn an_idle_session_is_ended() {
    let node = Node::with(|options| options.idle = Duration::from_millis(500)).await;
    node.exec("t", ALL, "sleep 100");
    let (mut stream, _) = upgrade_spdy(node.address, "/exec/t", &["v4.channel.k8s.io"]).await;
    let mut rest = Vec::new();
    let _ = timeout(LIMIT, stream.read_to_end(&mut rest)).await.unwrap();
    until("the token is given up", || node.is_abandoned("t")).await;
    node.exec("u", ALL, "sleep 100");
    let (mut socket, _) = socket(node.address, "/exec/u", "v4.channel.k8s.io").await;
    // It is cut, not ended in order.
    while let Some(Ok(_)) = timeout(LIMIT, socket.next()).await.expect("it stays open") {}
    until("the command u has ended", || node.has_ended("u")).await;
}

#[tokio::test]
async fn streams_that_do_not_come() {
    let node = Node::with(|options| options.opening = Duration::from_millis(300)).await;
    node.exec("t", ALL, "true");
    let (stream, _) = upgrade_spdy(node.address, "/exec/t", &["v4.channel.k8s.io"]).await;
    let connection = spdy::client(stream, spdy::Limits::default());
    let (_error, _e) = typed(&connection, "error").await;
    let refused = connection.open(&[("streamtype".into(), "resize".into())]).await;
    assert!(refused.is_err(), "without a terminal there is no such stream");
    until("the token is given up", || node.is_abandoned("t")).await;
    let _ = connection.gone().await;
}
