//! SPDY/3.1 frames: the head that all have, the control frames' payloads, and their encoding.
//!
//! Source: SPDY Protocol, Draft 3.1, section 2.2 and 2.6. Owns the layout of bytes and the limits of lengths. Must not: do I/O, hold
//! state, or look into a header block ([`super::headers`] does).
//! Fuzz target: `spdy_frame`.
use berth_model::{Error, Result};
use bytes::{BufMut, BytesMut};

/// Bytes before every frame's payload.
pub const HEAD: usize = 8;
/// Longest payload of a control frame in bytes. The longest that we know of (a SYN_STREAM of kubectl's) has some 200.
pub const MAX_CONTROL: usize = 64 * 1024;
/// Largest stream id, and largest window.
pub const MAX_31: u32 = 0x7fff_ffff;

const VERSION: u16 = 3;
const CONTROL: u32 = 0x8000_0000;
const FLAG_FIN: u8 = 1;
const FLAG_UNIDIRECTIONAL: u8 = 2;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

/// Setting: the window that a new stream begins with, in bytes.
pub const INITIAL_WINDOW_SIZE: u32 = 7;

/// The first eight bytes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// `length` bytes of a stream follow; they need not be there all at once.
    Data {
        /// The stream, not 0.
        id: u32,
        /// The last frame of its sender on this stream.
        fin: bool,
        /// Of the payload, up to 2^24 − 1.
        length: usize,
    },
    /// `length` bytes follow, to be given to [`Frame::parse`] as a whole.
    Control {
        /// Type; may be unknown.
        kind: u16,
        /// Flags.
        flags: u8,
        /// Of the payload, up to [`MAX_CONTROL`].
        length: usize,
    },
}

impl Head {
    /// Any eight bytes. Errors: stream 0, another version than 3, a control frame that is too long.
    pub fn parse(bytes: [u8; HEAD]) -> Result<Self> {
        let [a, b, c, d, flags, x, y, z] = bytes;
        let word = u32::from_be_bytes([a, b, c, d]);
        let length = u32::from_be_bytes([0, x, y, z]) as usize;
        if word & CONTROL == 0 {
            if word == 0 {
                return Err(Error::invalid("SPDY data frame", "stream 0 does not exist"));
            }
            return Ok(Self::Data { id: word, fin: flags & FLAG_FIN != 0, length });
        }
        let version = u16::from_be_bytes([a & 0x7f, b]);
        if version != VERSION {
            return Err(Error::invalid("SPDY control frame", format!("version {version}, only 3 is spoken here")));
        }
        if length > MAX_CONTROL {
            let problem = format!("{length} bytes, at most {MAX_CONTROL} are taken");
            return Err(Error::invalid("SPDY control frame", problem));
        }
        Ok(Self::Control { kind: u16::from_be_bytes([c, d]), flags, length })
    }
}

/// The head of a data frame.
pub fn data_head(id: u32, fin: bool, length: usize) -> [u8; HEAD] {
    let [a, b, c, d] = (id & MAX_31).to_be_bytes();
    let [_, x, y, z] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [a, b, c, d, if fin { FLAG_FIN } else { 0 }, x, y, z]
}

/// A control frame. `block` is a compressed header block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Opens a stream.
    SynStream {
        /// The new stream, not 0.
        id: u32,
        /// The stream that it belongs to, or 0.
        associated: u32,
        /// 0 (highest) to 7.
        priority: u8,
        /// Its sender will send no data.
        fin: bool,
        /// Its receiver may send no data.
        unidirectional: bool,
        /// Names and values.
        block: &'a [u8],
    },
    /// Accepts a stream.
    SynReply {
        /// The stream, not 0.
        id: u32,
        /// Its sender will send no data.
        fin: bool,
        /// Names and values.
        block: &'a [u8],
    },
    /// Ends both directions of a stream at once.
    RstStream {
        /// The stream, not 0.
        id: u32,
        /// See [`super::Status`].
        status: u32,
    },
    /// Parameters of the connection.
    Settings {
        /// Id (24 bits) and value of each; their flags, which are about persistence, are dropped.
        values: Vec<(u32, u32)>,
    },
    /// To be sent back as it is, if the peer made its id.
    Ping {
        /// Odd when a client made it.
        id: u32,
    },
    /// Its sender takes no more streams.
    GoAway {
        /// The last stream that it looked at.
        last: u32,
        /// 0: all is well, 1: protocol error, 2: internal error.
        status: u32,
    },
    /// More names and values on a stream.
    Headers {
        /// The stream, not 0.
        id: u32,
        /// The last frame of its sender on this stream.
        fin: bool,
        /// Names and values.
        block: &'a [u8],
    },
    /// Its sender takes more data.
    WindowUpdate {
        /// The stream; 0 is the connection.
        id: u32,
        /// Bytes more.
        delta: u32,
    },
}

