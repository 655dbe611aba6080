//! Sizes of a terminal: JSON objects `{"Width":80,"Height":24}`, one after another in a stream of bytes.
//!
//! Owns: finding and reading them. Must not: set a size. Source: `TerminalSize` of k8s.io/client-go/tools/remotecommand/resize.go.
use crate::protocol::Size;
use serde::Deserialize;

/// Most bytes of an object that has not ended.
const MAX_PENDING: usize = 1024;

#[derive(Deserialize)]
struct TerminalSize {
    // Go reads names in any case; these two are what clients write.
    #[serde(rename = "Width", alias = "width")]
    width: u16,
    #[serde(rename = "Height", alias = "height")]
    height: u16,
}

/// Collects bytes until they are sizes.
#[derive(Debug, Default)]
pub struct SizeReader {
    pending: Vec<u8>,
    broken: bool,
}

impl SizeReader {
    /// Takes bytes; returns the last size that has become whole. After nonsense no more sizes come: where the next object would
    /// begin, nobody knows.
    pub fn push(&mut self, bytes: &[u8]) -> Option<Size> {
        if self.broken {
            return None;
        }
        self.pending.extend_from_slice(bytes);
        let mut objects = serde_json::Deserializer::from_slice(&self.pending).into_iter::<TerminalSize>();
        let mut last = None;
        let mut used = 0;
        loop {
            match objects.next() {
                Some(Ok(size)) => last = Some(Size { rows: size.height, cols: size.width }),
                Some(Err(e)) => {
                    self.broken = !e.is_eof();
                    break;
                }
                None => break,
            }
            used = objects.byte_offset();
        }
        self.pending.drain(..used);
        self.broken |= self.pending.len() > MAX_PENDING;
        if self.broken {
            self.pending = Vec::new();
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_in_pieces_and_several_at_once() {
        let mut reader = SizeReader::default();
        assert_eq!(reader.push(b"{\"Width\":8"), None);
        assert_eq!(reader.push(b"0,\"Height\":24}\n"), Some(Size { rows: 24, cols: 80 }));
        let two = b"{\"Width\":1,\"Height\":2}{\"Width\":3,\"Height\":4,\"x\":null}{";
        assert_eq!(reader.push(two), Some(Size { rows: 4, cols: 3 }));
        assert_eq!(reader.push(b"\"Width\":65535,\"Height\":0}"), Some(Size { rows: 0, cols: 65535 }));
    }

    #[test]
    fn nonsense_ends_it() {
        for bad in [&b"]"[..], b"{\"Width\":70000,\"Height\":1}", b"{\"Width\":-1,\"Height\":1}", b"{}"] {
            let mut reader = SizeReader::default();
            assert_eq!(reader.push(bad), None);
            assert_eq!(reader.push(b"{\"Width\":1,\"Height\":2}"), None, "{bad:?}");
        }
        let mut reader = SizeReader::default();
        reader.push(b"{\"Width\":");
        for _ in 0..100 {
            reader.push(&[b' '; 100]);
        }
        assert!(reader.pending.capacity() < 2 * MAX_PENDING);
    }
}
