//! A `SOCK_SEQPACKET` socket in the asynchronous runtime.
//!
//! Owns: waiting for the socket. Must not: know messages.
use berth_sys::poll;
use berth_sys::socket::{self, Wait};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use tokio::io::unix::AsyncFd;

/// Watches a descriptor for readiness.
#[allow(
    deprecated,
    reason = "its successor is unsafe for types that might change their descriptor; an OwnedFd does not"
)]
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(fd)
}

/// A connected socket.
#[derive(Debug)]
pub struct Channel(AsyncFd<OwnedFd>);

impl Channel {
    /// Makes the socket non-blocking and watches it.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        poll::set_nonblocking(fd.as_fd())?;
        watch(fd).map(Self)
    }

    /// Sends one packet.
    pub async fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        loop {
            let mut ready = self.0.writable().await?;
            if let Ok(result) = ready.try_io(|fd| socket::send(fd.as_fd(), bytes, fds, Wait::No)) {
                return result;
            }
        }
    }

    /// Receives one packet; length 0 is the end.
    pub async fn recv(&self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        loop {
            let mut ready = self.0.readable().await?;
            if let Ok(result) = ready.try_io(|fd| socket::recv(fd.as_fd(), buffer, Wait::No)) {
                return result;
            }
        }
    }
}
