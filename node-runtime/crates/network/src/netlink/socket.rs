//! A netlink socket that sends requests and reads the answers that are then already there.
//!
//! Owns: numbering, acknowledgements, dumps. The kernel handles a request within `sendmsg` and queues its answers before
//! `sendmsg` returns (net/netlink/af_netlink.c, `netlink_rcv_skb`, `netlink_dump`); so reads never block, and an empty queue
//! means that there is no more. Must not: know what a message means.
use super::codec::{Attributes, HEADER, Message, Messages, read_u32};
use super::error::NetlinkError;
use netlink_sys::SocketAddr;
use nix::errno::Errno;

/// `NLM_F_REQUEST`.
pub(crate) const F_REQUEST: u16 = 0x1;
/// `NLM_F_ACK`.
pub(crate) const F_ACK: u16 = 0x4;
/// `NLM_F_DUMP`.
pub(crate) const F_DUMP: u16 = 0x300;
/// `NLM_F_EXCL`.
pub(crate) const F_EXCL: u16 = 0x200;
/// `NLM_F_REPLACE`.
pub(crate) const F_REPLACE: u16 = 0x100;
/// `NLM_F_CREATE`.
pub(crate) const F_CREATE: u16 = 0x400;
/// `NLM_F_APPEND`.
pub(crate) const F_APPEND: u16 = 0x800;
/// `NLM_F_DUMP_INTR`: the dumped list changed meanwhile.
const F_DUMP_INTR: u16 = 0x10;
/// `NLM_F_ACK_TLVS`: attributes follow the error.
const F_ACK_TLVS: u16 = 0x200;
/// `NLMSG_ERROR`.
const ERROR: u16 = 2;
/// `NLMSG_DONE`.
const DONE: u16 = 3;
/// `NLMSGERR_ATTR_MSG`.
const ERROR_TEXT: u16 = 1;
/// How often a dump starts again when the list changes under it.
const DUMP_TRIES: usize = 16;

/// A message, and what it asks for in words (for errors).
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// In words, e.g. `create interface "veth1"`.
    pub(crate) what: String,
    /// The message.
    pub(crate) message: Message,
}

impl Request {
    /// A request.
    pub(crate) fn new(what: impl Into<String>, message: Message) -> Self {
        Self { what: what.into(), message }
    }
}

/// An answer to a dump or get: its kind and what follows the header.
pub(crate) struct Answer {
    /// What follows the header.
    pub(crate) payload: Vec<u8>,
}

/// A netlink socket; it belongs to the network namespace in which it was opened, whoever uses it later.
pub(crate) struct Socket {
    inner: netlink_sys::Socket,
    sequence: u32,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

impl Socket {
    /// Opens a socket of a protocol (`NETLINK_*`) in the calling thread's network namespace.
    pub(crate) fn open(protocol: isize) -> Result<Self, NetlinkError> {
        let what = "open a netlink socket";
        let set_up = || {
            let mut inner = netlink_sys::Socket::new(protocol)?;
            inner.bind_auto()?;
            inner.set_non_blocking(true)?;
            // Errors with words, and without a copy of the request.
            inner.set_ext_ack(true)?;
            inner.set_cap_ack(true)?;
            Ok(inner)
        };
        let inner = set_up().map_err(|e| NetlinkError::io(what, &e))?;
        Ok(Self { inner, sequence: 0 })
    }

    /// Sends all requests in one datagram; the kernel handles them in order, and goes on after one that fails.
    /// Returns what those that ask for something were answered. The error is that of the first request that failed.
    pub(crate) fn execute(&mut self, requests: Vec<Request>) -> Result<Vec<Answer>, NetlinkError> {
        let asked = requests.len();
        let (first, words) = self.send(requests, F_ACK)?;
        let (mut answered, mut answers) = (0, Vec::new());
        let mut failure = None;
        self.drain(|received| {
            let Some(what) = words.get(received.sequence.wrapping_sub(first) as usize) else {
                return;
            };
            if received.kind == ERROR {
                answered += 1;
                let error = read_error(what, received.flags, received.payload);
                failure = failure.take().or(error);
            } else {
                answers.push(Answer { payload: received.payload.to_vec() });
            }
        })?;
        match failure {
            Some(e) => Err(e),
            None if answered == asked => Ok(answers),
            None => Err(NetlinkError::protocol(&words.join(", "), "the kernel did not acknowledge every request")),
        }
    }

