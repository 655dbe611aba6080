//! The process: its listening socket, its connections, its end.
//!
//! Owns: limits of what is open, and when the process ends. Must not: know requests.
use crate::daemon::Daemon;
use crate::session::Monitors;
use crate::socket::{self, Listen};
use crate::streams::Line;
use crate::tls::{Certificate, TlsFiles};
use crate::upgrade;
use berth_model::{Error, Result, ResultExt};
use berth_sys::process;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

/// How long a client may take for the TLS handshake, and for the head of its request.
const HEAD: Duration = Duration::from_secs(10);
/// Most headers of a request.
const MAX_HEADERS: usize = 64;
/// Longest head of a request in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// Connections over the limit that are told so at the same time; what comes beyond is closed without a word.
const REFUSALS: usize = 128;
/// How long the last answers may take when the daemon is gone.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// How long to wait when the process cannot accept, for want of descriptors.
const BACK_OFF: Duration = Duration::from_millis(100);

/// What the process is told at its start.
#[derive(Debug)]
pub struct Options {
    /// Its end of the socket pair, see [`crate::protocol`].
    pub channel: OwnedFd,
    /// Where to listen.
    pub listen: Listen,
    /// With TLS, if given.
    pub tls: Option<TlsFiles>,
    /// A session in which no byte moves for so long is ended; the peers' default is four hours.
    pub idle: Duration,
    /// How long a client may take to open its streams; the peers' is 30 s.
    pub opening: Duration,
    /// Most connections at the same time.
    pub connections: usize,
}

impl Options {
    /// The peers' limits, and as many connections as their tokens.
    pub fn new(channel: OwnedFd, listen: Listen) -> Self {
        Self {
            channel,
            listen,
            tls: None,
            idle: Duration::from_secs(4 * 3600),
            opening: Duration::from_secs(30),
            connections: 1000,
        }
    }
}

/// What all connections share.
pub(crate) struct Server {
    pub(crate) daemon: Daemon,
    pub(crate) monitors: Monitors,
    pub(crate) idle: Duration,
    pub(crate) opening: Duration,
    /// Everything that must be done before the process ends.
    pub(crate) open: TaskTracker,
    tls: Option<Certificate>,
}

/// A connection's place among the others. The last copy frees it, and lets go of the client.
pub(crate) struct Place {
    pub(crate) line: Line,
    /// Whether the limit is reached, so that the client is only told so.
    pub(crate) full: bool,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.line.cut();
    }
}

/// Serves until the daemon is gone and the last session has ended. Errors: the address cannot be bound, the certificate cannot be
/// read.
pub async fn run(options: Options) -> Result<()> {
    // A session takes half a dozen descriptors, and the usual soft limit is 1024.
    if let Err(e) = process::raise_nofile() {
        tracing::warn!("limit of open files: {e}");
    }
    let daemon = Daemon::new(options.channel)?;
    let tls = match options.tls {
        Some(files) => {
            let read = tokio::task::spawn_blocking(move || Certificate::load(files)).await;
            Some(read.map_err(|e| Error::internal(format!("read the certificate: {e}")))??)
        }
        None => None,
    };
    let Some(listener) = options.listen.listener(&daemon).await? else { return Ok(()) };
    daemon.listening(listener.local_addr().context(|| "address of the listening socket")?).await?;
    let server = Arc::new(Server {
        daemon,
        monitors: Monitors::default(),
        idle: options.idle,
        opening: options.opening,
        open: TaskTracker::new(),
        tls,
    });
    let (places, refusals) = (Arc::new(Semaphore::new(options.connections)), Arc::new(Semaphore::new(REFUSALS)));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = server.daemon.ended() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(e) => {
                tracing::warn!("accept: {e}");
                sleep(BACK_OFF).await;
                continue;
            }
        };
        let place = places.clone().try_acquire_owned().map(|permit| (permit, false));
        let Ok((permit, full)) = place.or_else(|_| refusals.clone().try_acquire_owned().map(|permit| (permit, true)))
        else {
            continue;
        };
        let place = Arc::new(Place { line: Line::default(), full, _permit: permit });
        server.open.spawn(connection(Arc::clone(&server), stream, place));
    }
    // A successor may bind the address now.
    drop(listener);
    server.open.close();
    server.open.wait().await;
    Ok(())
}

async fn connection(server: Arc<Server>, stream: TcpStream, place: Arc<Place>) {
    if let Err(e) = socket::prepare(&stream, &place.line) {
        return tracing::debug!("a new connection: {e}");
    }
    let Some(tls) = server.tls.as_ref().map(Certificate::acceptor) else { return http(server, stream, place).await };
    match timeout(HEAD, tls.accept(stream)).await {
        Ok(Ok(stream)) => http(server, stream, place).await,
        Ok(Err(e)) => tracing::debug!("TLS: {e}"),
        Err(_) => tracing::debug!("TLS: the client did not finish the handshake"),
    }
}

/// Answers requests until one of them becomes a session, which then goes on by itself.
async fn http<S>(server: Arc<Server>, stream: S, place: Arc<Place>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(|request| upgrade::answer(Arc::clone(&server), Arc::clone(&place), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => Some(served),
        () = server.daemon.ended() => None,
    };
    let served = match served {
        Some(served) => served,
        None => {
            connection.as_mut().graceful_shutdown();
            timeout(LAST_ANSWERS, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(e) = served {
        tracing::debug!("HTTP: {e}");
    }
}
