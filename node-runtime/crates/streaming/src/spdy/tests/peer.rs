//! Against single frames: what is answered, what is refused, what ends the connection.
use super::*;
use flate2::{Compress, Compression, FlushCompress};

#[tokio::test]
async fn pings_come_back_and_unknown_frames_are_skipped() {
    let (mut peer, _server, mut incoming) = Peer::new(Limits::default());
    peer.send(Frame::Ping { id: 7 }).await;
    peer.io.write_all(&[0x80, 3, 0, 10, 0, 0, 0, 2, 1, 2]).await.unwrap();
    peer.send(Frame::Ping { id: 8 }).await; // of our parity: an answer to nothing
    peer.send(Frame::Ping { id: 9 }).await;
    assert_eq!(peer.receive().await, Some(Got::Settings));
    assert!(matches!(peer.receive().await, Some(Got::Update(0, _))));
    assert_eq!(peer.receive().await, Some(Got::Ping(7)));
    assert_eq!(peer.receive().await, Some(Got::Ping(9)));
    peer.open(1).await;
    let (mut reader, mut writer) = accepted(&mut incoming).await;
    assert_eq!(peer.receive().await, Some(Got::Reply(1)));
    peer.data(1, true, b"all").await;
    let mut all = String::new();
    soon(reader.read_to_string(&mut all)).await.unwrap();
    assert_eq!(all, "all");
    writer.write_all(b"four").await.unwrap();
    writer.shutdown().await.unwrap();
    assert_eq!(peer.receive().await, Some(Got::Data(1, false, 4)));
    assert_eq!(peer.receive().await, Some(Got::Data(1, true, 0)));
}

#[tokio::test]
async fn ids_must_grow_and_data_needs_a_stream() {
    let (mut peer, _server, mut incoming) = Peer::new(Limits::default());
    peer.open(5).await;
    let _five = accepted(&mut incoming).await;
    peer.open(3).await;
    peer.until(Got::Reset(3, Status::ProtocolError as u32)).await;
    peer.data(9, false, b"x").await;
    peer.until(Got::Reset(9, Status::InvalidStream as u32)).await;
    peer.open(5).await;
    peer.until(Got::GoAway(5, 1)).await;
    assert!(soon(incoming.next()).await.unwrap().is_err());
    assert!(soon(incoming.next()).await.is_none());
}

#[tokio::test]
async fn data_that_nobody_reads_is_cancelled_once() {
    let (mut peer, _server, mut incoming) = Peer::new(Limits::default());
    peer.open(1).await;
    let (reader, mut writer) = accepted(&mut incoming).await;
    writer.write_all(b"last words").await.unwrap();
    writer.shutdown().await.unwrap();
    drop((reader, writer));
    for _ in 0..3 {
        peer.data(1, false, b"unread").await;
    }
    peer.send(Frame::Ping { id: 1 }).await;
    peer.until(Got::Data(1, false, 10)).await;
    assert_eq!(peer.receive().await, Some(Got::Data(1, true, 0)));
    let mut rest = [peer.receive().await.unwrap(), peer.receive().await.unwrap()];
    rest.sort_by_key(|got| matches!(got, Got::Ping(_)));
    assert_eq!(rest, [Got::Reset(1, Status::Cancel as u32), Got::Ping(1)]);
    peer.open(3).await;
    let _three = accepted(&mut incoming).await;
    assert_eq!(peer.receive().await, Some(Got::Reply(3)));
}

#[tokio::test]
async fn a_bomb_of_headers_ends_the_connection() {
    let (mut peer, server, mut incoming) = Peer::new(Limits::default());
    let mut zlib = Compress::new(Compression::best(), true);
    zlib.set_dictionary(&dictionary::dictionary()).unwrap();
    let mut block = Vec::with_capacity(60_000);
    zlib.compress_vec(&vec![b'a'; 8 << 20], &mut block, FlushCompress::Sync).unwrap();
    let frame =
        Frame::SynStream { id: 1, associated: 0, priority: 0, fin: false, unidirectional: false, block: &block };
    peer.send(frame).await;
    peer.until(Got::GoAway(0, 1)).await;
    assert_eq!(peer.receive().await, None);
    let error = soon(incoming.next()).await.unwrap().unwrap_err();
    assert!(error.message().contains("65536"), "{error}");
    assert!(soon(server.gone()).await.is_err());
}

