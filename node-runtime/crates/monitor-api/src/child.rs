//! Init to monitor: "this is the process to supervise" and "this is its terminal". Frozen.
//!
//! One `SOCK_SEQPACKET` packet per message, eight bytes, with exactly one descriptor in its ancillary data.
use crate::codec::{DecodeError, Reader, Writer};

/// Length of every packet.
pub const PACKET_LEN: usize = 8;

/// A message of init to its monitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildMessage {
    /// The process that becomes the container (or exec, or pod init), cloned with CLONE_PARENT so that the monitor reaps it.
    /// Descriptor: its pidfd.
    Child {
        /// Its process id in the monitor's namespace.
        pid: u32,
    },
    /// The terminal of the process. Descriptor: the pty's master.
    Terminal,
}

impl ChildMessage {
    /// The packet.
    pub fn encode(self) -> Vec<u8> {
        let mut w = Writer::default();
        let (kind, pid) = match self {
            Self::Child { pid } => (1, pid),
            Self::Terminal => (2, 0),
        };
        w.u16(1).u16(kind).u32(pid);
        w.finish()
    }

    /// Reads a packet.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader(bytes);
        let _version = r.u16()?;
        let (kind, pid) = (r.u16()?, r.u32()?);
        r.end()?;
        match kind {
            1 => Ok(Self::Child { pid }),
            2 => Ok(Self::Terminal),
            other => Err(DecodeError::UnknownType(other)),
        }
    }
}
