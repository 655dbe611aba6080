//! Both ends are ours: streams, halves, resets, the end.
use super::*;
use std::io::ErrorKind;

/// Sends back what comes, on every stream.
fn echo(mut incoming: Incoming) -> tokio::task::JoinHandle<usize> {
    tokio::spawn(async move {
        let mut streams = 0;
        while let Some(stream) = incoming.next().await {
            streams += 1;
            let stream = stream.unwrap();
            assert_eq!(stream.header("streamtype"), Some("echo"));
            let (mut reader, mut writer) = stream.accept().await.unwrap();
            tokio::spawn(async move {
                tokio::io::copy_buf(&mut reader, &mut writer).await.unwrap();
                writer.shutdown().await.unwrap();
            });
        }
        streams
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_streams_echo_until_their_halves_are_closed() {
    let (client, server, incoming) = pair(Limits::default());
    let served = echo(incoming);
    let client = std::sync::Arc::new(client);
    let tasks: Vec<_> = (0..200u32)
        .map(|n| {
            let client = std::sync::Arc::clone(&client);
            tokio::spawn(async move {
                let (mut reader, mut writer) = client.open(&headers("echo")).await.unwrap();
                let sent: Vec<u8> = (0..n * 997).map(|i| (i ^ n) as u8).collect();
                let write = async {
                    writer.write_all(&sent).await.unwrap();
                    writer.shutdown().await.unwrap();
                };
                let mut back = Vec::new();
                let (_, read) = tokio::join!(write, reader.read_to_end(&mut back));
                read.unwrap();
                assert!(back == sent, "stream {n}: {} of {} bytes", back.len(), sent.len());
                assert!(writer.write_all(b"x").await.is_err(), "it is finished");
            })
        })
        .collect();
    for task in tasks {
        soon(task).await.unwrap();
    }
    soon(client.close()).await.unwrap();
    assert_eq!(soon(served).await.unwrap(), 200);
    soon(server.gone()).await.unwrap();
}

#[tokio::test]
async fn a_refused_stream_is_an_error_of_the_client() {
    let (client, _server, mut incoming) = pair(Limits::default());
    let open = tokio::spawn(async move { client.open(&headers("what")).await.unwrap_err() });
    soon(incoming.next()).await.unwrap().unwrap().refuse(Status::RefusedStream);
    assert!(soon(open).await.unwrap().message().contains("status 3"));
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused_until_others_end() {
    let (client, _server, mut incoming) = pair(Limits { streams: 1, ..Limits::default() });
    let first = both(&client, &mut incoming, "a").await;
    assert!(soon(client.open(&headers("b"))).await.unwrap_err().message().contains("status 3"));
    drop(first);
    both(&client, &mut incoming, "c").await;
}

#[tokio::test]
async fn a_reset_ends_both_directions_of_one_stream() {
    let (client, _server, mut incoming) = pair(Limits::default());
    let ((mut near_reader, mut near_writer), (mut reader, mut writer)) = both(&client, &mut incoming, "a").await;
    near_writer.write_all(b"lost").await.unwrap();
    near_writer.reset();
    assert_eq!(refused_to_read(&mut reader).await, ErrorKind::ConnectionReset);
    assert_eq!(writer.write_all(b"x").await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(refused_to_read(&mut near_reader).await, ErrorKind::ConnectionReset);
    // The connection lives on.
    both(&client, &mut incoming, "b").await;
}

#[tokio::test]
async fn handles_that_are_dropped_cancel_the_stream() {
    let (client, _server, mut incoming) = pair(Limits::default());
    let ((mut reader, _writer), served) = both(&client, &mut incoming, "a").await;
    drop(served);
    assert_eq!(refused_to_read(&mut reader).await, ErrorKind::ConnectionReset);
    // Not answered at all.
    let open = tokio::spawn(async move { client.open(&headers("b")).await.unwrap_err() });
    drop(soon(incoming.next()).await);
    soon(open).await.unwrap();
}

#[tokio::test]
async fn a_slow_reader_stops_nobody_else() {
    let (client, _server, mut incoming) = pair(Limits::default());
    let ((mut near_slow_reader, mut near_slow), (slow_reader, mut slow_writer)) =
        both(&client, &mut incoming, "slow").await;
    let ((mut near_fast_reader, mut near_fast), (mut fast_reader, mut fast_writer)) =
        both(&client, &mut incoming, "fast").await;
    let stuck = tokio::spawn(async move { near_slow.write_all(&vec![1; 4 << 20]).await });
    let sent = vec![7; 16 << 20];
    let up = async {
        near_fast.write_all(&sent).await.unwrap();
        near_fast.shutdown().await.unwrap();
    };
    let mut received = Vec::new();
    let (_, read) = soon(async { tokio::join!(up, fast_reader.read_to_end(&mut received)) }).await;
    assert_eq!(read.unwrap(), sent.len());
    // The other direction of both, too.
    for (writer, reader) in [(&mut slow_writer, &mut near_slow_reader), (&mut fast_writer, &mut near_fast_reader)] {
        let (_, byte) = tokio::join!(writer.write_all(b"b"), soon(reader.read_u8()));
        assert_eq!(byte.unwrap(), b'b');
    }
    assert!(!stuck.is_finished(), "four megabytes went into one window");
    drop((slow_reader, slow_writer));
    assert!(soon(stuck).await.unwrap().is_err(), "nobody reads it");
}

#[tokio::test]
async fn close_delivers_what_was_written() {
    let (client, server, mut incoming) = pair(Limits::default());
    let ((mut reader, mut near_writer), (_reader, mut writer)) = both(&client, &mut incoming, "out").await;
    let sent = vec![5; 100_000];
    let (_, wrote) = tokio::join!(near_writer.write_all(b"nobody reads that"), writer.write_all(&sent[..60_000]));
    wrote.unwrap();
    let server = std::sync::Arc::new(server);
    let rest = tokio::spawn({
        let server = std::sync::Arc::clone(&server);
        async move {
            writer.write_all(&[5; 40_000]).await.unwrap();
            // Not even handed to the transport when the end begins.
            let shutdown = tokio::spawn(async move { writer.shutdown().await });
            tokio::task::yield_now().await;
            server.close().await.unwrap();
            shutdown.await.unwrap()
        }
    });
    let mut all = Vec::new();
    soon(reader.read_to_end(&mut all)).await.unwrap();
    assert!(all == sent, "{} bytes", all.len());
    soon(client.gone()).await.unwrap();
    soon(rest).await.unwrap().unwrap();
    assert!(near_writer.write_all(b"x").await.is_err());
    assert!(soon(incoming.next()).await.is_none());
    assert!(client.open(&headers("late")).await.is_err());
}

#[tokio::test]
async fn a_dropped_connection_ends_the_peer_and_the_handles() {
    let (client, server, mut incoming) = pair(Limits::default());
    let ((mut near_reader, _near_writer), (mut reader, _writer)) = both(&client, &mut incoming, "a").await;
    drop(client);
    assert_eq!(refused_to_read(&mut near_reader).await, ErrorKind::UnexpectedEof);
    assert_eq!(refused_to_read(&mut reader).await, ErrorKind::UnexpectedEof);
    soon(server.gone()).await.unwrap();
    assert!(soon(incoming.next()).await.is_none());
}