#[tokio::test]
async fn a_peer_that_vanishes_is_noticed() {
    let (mut peer, server, mut incoming) = Peer::new(Limits::default());
    peer.open(1).await;
    let (mut reader, _writer) = accepted(&mut incoming).await;
    peer.io.write_all(&data_head(1, true, 1000)).await.unwrap();
    peer.io.write_all(b"part").await.unwrap();
    drop(peer);
    let mut part = [0; 4];
    soon(reader.read_exact(&mut part)).await.unwrap();
    assert_eq!(&part, b"part");
    refused_to_read(&mut reader).await;
    assert!(soon(server.gone()).await.is_err());
}

#[tokio::test]
async fn after_a_goaway_streams_go_on_and_no_more_come() {
    let (mut peer, server, mut incoming) = Peer::new(Limits::default());
    peer.open(1).await;
    let (mut reader, _writer) = accepted(&mut incoming).await;
    peer.send(Frame::GoAway { last: 0, status: 0 }).await;
    assert!(soon(incoming.next()).await.is_none());
    peer.data(1, true, b"still").await;
    let mut all = String::new();
    soon(reader.read_to_string(&mut all)).await.unwrap();
    assert_eq!(all, "still");
    drop(peer);
    soon(server.gone()).await.unwrap();
}

#[tokio::test]
async fn a_flood_of_pings_that_reads_no_answer_is_cut_off() {
    let (mut peer, server, _incoming) = Peer::new(Limits::default());
    let flood = Frame::Ping { id: 1 }.encode().repeat(1000);
    let sent = async {
        // Half a megabyte: much more than transport and queue hold.
        for _ in 0..40 {
            if peer.io.write_all(&flood).await.is_err() {
                return;
            }
        }
    };
    soon(sent).await;
    assert!(soon(server.gone()).await.unwrap_err().message().contains("does not read"));
}

#[tokio::test(start_paused = true)]
async fn silence_is_pinged_and_then_ended() {
    let limits =
        Limits { ping_every: Some(Duration::from_secs(5)), idle: Some(Duration::from_secs(12)), ..Limits::default() };
    let (mut peer, server, _incoming) = Peer::new(limits);
    for wanted in [Got::Ping(2), Got::Ping(4), Got::GoAway(0, 1)] {
        peer.until(wanted).await;
    }
    assert!(server.gone().await.unwrap_err().message().contains("idle"));
}

#[tokio::test(start_paused = true)]
async fn close_does_not_wait_for_ever() {
    let (mut peer, server, mut incoming) = Peer::new(Limits::default());
    peer.open(1).await;
    let (_reader, mut writer) = accepted(&mut incoming).await;
    peer.send(Frame::Settings { values: vec![(7, 1 << 30)] }).await;
    peer.send(Frame::WindowUpdate { id: 0, delta: 1 << 30 }).await;
    let mut all = 0;
    while tokio::time::timeout(Duration::from_secs(1), writer.write_all(&[0; 4096])).await.is_ok() {
        all += 4096;
    }
    assert!((PIPE..4 << 20).contains(&all), "{all} bytes were taken");
    assert!(server.close().await.unwrap_err().message().contains("does not take"));
}

#[tokio::test(start_paused = true)]
async fn after_our_goaway_the_peer_has_a_minute() {
    let (mut peer, server, _incoming) = Peer::new(Limits::default());
    let began = tokio::time::Instant::now();
    let closed = tokio::spawn(async move { server.close().await });
    peer.until(Got::GoAway(0, 0)).await;
    assert_eq!(peer.receive().await, None);
    // It has not read that yet, and goes on.
    peer.data(1, false, &[0; 200_000]).await;
    closed.await.unwrap().unwrap();
    assert_eq!(began.elapsed().as_secs(), 60);
}
