//! Port-forward: connections to a pod's localhost.
//!
//! Owns: what happens to a pair of streams. Must not: pair them.
use super::copying::exactly;
use super::{Context, netns};
use crate::daemon::Denied;
use crate::protocol::Started;
use crate::streams::{Line, Pair, Reader, Resettable};
use berth_model::Error;
use futures_util::future::{Either, select};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Bytes that are read at once.
const CHUNK: usize = 32 * 1024;
/// How long a client may go on sending to a port that has ended its own side.
const HALF_OPEN: Duration = Duration::from_secs(600);

/// Where connections go.
#[derive(Clone)]
struct Pod {
    /// Its id, for messages.
    id: Arc<str>,
    /// Its network namespace, or why there is none.
    namespace: Result<Arc<OwnedFd>, Arc<str>>,
}

/// Serves one session: every pair that comes. Returns when no more come and all are done, or the client is gone.
pub async fn port_forward(context: Context, pod: String, mut pairs: mpsc::Receiver<Pair>) {
    let namespace = match context.daemon.start(&context.token, None).await {
        Ok((Started::PortForward, fds)) => exactly(fds).map(|[fd]| Arc::new(fd)).map_err(|e| e.message().into()),
        Ok((other, _)) => Err(format!("the daemon started {other:?}").into()),
        Err(Denied::Refused(_, why)) => Err(why.into()),
        Err(Denied::Gone) => Err("the runtime is restarting, try again".into()),
    };
    let pod = Pod { id: pod.into(), namespace };
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            pair = pairs.recv() => match pair {
                Some(pair) => drop(connections.spawn(forward(pod.clone(), pair, context.line.clone()))),
                None => break,
            },
            Some(_) = connections.join_next() => {}
            () = context.line.gone() => return,
        }
    }
    while connections.join_next().await.is_some() {}
}

/// Serves one connection until both sides have ended it, or the client is gone.
async fn forward(pod: Pod, pair: Pair, line: Line) {
    let Pair { port, reader, half_close, mut data, mut error } = pair;
    let connected = async {
        let namespace = pod.namespace.map_err(|why| Error::internal(&*why))?;
        netns::connect(namespace, port).await
    };
    let stream = tokio::select! {
        stream = connected => stream,
        () = line.gone() => return,
    };
    let stream = match stream {
        Ok(stream) => stream,
        Err(e) => {
            let problem = format!("error forwarding port {port} to pod {}: {e}", pod.id);
            tracing::debug!("{problem}");
            let _ = error.write_all(problem.as_bytes()).await;
            // Ended in order, so that the message arrives; the data stream by force.
            let _ = error.shutdown().await;
            return data.reset();
        }
    };
    let ended = tokio::select! {
        ended = both((reader, half_close), &mut data, stream, &line) => ended,
        () = line.gone() => return,
    };
    match ended {
        Ended::Well => {
            let _ = data.shutdown().await;
            let _ = error.shutdown().await;
        }
        // Without a word: a client that reads one gives up all of its connections (kubernetes/kubernetes#74551).
        Ended::Broken => {
            data.reset();
            error.reset();
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// Both sides have ended it, or the client has given it up.
    Well,
    /// The pod's side has broken.
    Broken,
}

/// Copies in both directions; the end of one is passed on and leaves the other open.
async fn both(
    (reader, half_close): (Reader, bool),
    data: &mut Box<dyn Resettable>,
    stream: TcpStream,
    line: &Line,
) -> Ended {
    let (from, to) = stream.into_split();
    let sending = copy(reader, to, line);
    let receiving = copy(from, data, line);
    tokio::pin!(sending, receiving);
    let (sent, received) = match select(sending, receiving).await {
        // The client has given it up: nothing that the pod still says has a reader.
        Either::Left((Err(Side::From), _)) | Either::Right((Err(Side::To), _)) => return Ended::Well,
        Either::Left((sent, receiving)) => (sent, receiving.await),
        Either::Right((Ok(()), _)) if !half_close => return Ended::Well,
        Either::Right((received, sending)) => match timeout(HALF_OPEN, sending).await {
            Ok(sent) => (sent, received),
            Err(_) => return Ended::Well,
        },
    };
    match (sent, received) {
        (Err(Side::To), _) | (_, Err(Side::From)) => Ended::Broken,
        _ => Ended::Well,
    }
}

/// Which side of a copy has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    From,
    To,
}

/// Copies until the end, and passes the end on.
async fn copy<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(mut from: R, mut to: W, line: &Line) -> Result<(), Side> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let n = from.read(&mut chunk).await.map_err(|_| Side::From)?;
        if n == 0 {
            return to.shutdown().await.map_err(|_| Side::To);
        }
        line.touch();
        to.write_all(&chunk[..n]).await.map_err(|_| Side::To)?;
    }
}
