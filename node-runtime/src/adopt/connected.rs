//! Whether a process is connected to a unix socket, as the kernel has it (sock_diag(7), `linux/unix_diag.h`): what a kubelet really talks to,
//! whatever its files say.
//!
//! Owns: asking, and the parser of the answers. Must not: decide what it means.
use anyhow::{Context, Result, bail};
use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// NLM_F_REQUEST | NLM_F_DUMP.
const REQUEST_DUMP: u16 = 0x301;
const AF_UNIX: u8 = 1;
/// UDIAG_SHOW_NAME | UDIAG_SHOW_PEER.
const SHOW: u32 = 1 | 4;
const UNIX_DIAG_NAME: u16 = 0;
const UNIX_DIAG_PEER: u16 = 2;
/// Length of `struct nlmsghdr`, and of `struct unix_diag_msg`.
const HEADER: usize = 16;
const MESSAGE: usize = 16;
/// Most answers that are read: a node with more unix sockets than fit has other troubles.
const MAX_ANSWERS: usize = 4096;

/// A socket: its name, and the other end.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Socket {
    name: Vec<u8>,
    peer: u32,
}

/// Whether a descriptor of the process is connected to a socket of this name. Errors: the kernel does not say.
pub(super) fn to(pid: u32, socket: &Path) -> Result<bool> {
    let all = dump().context("the kernel's list of unix sockets (CONFIG_UNIX_DIAG)")?;
    let resolved = socket.canonicalize().unwrap_or_else(|_| socket.to_owned());
    let names = [socket.as_os_str().as_bytes(), resolved.as_os_str().as_bytes()];
    let entries =
        std::fs::read_dir(format!("/proc/{pid}/fd")).with_context(|| format!("descriptors of process {pid}"))?;
    let inodes = entries.flatten().filter_map(|entry| {
        let target = std::fs::read_link(entry.path()).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u32>().ok()
    });
    let mut peers = inodes.filter_map(|inode| all.get(&all.get(&inode)?.peer));
    Ok(peers.any(|peer| names.contains(&peer.name.as_slice())))
}

fn dump() -> Result<BTreeMap<u32, Socket>> {
    let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(SOCK_DIAG))?;
    let mut request = Vec::new();
    request.extend(40u32.to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(REQUEST_DUMP.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([AF_UNIX, 0, 0, 0]);
    request.extend(u32::MAX.to_ne_bytes());
    request.extend(0u32.to_ne_bytes());
    request.extend(SHOW.to_ne_bytes());
    request.extend([0xff; 8]);
    sendto(&fd, &request, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut found = BTreeMap::new();
    let mut buffer = vec![0; 64 << 10];
    for _ in 0..MAX_ANSWERS {
        let (length, _) = recv(&fd, buffer.as_mut_slice(), RecvFlags::empty())?;
        if take(&buffer[..length], &mut found)? {
            return Ok(found);
        }
    }
    bail!("has no end")
}

/// Takes what one datagram says; whether it was the last one.
fn take(mut bytes: &[u8], found: &mut BTreeMap<u32, Socket>) -> Result<bool> {
    while let (Some(length), Some(kind)) = (word(bytes, 0), half(bytes, 4)) {
        let length = usize::try_from(length)?;
        if length < HEADER || length > bytes.len() {
            bail!("has a message of {length} bytes");
        }
        match kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => bail!("error {}", word(bytes, HEADER).map_or(0, u32::cast_signed)),
            SOCK_DIAG_BY_FAMILY => {
                if let Some(inode) = word(&bytes[..length], HEADER + 4) {
                    found.insert(inode, attributes(bytes.get(HEADER + MESSAGE..length).unwrap_or_default()));
                }
            }
            _ => {}
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

fn attributes(mut bytes: &[u8]) -> Socket {
    let mut socket = Socket::default();
    while let (Some(length), Some(kind)) = (half(bytes, 0), half(bytes, 2)) {
        let length = usize::from(length);
        let Some(value) = bytes.get(4..length) else { break };
        match kind {
            UNIX_DIAG_NAME => socket.name = value.iter().copied().take_while(|b| *b != 0).collect(),
            UNIX_DIAG_PEER => socket.peer = word(value, 0).unwrap_or_default(),
            _ => {}
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    socket
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn a_connection_is_seen_by_the_name_of_its_other_end() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("a.sock"), dir.path().join("b.sock"));
        let (listener, _other) = (UnixListener::bind(&path).unwrap(), UnixListener::bind(&other).unwrap());
        let own = std::process::id();
        assert!(!to(own, &path).unwrap());
        let stream = UnixStream::connect(&path).unwrap();
        let _end = listener.accept().unwrap();
        assert!(to(own, &path).unwrap() && !to(own, &other).unwrap());
        drop(stream);
        assert!(!to(own, &path).unwrap());
    }

    #[test]
    fn any_answer_is_taken_or_an_error() {
        let mut found = BTreeMap::new();
        for bytes in [&[][..], &[1; 7], &[0xff; 64], &[0; 64], &[16, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]] {
            let _ = take(bytes, &mut found);
            let _ = attributes(bytes);
        }
        assert!(found.is_empty());
    }
}