/// Reads fields from the front; what is missing is an error.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn u32(&mut self) -> Result<u32> {
        let (field, rest) = self.0.split_first_chunk().ok_or_else(short)?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*field))
    }

    /// An id of 31 bits.
    fn id(&mut self) -> Result<u32> {
        Ok(self.u32()? & MAX_31)
    }

    fn stream(&mut self) -> Result<u32> {
        match self.id()? {
            0 => Err(Error::invalid("SPDY control frame", "stream 0 does not exist")),
            id => Ok(id),
        }
    }

    fn byte(&mut self) -> Result<u8> {
        let (field, rest) = self.0.split_first().ok_or_else(short)?;
        self.0 = rest;
        Ok(*field)
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

fn short() -> Error {
    Error::invalid("SPDY control frame", "shorter than its fields")
}

impl<'a> Frame<'a> {
    /// The payload of a control frame. None: a type that is not known, which the draft wants ignored. Errors: a payload that is
    /// shorter or longer than its fields; stream 0 where it makes no sense.
    pub fn parse(kind: u16, flags: u8, payload: &'a [u8]) -> Result<Option<Self>> {
        let mut fields = Fields(payload);
        let fin = flags & FLAG_FIN != 0;
        let frame = match kind {
            SYN_STREAM => {
                let (id, associated) = (fields.stream()?, fields.id()?);
                let (priority, _slot) = (fields.byte()? >> 5, fields.byte()?);
                let unidirectional = flags & FLAG_UNIDIRECTIONAL != 0;
                Self::SynStream { id, associated, priority, fin, unidirectional, block: fields.rest() }
            }
            SYN_REPLY => Self::SynReply { id: fields.stream()?, fin, block: fields.rest() },
            RST_STREAM => Self::RstStream { id: fields.stream()?, status: fields.u32()? },
            SETTINGS => Self::Settings { values: settings(&mut fields)? },
            PING => Self::Ping { id: fields.u32()? },
            GOAWAY => Self::GoAway { last: fields.id()?, status: fields.u32()? },
            HEADERS => Self::Headers { id: fields.stream()?, fin, block: fields.rest() },
            WINDOW_UPDATE => Self::WindowUpdate { id: fields.id()?, delta: fields.u32()? & MAX_31 },
            _ => return Ok(None),
        };
        if fields.0.is_empty() {
            Ok(Some(frame))
        } else {
            Err(Error::invalid("SPDY control frame", format!("type {kind}: {} bytes too long", fields.0.len())))
        }
    }

    fn kind(&self) -> u16 {
        match self {
            Self::SynStream { .. } => SYN_STREAM,
            Self::SynReply { .. } => SYN_REPLY,
            Self::RstStream { .. } => RST_STREAM,
            Self::Settings { .. } => SETTINGS,
            Self::Ping { .. } => PING,
            Self::GoAway { .. } => GOAWAY,
            Self::Headers { .. } => HEADERS,
            Self::WindowUpdate { .. } => WINDOW_UPDATE,
        }
    }

    fn flags(&self) -> u8 {
        match self {
            Self::SynStream { fin, unidirectional, .. } => {
                (u8::from(*fin) * FLAG_FIN) | (u8::from(*unidirectional) * FLAG_UNIDIRECTIONAL)
            }
            Self::SynReply { fin, .. } | Self::Headers { fin, .. } => u8::from(*fin) * FLAG_FIN,
            _ => 0,
        }
    }

    /// The whole frame.
    pub fn encode(&self) -> BytesMut {
        let mut out = BytesMut::with_capacity(HEAD + 16);
        out.put_u32(CONTROL | u32::from(VERSION) << 16 | u32::from(self.kind()));
        out.put_u32(0);
        match self {
            Self::SynStream { id, associated, priority, block, .. } => {
                out.put_u32(*id);
                out.put_u32(*associated);
                out.put_u8(priority << 5);
                out.put_u8(0);
                out.put_slice(block);
            }
            Self::SynReply { id, block, .. } | Self::Headers { id, block, .. } => {
                out.put_u32(*id);
                out.put_slice(block);
            }
            Self::Settings { values } => {
                out.put_u32(u32::try_from(values.len()).unwrap_or(u32::MAX));
                for (id, value) in values {
                    out.put_u32(id & 0xff_ffff);
                    out.put_u32(*value);
                }
            }
            Self::Ping { id } => out.put_u32(*id),
            Self::RstStream { id: one, status: two }
            | Self::GoAway { last: one, status: two }
            | Self::WindowUpdate { id: one, delta: two } => {
                out.put_u32(*one);
                out.put_u32(*two);
            }
        }
        let length = u32::try_from(out.len() - HEAD).unwrap_or(u32::MAX) & 0xff_ffff;
        out[4..HEAD].copy_from_slice(&(u32::from(self.flags()) << 24 | length).to_be_bytes());
        out
    }
}

fn settings(fields: &mut Fields<'_>) -> Result<Vec<(u32, u32)>> {
    let count = fields.u32()? as usize;
    if fields.0.len() / 8 < count {
        return Err(short());
    }
    (0..count).map(|_| Ok((fields.u32()? & 0xff_ffff, fields.u32()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(block: &[u8]) -> impl Strategy<Value = Frame<'_>> {
        let id = 1..=MAX_31;
        prop_oneof![
            (id.clone(), 0..=MAX_31, 0u8..8, any::<bool>(), any::<bool>()).prop_map(
                move |(id, associated, priority, fin, unidirectional)| Frame::SynStream {
                    id,
                    associated,
                    priority,
                    fin,
                    unidirectional,
                    block
                }
            ),
            (id.clone(), any::<bool>()).prop_map(move |(id, fin)| Frame::SynReply { id, fin, block }),
            (id.clone(), any::<bool>()).prop_map(move |(id, fin)| Frame::Headers { id, fin, block }),
            (id.clone(), any::<u32>()).prop_map(|(id, status)| Frame::RstStream { id, status }),
            proptest::collection::vec((0..=0xff_ffffu32, any::<u32>()), 0..8)
                .prop_map(|values| Frame::Settings { values }),
            any::<u32>().prop_map(|id| Frame::Ping { id }),
            (0..=MAX_31, any::<u32>()).prop_map(|(last, status)| Frame::GoAway { last, status }),
            (0..=MAX_31, 0..=MAX_31).prop_map(|(id, delta)| Frame::WindowUpdate { id, delta }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_encoded_parses(frame in frame(b"a block")) {
            let bytes = frame.encode();
            let (head, payload) = bytes.split_first_chunk::<HEAD>().unwrap();
            let Ok(Head::Control { kind, flags, length }) = Head::parse(*head) else { panic!("no control frame") };
            prop_assert_eq!(length, payload.len());
            prop_assert_eq!(Frame::parse(kind, flags, payload).unwrap(), Some(frame));
            if !matches!(kind, SYN_STREAM | SYN_REPLY | HEADERS) {
                prop_assert!(Frame::parse(kind, flags, &payload[1..]).is_err());
            }
        }

        #[test]
        fn any_bytes_give_a_frame_or_an_error(head: [u8; HEAD], kind in 0u16..12, flags: u8, payload: Vec<u8>) {
            let _ = Head::parse(head);
            let _ = Frame::parse(kind, flags, &payload);
        }

        #[test]
        fn data_heads_survive(id in 1..=MAX_31, fin: bool, length in 0usize..0x100_0000) {
            prop_assert_eq!(Head::parse(data_head(id, fin, length)).unwrap(), Head::Data { id, fin, length });
        }
    }

    #[test]
    fn limits_and_unknown_types() {
        assert!(Head::parse([0; HEAD]).is_err(), "stream 0");
        assert!(Head::parse([0x80, 2, 0, 1, 0, 0, 0, 10]).is_err(), "version 2");
        assert!(Head::parse([0x80, 3, 0, 1, 0, 1, 0, 1]).is_err(), "65537 bytes");
        assert_eq!(Frame::parse(10, 0, b"credentials"), Ok(None));
        // A count that its bytes cannot hold.
        assert!(Frame::parse(SETTINGS, 0, &[0xff; 12]).is_err());
    }
}
