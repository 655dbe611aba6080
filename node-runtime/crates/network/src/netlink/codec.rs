//! Netlink messages as bytes: a writer for requests and a total reader for answers.
//!
//! Layout: `struct nlmsghdr` and `struct nlattr` of linux/netlink.h. Header fields are in host byte order; what an attribute
//! holds is the caller's business. Must not: do I/O.

/// Length of `struct nlmsghdr`.
pub(crate) const HEADER: usize = 16;
/// Length of `struct nlattr`.
const ATTRIBUTE: usize = 4;
/// `NLA_F_NESTED`: the attribute holds attributes.
const NESTED: u16 = 1 << 15;
/// `NLA_TYPE_MASK`: the kind without `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`.
const KIND_MASK: u16 = !(3 << 14);

/// Netlink pads messages and attributes to four bytes (`NLMSG_ALIGNTO`, `NLA_ALIGNTO`).
const fn align(len: usize) -> usize {
    (len + 3) & !3
}

/// One request under construction. Length and sequence number are set when it is sent.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A message of `kind` with `flags` (`NLM_F_*`) and the fixed part that the protocol puts before the attributes.
    pub(crate) fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(fixed);
        bytes.resize(align(bytes.len()), 0);
        Self { bytes }
    }

    /// Appends an attribute with raw content.
    pub(crate) fn bytes(&mut self, kind: u16, content: &[u8]) {
        let start = self.begin(kind);
        self.bytes.extend_from_slice(content);
        self.end(start);
    }

    /// Appends a number in host byte order.
    pub(crate) fn u32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_ne_bytes());
    }

    /// Appends a number in network byte order, as nf_tables has all of its numbers.
    pub(crate) fn be32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    /// Appends a NUL-terminated string.
    pub(crate) fn string(&mut self, kind: u16, text: &str) {
        let start = self.begin(kind);
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
        self.end(start);
    }

    /// Appends an attribute that holds attributes.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.begin(kind | NESTED);
        fill(self);
        self.end(start);
    }

    /// Appends an attribute that holds a fixed structure and then attributes (`VETH_INFO_PEER`).
    pub(crate) fn nest_after(&mut self, kind: u16, fixed: &[u8], fill: impl FnOnce(&mut Self)) {
        self.nest(kind, |m| {
            m.bytes.extend_from_slice(fixed);
            m.bytes.resize(align(m.bytes.len()), 0);
            fill(m);
        });
    }

    /// Asks for an acknowledgement, or for whatever else `flag` says.
    pub(crate) fn add_flag(&mut self, flag: u16) {
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | flag;
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
    }

    /// The finished message, numbered.
    pub(crate) fn finish(mut self, sequence: u32) -> Vec<u8> {
        let len = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes[0..4].copy_from_slice(&len.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }

    fn begin(&mut self, kind: u16) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        start
    }

    fn end(&mut self, start: usize) {
        // An attribute is built from interface names, addresses and a few hundred ports at most: far below 64 KiB.
        let len = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        self.bytes.resize(align(self.bytes.len()), 0);
    }
}

/// One message of an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received<'a> {
    /// `nlmsg_type`.
    pub(crate) kind: u16,
    /// `nlmsg_flags`.
    pub(crate) flags: u16,
    /// `nlmsg_seq`.
    pub(crate) sequence: u32,
    /// What follows the header.
    pub(crate) payload: &'a [u8],
}

/// The messages of one datagram. Ends at the first one that is torn.
pub(crate) struct Messages<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Received<'a>;

    fn next(&mut self) -> Option<Received<'a>> {
        let len = usize::try_from(read_u32(self.0, 0)?).ok()?;
        if len < HEADER || len > self.0.len() {
            return None;
        }
        let received = Received {
            kind: read_u16(self.0, 4)?,
            flags: read_u16(self.0, 6)?,
            sequence: read_u32(self.0, 8)?,
            payload: &self.0[HEADER..len],
        };
        self.0 = self.0.get(align(len)..).unwrap_or_default();
        Some(received)
    }
}

/// The attributes of a message or of a nested attribute. Ends at the first one that is torn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Attributes<'a> {
    /// The first attribute of a kind.
    pub(crate) fn find(mut self, kind: u16) -> Option<&'a [u8]> {
        self.by_ref().find(|(k, _)| *k == kind).map(|(_, content)| content)
    }

    /// A number in host byte order.
    pub(crate) fn find_u32(self, kind: u16) -> Option<u32> {
        read_u32(self.find(kind)?, 0)
    }

    /// A string, without its NUL; what is not UTF-8 is replaced.
    pub(crate) fn find_string(self, kind: u16) -> Option<String> {
        let content = self.find(kind)?;
        let end = content.iter().position(|b| *b == 0).unwrap_or(content.len());
        Some(String::from_utf8_lossy(&content[..end]).into_owned())
    }

    /// The attributes within a nested one.
    pub(crate) fn find_nested(self, kind: u16) -> Option<Attributes<'a>> {
        self.find(kind).map(Attributes)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let len = usize::from(read_u16(self.0, 0)?);
        let kind = read_u16(self.0, 2)? & KIND_MASK;
        if len < ATTRIBUTE || len > self.0.len() {
            return None;
        }
        let content = &self.0[ATTRIBUTE..len];
        self.0 = self.0.get(align(len)..).unwrap_or_default();
        Some((kind, content))
    }
}

/// Two bytes in host byte order.
pub(crate) fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// Four bytes in host byte order.
pub(crate) fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_message_reads_back_as_it_was_written() {
        let mut m = Message::new(0x1234, 0x0005, &[9, 8, 7]);
        m.string(1, "eth0");
        m.nest(2, |m| {
            m.u32(3, 77);
            m.be32(4, 1);
        });
        let bytes = m.finish(42);
        let got = Messages(&bytes).next().unwrap();
        assert_eq!((got.kind, got.flags, got.sequence), (0x1234, 5, 42));
        assert_eq!(&got.payload[..4], [9, 8, 7, 0], "the fixed part is padded");
        let attributes = Attributes(&got.payload[4..]);
        assert_eq!(attributes.find_string(1).unwrap(), "eth0");
        let inner = attributes.find_nested(2).unwrap();
        assert_eq!(inner.find_u32(3), Some(77));
        assert_eq!(inner.find(4).unwrap(), [0, 0, 0, 1]);
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn attributes_are_laid_out_as_the_kernel_expects() {
        let mut m = Message::new(16, 1, &[]);
        m.string(3, "lo");
        let bytes = m.finish(7);
        let mut expected = Vec::new();
        expected.extend_from_slice(&24u32.to_ne_bytes());
        expected.extend_from_slice(&16u16.to_ne_bytes());
        expected.extend_from_slice(&1u16.to_ne_bytes());
        expected.extend_from_slice(&7u32.to_ne_bytes());
        expected.extend_from_slice(&0u32.to_ne_bytes());
        expected.extend_from_slice(&7u16.to_ne_bytes());
        expected.extend_from_slice(&3u16.to_ne_bytes());
        expected.extend_from_slice(b"lo\0\0");
        assert_eq!(bytes, expected);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            for message in Messages(&bytes) {
                for (kind, content) in Attributes(message.payload) {
                    prop_assert!(content.len() <= bytes.len());
                    Attributes(content).find_string(kind);
                }
            }
        }
    }
}
