//! Connections inside a pod's network namespace.
//!
//! Owns: sockets that were made there; a socket stays in the namespace where it was made, so a short-lived thread enters it and ends.
//! Must not: change the namespace of a thread of the runtime.
use berth_model::{Error, Result, ResultExt};
use berth_sys::namespace::{self, Kinds};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How long localhost may take to accept.
const CONNECT: Duration = Duration::from_secs(30);

/// A socket of each family, if the namespace has it.
struct Sockets {
    v4: io::Result<OwnedFd>,
    v6: io::Result<OwnedFd>,
}

/// Connects to a port of localhost inside the namespace: IPv4 first, then IPv6. The error says what each answered.
pub async fn connect(namespace: Arc<OwnedFd>, port: u16) -> Result<TcpStream> {
    let Sockets { v4, v6 } = if is_ours(&namespace) { make() } else { sockets_in(namespace).await? };
    let first = match attempt(v4, SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await {
        Ok(stream) => return Ok(stream),
        Err(e) => e,
    };
    let second = match attempt(v6, SocketAddr::from((Ipv6Addr::LOCALHOST, port))).await {
        Ok(stream) => return Ok(stream),
        Err(e) => e,
    };
    let problem = format!(
        "failed to connect to localhost:{port} inside the pod's network namespace: 127.0.0.1: {}; [::1]: {}",
        words(&first),
        words(&second)
    );
    Err(Error::internal(problem))
}

/// The error without its number.
fn words(e: &io::Error) -> String {
    let text = e.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

async fn attempt(socket: io::Result<OwnedFd>, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::from_std_stream(std::net::TcpStream::from(socket?));
    match timeout(CONNECT, socket.connect(address)).await {
        Ok(connected) => {
            let stream = connected?;
            stream.set_nodelay(true)?;
            Ok(stream)
        }
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Whether the namespace is the one of this process, as with a pod on the host's network.
fn is_ours(namespace: &OwnedFd) -> bool {
    let there = rustix::fs::fstat(namespace);
    let here = rustix::fs::stat("/proc/self/ns/net");
    matches!((there, here), (Ok(there), Ok(here)) if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino))
}

/// Sockets in the namespace of the calling thread.
fn make() -> Sockets {
    let one = |family| {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        socket_with(family, SocketType::STREAM, flags, None).map_err(io::Error::from)
    };
    Sockets { v4: one(AddressFamily::INET), v6: one(AddressFamily::INET6) }
}

async fn sockets_in(namespace: Arc<OwnedFd>) -> Result<Sockets> {
    let (sender, receiver) = oneshot::channel();
    let enter = move || {
        // Who asked may have gone.
        let _ = sender.send(namespace::join(namespace.as_fd(), Kinds::NET).map(|()| make()));
    };
    let thread = std::thread::Builder::new().name("berth-netns".into()).stack_size(64 * 1024);
    thread.spawn(enter).context(|| "start a thread for a network namespace")?;
    let made = receiver.await.map_err(|_| Error::internal("the thread in the network namespace panicked"))?;
    made.context(|| "enter the pod's network namespace")
}
