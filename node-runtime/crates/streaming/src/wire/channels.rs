//! Messages of the channel protocols: one WebSocket message is one piece of one channel.
//!
//! Owns: taking them apart and putting them together. Must not: keep state.
use super::protocols::Channels;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};

/// stdin of exec and attach.
pub const STDIN: u8 = 0;
/// stdout.
pub const STDOUT: u8 = 1;
/// stderr.
pub const STDERR: u8 = 2;
/// The outcome.
pub const ERROR: u8 = 3;
/// Sizes of the terminal.
pub const RESIZE: u8 = 4;
/// In v5: the channel that the next byte names is closed.
const CLOSE: u8 = 255;

/// A message of the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Bytes of a channel.
    Data {
        /// Which.
        channel: u8,
        /// Bytes, decoded.
        bytes: Bytes,
    },
    /// The end of a channel.
    Close {
        /// Which.
        channel: u8,
    },
    /// An empty message.
    Nothing,
}

/// Takes a message apart. Errors say what is wrong with it.
pub fn take_apart(how: Channels, message: &Bytes) -> Result<Piece, &'static str> {
    let Some(&first) = message.first() else { return Ok(Piece::Nothing) };
    if how.close && first == CLOSE {
        return match message[1..] {
            [channel] => Ok(Piece::Close { channel }),
            _ => Err("a close signal names exactly one channel"),
        };
    }
    if !how.base64 {
        return Ok(Piece::Data { channel: first, bytes: message.slice(1..) });
    }
    let channel = first.checked_sub(b'0').ok_or("the first character of a base64 message is the channel's digit")?;
    let bytes = STANDARD.decode(&message[1..]).map_err(|_| "a message is not base64")?;
    Ok(Piece::Data { channel, bytes: bytes.into() })
}

/// A message's body: text with [`Channels::base64`], else binary. The channel is below 10 or binary is spoken.
pub fn put_together(how: Channels, channel: u8, bytes: &[u8]) -> Bytes {
    if !how.base64 {
        let mut body = BytesMut::with_capacity(bytes.len() + 1);
        body.put_u8(channel);
        body.put_slice(bytes);
        return body.freeze();
    }
    let mut text = String::with_capacity(bytes.len() / 3 * 4 + 5);
    text.push(char::from(b'0'.wrapping_add(channel)));
    STANDARD.encode_string(bytes, &mut text);
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAW: Channels = Channels { base64: false, status: true, close: true };
    const TEXT: Channels = Channels { base64: true, status: true, close: false };

    #[test]
    fn what_is_put_together_comes_apart() {
        for how in [RAW, TEXT] {
            for bytes in [&b""[..], b"x", &[0, 255, 128, 7]] {
                let body = put_together(how, STDERR, bytes);
                let piece = Piece::Data { channel: STDERR, bytes: Bytes::copy_from_slice(bytes) };
                assert_eq!(take_apart(how, &body), Ok(piece));
            }
        }
        assert_eq!(put_together(TEXT, STDIN, b"foo\n"), Bytes::from_static(b"0Zm9vCg=="));
    }

    #[test]
    fn ends_and_nonsense() {
        assert_eq!(take_apart(RAW, &Bytes::new()), Ok(Piece::Nothing));
        assert_eq!(take_apart(RAW, &Bytes::from_static(&[255, 0])), Ok(Piece::Close { channel: 0 }));
        assert!(take_apart(RAW, &Bytes::from_static(&[255])).is_err());
        assert!(take_apart(RAW, &Bytes::from_static(&[255, 0, 1])).is_err());
        assert!(take_apart(TEXT, &Bytes::from_static(b"0?")).is_err());
        assert!(take_apart(TEXT, &Bytes::from_static(b"\x01Zg==")).is_err());
        let v4 = Channels { close: false, ..RAW };
        let data = Piece::Data { channel: 255, bytes: Bytes::from_static(&[0]) };
        assert_eq!(take_apart(v4, &Bytes::from_static(&[255, 0])), Ok(data));
    }
}
