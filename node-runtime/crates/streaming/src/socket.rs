//! TCP of the server: binding, options of a connection, and noticing that a client is gone.
//!
//! Owns: what is below TLS and HTTP. Must not: read or write.
use crate::daemon::Daemon;
use crate::streams::Line;
use berth_model::{Result, ResultExt};
use rustix::net::sockopt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};

/// How long an address that another process holds is tried: the predecessor lets go of it when it has noticed the end of its daemon.
const BIND: Duration = Duration::from_secs(30);
/// How often.
const RETRY: Duration = Duration::from_millis(20);
/// A connection without a byte is probed after this,
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// again after each of these,
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// and is over after so many without an answer.
const KEEPALIVE_PROBES: u32 = 3;

/// Where to listen.
#[derive(Debug)]
pub enum Listen {
    /// On a socket that is bound and listens already.
    Bound(std::net::TcpListener),
    /// On this address; port 0 is any.
    Address(SocketAddr),
}

impl Listen {
    /// Binds. `None` if the daemon ended meanwhile. Errors: the address cannot be bound, or is still held after 30 s.
    pub async fn listener(self, daemon: &Daemon) -> Result<Option<TcpListener>> {
        let address = match self {
            Self::Bound(listener) => {
                listener.set_nonblocking(true).context(|| "listening socket")?;
                return TcpListener::from_std(listener).map(Some).context(|| "listening socket");
            }
            Self::Address(address) => address,
        };
        let deadline = Instant::now() + BIND;
        loop {
            // With SO_REUSEADDR: connections of the predecessor do not hold the address, only its listening socket does.
            match TcpListener::bind(address).await {
                Err(e) if e.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {}
                bound => return bound.map(Some).context(|| format!("listen on {address}")),
            }
            tokio::select! {
                () = sleep(RETRY) => {}
                () = daemon.ended() => return Ok(None),
            }
        }
    }
}

/// Sets a connection's options, and watches it for as long as the line is not cut.
pub fn prepare(stream: &TcpStream, line: &Line) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES)?;
    let copy = watch(stream.as_fd().try_clone_to_owned()?)?;
    tokio::spawn(hang_up(copy, line.clone()));
    Ok(())
}

#[allow(
    deprecated,
    reason = "its successor is unsafe for types that might change their descriptor; an OwnedFd does not"
)]
fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, Interest::READABLE)
}

/// Cuts the line when the client has closed the connection, also while nobody reads from it: a session whose process does not take its
/// stdin would otherwise never notice. None of the protocols goes on after its client's side is closed. (Behind more unread data than the
/// window holds, the end waits in the client's kernel, which gives up after some four minutes; then a probe finds it.)
async fn hang_up(socket: AsyncFd<OwnedFd>, line: Line) {
    loop {
        let mut guard = tokio::select! {
            ready = socket.readable() => match ready {
                Ok(guard) => guard,
                Err(_) => break,
            },
            () = line.gone() => return,
        };
        if guard.ready().is_read_closed() || guard.ready().is_error() {
            break;
        }
        guard.clear_ready();
    }
    line.cut();
}
