//! Peers that count windows, and the one that does not.
use super::super::window::INITIAL;
use super::*;

const WINDOW: usize = INITIAL as usize;

/// One stream, on which the server writes a megabyte.
async fn writing(limits: Limits) -> (Peer, Connection, StreamReader, tokio::task::JoinHandle<()>) {
    let (mut peer, server, mut incoming) = Peer::new(limits);
    peer.open(1).await;
    let (reader, mut writer) = accepted(&mut incoming).await;
    let written = tokio::spawn(async move {
        writer.write_all(&vec![3; 1 << 20]).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    (peer, server, reader, written)
}

#[tokio::test]
async fn a_peer_that_answers_the_probe_and_grants_nothing_gets_everything() {
    let (mut peer, _server, _reader, written) = writing(Limits::default()).await;
    peer.bytes(1, WINDOW).await;
    assert_eq!(peer.receive().await, Some(Got::Ping(2)));
    peer.send(Frame::Ping { id: 2 }).await;
    peer.bytes(1, (1 << 20) - WINDOW).await;
    soon(written).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_gets_everything_a_little_later() {
    let (mut peer, _server, _reader, written) = writing(Limits::default()).await;
    peer.bytes(1, 1 << 20).await;
    written.await.unwrap();
}

#[tokio::test]
async fn a_peer_that_counts_gets_what_it_grants() {
    let (mut peer, _server, _reader, written) = writing(Limits::default()).await;
    peer.bytes(1, WINDOW).await;
    peer.send(Frame::WindowUpdate { id: 0, delta: 2 << 20 }).await;
    peer.send(Frame::WindowUpdate { id: 1, delta: 1000 }).await;
    assert_eq!(peer.receive().await, Some(Got::Ping(2)));
    peer.send(Frame::Ping { id: 2 }).await;
    peer.bytes(1, 1000).await;
    peer.send(Frame::Settings { values: vec![(7, INITIAL as u32 + 500)] }).await;
    peer.bytes(1, 500).await;
    assert!(!written.is_finished());
    peer.send(Frame::WindowUpdate { id: 1, delta: 1 << 20 }).await;
    peer.bytes(1, (1 << 20) - WINDOW - 1500).await;
    soon(written).await.unwrap();
}

#[tokio::test]
async fn a_window_that_grows_too_large_is_an_error() {
    let (mut peer, _server, mut incoming) = Peer::new(Limits::default());
    peer.open(1).await;
    let _one = accepted(&mut incoming).await;
    peer.send(Frame::WindowUpdate { id: 1, delta: 0x7fff_ffff }).await;
    peer.until(Got::Reset(1, Status::FlowControlError as u32)).await;
    peer.send(Frame::WindowUpdate { id: 0, delta: 0x7fff_ffff }).await;
    peer.until(Got::GoAway(1, 1)).await;
}

#[tokio::test]
async fn a_peer_that_counts_and_sends_too_much_loses_the_stream() {
    let (mut peer, _server, mut incoming) = Peer::new(Limits { stream_window: 100_000, ..Limits::default() });
    peer.send(Frame::Settings { values: vec![] }).await;
    peer.open(1).await;
    let (mut reader, _writer) = accepted(&mut incoming).await;
    peer.data(1, false, &[0; 60_000]).await;
    soon(reader.read_exact(&mut [0; 60_000])).await.unwrap();
    peer.until(Got::Update(1, 60_000)).await;
    peer.data(1, false, &[0; 60_000]).await;
    peer.data(1, false, &[0; 60_000]).await;
    peer.until(Got::Reset(1, Status::FlowControlError as u32)).await;
    assert_eq!(refused_to_read(&mut reader).await, std::io::ErrorKind::ConnectionReset);
}

/// As kubectl sends a large file into a process that does not read yet.
#[tokio::test]
async fn a_peer_that_does_not_count_is_slowed_down_and_the_other_direction_flows() {
    let limits = Limits { buffered: 300_000, ..Limits::default() };
    let (mut peer, _server, mut incoming) = Peer::new(limits);
    peer.open(1).await;
    let (mut stdin, _) = accepted(&mut incoming).await;
    peer.open(3).await;
    let (_reader, mut stdout) = accepted(&mut incoming).await;
    peer.until(Got::Reply(3)).await;
    let (mut back, mut forth) = tokio::io::split(peer.io);
    let sending = tokio::spawn(async move {
        for n in 0..1000u32 {
            forth.write_all(&data_head(1, n == 999, 4000)).await.unwrap();
            forth.write_all(&[n as u8; 4000]).await.unwrap();
        }
        forth
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!sending.is_finished(), "four megabytes are held, 300 kB may be");
    stdout.write_all(b"out").await.unwrap();
    let mut frame = [0; HEAD + 3];
    soon(back.read_exact(&mut frame)).await.unwrap();
    assert_eq!(&frame[HEAD..], b"out");
    let drain = tokio::spawn(async move { tokio::io::copy(&mut back, &mut tokio::io::sink()).await });
    let mut all = Vec::new();
    soon(stdin.read_to_end(&mut all)).await.unwrap();
    assert_eq!(all.len(), 4_000_000);
    assert!(all.chunks(4000).enumerate().all(|(n, part)| part.iter().all(|b| *b == n as u8)));
    drop(soon(sending).await.unwrap());
    drain.abort();
}

/// A peer that does not count, a stream that nobody reads, and its end: the connection is not stuck.
#[tokio::test]
async fn what_waits_is_thrown_away_with_its_reader() {
    let limits = Limits { buffered: 100_000, ..Limits::default() };
    let (mut peer, server, mut incoming) = Peer::new(limits);
    peer.open(1).await;
    let one = accepted(&mut incoming).await;
    let mut io = peer.io;
    let sending = tokio::spawn(async move {
        for _ in 0..100 {
            io.write_all(&data_head(1, false, 10_000)).await.unwrap();
            io.write_all(&[0; 10_000]).await.unwrap();
        }
        io
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!sending.is_finished());
    drop(one);
    drop(soon(sending).await.unwrap());
    soon(server.gone()).await.unwrap();
}

/// Its end would not be seen: a peer that is gone does not answer writing.
#[tokio::test(start_paused = true)]
async fn a_connection_that_is_not_read_is_pinged() {
    let limits = Limits { buffered: 256 * 1024, ..Limits::default() };
    let (mut peer, _server, mut incoming) = Peer::new(limits);
    peer.open(1).await;
    let (mut reader, _writer) = accepted(&mut incoming).await;
    peer.data(1, true, &[0; 300_000]).await;
    peer.until(Got::Ping(2)).await;
    let mut all = Vec::new();
    soon(reader.read_to_end(&mut all)).await.unwrap();
    assert_eq!(all.len(), 300_000);
}
