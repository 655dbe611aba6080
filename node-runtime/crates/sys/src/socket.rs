//! Unix `SOCK_SEQPACKET` sockets that carry descriptors (unix(7), cmsg(3)).
//!
//! Owns: making, binding and connecting them, packets with descriptors, the peer's credentials. Must not: know any message.
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// Most descriptors in one packet. The kernel's own limit is 253 (`SCM_MAX_FD`); none of our messages needs more than this.
pub const MAX_FDS: usize = 16;

/// Whether a call may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Until there is something to do, whatever the descriptor's own mode allows.
    Yes,
    /// Never: `WouldBlock` instead.
    No,
}

/// Who is at the other end, as the kernel noted it when the connection was made (`SO_PEERCRED`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Process id in the caller's pid namespace; 0 if it is not visible there.
    pub pid: u32,
    /// Effective user id.
    pub uid: u32,
}

/// A connected pair, close-on-exec, blocking.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// The address of `name` in `directory`. It goes through /proc, because a path of a deep `--root` does not fit into the 107
/// bytes of an address.
fn address(directory: BorrowedFd<'_>, name: &str) -> io::Result<SocketAddrUnix> {
    Ok(SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()))?)
}

fn socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Listens on `name` in `directory`, non-blocking. The caller's umask decides the mode, so that there is no moment at which
/// the socket is open to others. `AddrInUse` if the name exists.
pub fn listen(directory: BorrowedFd<'_>, name: &str, backlog: i32) -> io::Result<OwnedFd> {
    let fd = socket()?;
    rustix::net::bind(&fd, &address(directory, name)?)?;
    rustix::net::listen(&fd, backlog)?;
    Ok(fd)
}

/// Takes one connection, non-blocking; `WouldBlock` if there is none.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?)
}

/// Connects to `name` in `directory`, non-blocking. A unix connection is made at once or not at all: `ConnectionRefused` if
/// nobody listens, `WouldBlock` if the backlog is full.
pub fn connect(directory: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    let fd = socket()?;
    rustix::net::connect(&fd, &address(directory, name)?)?;
    Ok(fd)
}

/// The peer's credentials.
pub fn peer(socket: BorrowedFd<'_>) -> io::Result<Peer> {
    let cred = rustix::net::sockopt::socket_peercred(socket)?;
    Ok(Peer { pid: u32::try_from(cred.pid.as_raw_nonzero().get()).unwrap_or(0), uid: cred.uid.as_raw() })
}

/// Sends one packet whole. Never raises SIGPIPE.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>], wait: Wait) -> io::Result<()> {
    if fds.len() > MAX_FDS {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "more than 16 descriptors in one packet"));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    let mut flags = SendFlags::NOSIGNAL;
    if wait == Wait::No {
        flags |= SendFlags::DONTWAIT;
    }
    loop {
        match rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(e) => return Err(e.into()),
        }
    }
}

/// Receives one packet into `buffer`: its length and its descriptors, which are close-on-exec. Length 0 is the end of the
/// connection. A packet or a list of descriptors that does not fit is `InvalidData`, and nothing of it is kept.
pub fn recv(socket: BorrowedFd<'_>, buffer: &mut [u8], wait: Wait) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut flags = RecvFlags::CMSG_CLOEXEC;
    if wait == Wait::No {
        flags |= RecvFlags::DONTWAIT;
    }
    let received = loop {
        match rustix::net::recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(list) = message {
            fds.extend(list);
        }
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "packet or its descriptors are over the limit"));
    }
    Ok((received.bytes, fds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn packets_keep_their_edges_and_bring_descriptors() {
        let (a, b) = pair().unwrap();
        let file = std::fs::File::open("/proc/self/status").unwrap();
        send(a.as_fd(), b"one", &[file.as_fd(), a.as_fd()], Wait::Yes).unwrap();
        send(a.as_fd(), b"two", &[], Wait::Yes).unwrap();
        let mut buffer = [0; 16];
        let (n, fds) = recv(b.as_fd(), &mut buffer, Wait::Yes).unwrap();
        assert_eq!((&buffer[..n], fds.len()), (&b"one"[..], 2));
        assert!(rustix::io::fcntl_getfd(&fds[0]).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        drop(fds);
        let (n, fds) = recv(b.as_fd(), &mut buffer, Wait::Yes).unwrap();
        assert_eq!((&buffer[..n], fds.len()), (&b"two"[..], 0));
        assert_eq!(recv(b.as_fd(), &mut buffer, Wait::No).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(a);
        assert_eq!(recv(b.as_fd(), &mut buffer, Wait::Yes).unwrap().0, 0);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let (a, b) = pair().unwrap();
        send(a.as_fd(), b"four", &[], Wait::Yes).unwrap();
        let mut small = [0; 3];
        assert_eq!(recv(b.as_fd(), &mut small, Wait::Yes).unwrap_err().kind(), io::ErrorKind::InvalidData);
        let many = [a.as_fd(); MAX_FDS + 1];
        assert!(send(a.as_fd(), b"x", &many, Wait::Yes).is_err());
    }

    #[test]
    fn a_deep_directory_is_no_problem() {
        let base = tempfile::tempdir().unwrap();
        let deep = base.path().join("d".repeat(200));
        std::fs::create_dir(&deep).unwrap();
        let directory = std::fs::File::open(&deep).unwrap();
        let listener = listen(directory.as_fd(), "s", 1).unwrap();
        assert_eq!(accept(listener.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let client = connect(directory.as_fd(), "s").unwrap();
        let server = accept(listener.as_fd()).unwrap();
        assert_eq!(peer(server.as_fd()).unwrap().pid, std::process::id());
        assert_eq!(listen(directory.as_fd(), "s", 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop((client, listener));
        assert_eq!(connect(directory.as_fd(), "s").unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