    /// Sends a transaction: `requests` between a begin and an end message that have no acknowledgement of their own.
    /// Only the last request's acknowledgement is asked for; errors come unasked.
    pub(crate) fn transact(
        &mut self,
        begin: Message,
        mut requests: Vec<Request>,
        end: Message,
    ) -> Result<(), NetlinkError> {
        let count = requests.len();
        let Some(last) = requests.last_mut() else {
            return Ok(());
        };
        last.message.add_flag(F_ACK);
        let what = format!("{count} changes of nftables, the last one: {}", last.what);
        requests.insert(0, Request::new("begin a change of nftables", begin));
        requests.push(Request::new("commit a change of nftables", end));
        let (first, words) = self.send(requests, 0)?;
        let mut acknowledged = false;
        let mut failure = None;
        self.drain(|received| {
            let Some(what) = words.get(received.sequence.wrapping_sub(first) as usize) else {
                return;
            };
            if received.kind == ERROR {
                match read_error(what, received.flags, received.payload) {
                    Some(e) => failure = failure.take().or(Some(e)),
                    None => acknowledged = true,
                }
            }
        })?;
        match failure {
            Some(e) => Err(e),
            None if acknowledged => Ok(()),
            None => Err(NetlinkError::protocol(&what, "the kernel did not acknowledge it")),
        }
    }

    /// Asks for one object, or for all with `F_DUMP` set in the message. An error of the kernel is an error here.
    pub(crate) fn ask(&mut self, request: Request) -> Result<Vec<Answer>, NetlinkError> {
        for _ in 0..DUMP_TRIES {
            if let Some(answers) = self.ask_once(request.clone())? {
                return Ok(answers);
            }
        }
        Err(NetlinkError::protocol(&request.what, "the list kept changing while it was read"))
    }

    /// `None`: the list changed while it was read.
    fn ask_once(&mut self, request: Request) -> Result<Option<Vec<Answer>>, NetlinkError> {
        let what = request.what.clone();
        let (sequence, _) = self.send(vec![request], 0)?;
        let (mut answers, mut failure, mut changed) = (Vec::new(), None, false);
        self.drain(|received| {
            if received.sequence != sequence {
                return;
            }
            changed |= received.flags & F_DUMP_INTR != 0;
            match received.kind {
                ERROR => failure = read_error(&what, received.flags, received.payload),
                DONE => {}
                _ => answers.push(Answer { payload: received.payload.to_vec() }),
            }
        })?;
        match failure {
            Some(e) => Err(e),
            None if changed => Ok(None),
            None => Ok(Some(answers)),
        }
    }

    /// Numbers and sends; returns the first number and the words of each request in order.
    fn send(&mut self, requests: Vec<Request>, flags: u16) -> Result<(u32, Vec<String>), NetlinkError> {
        let first = self.sequence.wrapping_add(1);
        let mut datagram = Vec::with_capacity(requests.len() * 128);
        let mut words = Vec::with_capacity(requests.len());
        for mut request in requests {
            self.sequence = self.sequence.wrapping_add(1);
            request.message.add_flag(F_REQUEST | flags);
            datagram.extend_from_slice(&request.message.finish(self.sequence));
            words.push(request.what);
        }
        let what = || words.first().cloned().unwrap_or_default();
        let kernel = SocketAddr::new(0, 0);
        let sent = self.inner.send_to(&datagram, &kernel, 0).map_err(|e| NetlinkError::io(&what(), &e))?;
        if sent != datagram.len() {
            return Err(NetlinkError::protocol(&what(), "the request was cut short"));
        }
        Ok((first, words))
    }

    /// Reads until nothing is left.
    fn drain(&self, mut each: impl FnMut(super::codec::Received<'_>)) -> Result<(), NetlinkError> {
        loop {
            match self.inner.recv_from_full() {
                Ok((bytes, from)) if from.port_number() == 0 => Messages(&bytes).for_each(&mut each),
                // Not from the kernel: another process may send to us; nobody listens.
                Ok(_) => {}
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(NetlinkError::io("read the kernel's netlink answer", &e)),
            }
        }
    }
}

/// Reads `struct nlmsgerr` and the attributes behind it. `None` is an acknowledgement.
fn read_error(what: &str, flags: u16, payload: &[u8]) -> Option<NetlinkError> {
    let code = read_u32(payload, 0)?.cast_signed();
    if code == 0 {
        return None;
    }
    let detail = (flags & F_ACK_TLVS != 0)
        .then(|| payload.get(4 + HEADER..))
        .flatten()
        .and_then(|attributes| Attributes(attributes).find_string(ERROR_TEXT));
    Some(NetlinkError { what: what.to_owned(), errno: Errno::from_raw(code.wrapping_neg()), detail })
}
