//! Copying between a client and a process.
//!
//! Owns: one direction of one stream each. Must not: decide when a session ends.
use crate::streams::{Line, Stdin, Writer};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

/// Bytes that are read at once.
const CHUNK: usize = 32 * 1024;
/// How long a pipe is waited for after its process has ended: a child in the background may hold it open for ever.
const HELD: Duration = Duration::from_millis(500);
/// Most bytes that are still taken then: what a pipe can hold at most (`/proc/sys/fs/pipe-max-size`).
const HELD_BYTES: usize = 1024 * 1024;

/// Copies output until its end, and ends the client's stream. Without a client's stream the output is read and thrown away, so that
/// the process never waits. `exited` says that the process has ended.
pub async fn output<R: AsyncRead + Unpin>(mut from: R, mut to: Option<Writer>, exited: CancellationToken, line: Line) {
    let mut chunk = vec![0; CHUNK];
    let late = async {
        exited.cancelled().await;
        tokio::time::sleep(HELD).await;
    };
    tokio::pin!(late);
    let mut left: Option<usize> = None;
    while left != Some(0) {
        let read = tokio::select! {
            // What is there already comes first: the process wrote it before it ended.
            biased;
            read = from.read(&mut chunk) => read,
            () = &mut late, if left.is_none() => {
                left = Some(HELD_BYTES);
                continue;
            }
            () = std::future::ready(()), if left.is_some() => break,
        };
        let Ok(n @ 1..) = read else { break };
        left = left.map(|left| left.saturating_sub(n));
        line.touch();
        if let Some(client) = &mut to
            && client.write_all(&chunk[..n]).await.is_err()
        {
            // The client has ended this stream; the process goes on.
            to = None;
        }
    }
    if let Some(mut client) = to {
        // An error is a client that is gone.
        let _ = client.shutdown().await;
    }
}

/// Copies input until the client's end of it, and closes the process's side. What a process does not take any more is thrown away.
pub async fn input(from: Stdin, to: Writer, line: Line) {
    let Stdin { mut reader, mut back } = from;
    let mut to = Some(to);
    let mut chunk = vec![0; CHUNK];
    while let Ok(n @ 1..) = reader.read(&mut chunk).await {
        line.touch();
        if let Some(process) = &mut to
            && process.write_all(&chunk[..n]).await.is_err()
        {
            to = None;
            end(&mut back).await;
        }
    }
    end(&mut back).await;
}

async fn end(back: &mut Option<Writer>) {
    if let Some(mut back) = back.take() {
        // An error is a client that is gone.
        let _ = back.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use tokio::net::unix::pipe;
    use tokio::time::{Instant, timeout};

    fn pair() -> (pipe::Receiver, std::io::PipeWriter) {
        let (read, write) = std::io::pipe().unwrap();
        (berth_monitor_client::pipes::reader(read.into()).unwrap(), write)
    }

    #[tokio::test]
    async fn a_held_pipe_is_read_empty_and_then_left() {
        let (from, mut write) = pair();
        write.write_all(&[b'x'; 60_000]).unwrap();
        let (client, mut seen) = tokio::io::duplex(1024);
        let exited = CancellationToken::new();
        exited.cancel();
        let began = Instant::now();
        let pump = tokio::spawn(output(from, Some(Box::new(client)), exited, Line::default()));
        // A client slower than the limit gets everything all the same.
        tokio::time::sleep(HELD * 2).await;
        let mut all = Vec::new();
        timeout(Duration::from_secs(5), seen.read_to_end(&mut all)).await.unwrap().unwrap();
        assert_eq!(all.len(), 60_000);
        assert!(began.elapsed() >= HELD);
        pump.await.unwrap();
        drop(write);
    }

    #[tokio::test]
    async fn without_a_client_the_output_is_thrown_away() {
        let (from, mut write) = pair();
        let pump = tokio::spawn(output(from, None, CancellationToken::new(), Line::default()));
        let writer = tokio::task::spawn_blocking(move || write.write_all(&vec![0; 1_000_000]).unwrap());
        timeout(Duration::from_secs(10), writer).await.unwrap().unwrap();
        timeout(Duration::from_secs(10), pump).await.unwrap().unwrap();
    }
}
