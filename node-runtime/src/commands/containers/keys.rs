//! The keys that leave a terminal session, as docker has them: `ctrl-p,ctrl-q`. Pure.
use anyhow::{Result, bail};

/// docker's default.
pub const DEFAULT: &str = "ctrl-p,ctrl-q";

/// Keys that are looked for in what is typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachKeys {
    keys: Vec<u8>,
    /// How many of them were typed just now.
    seen: usize,
}

impl DetachKeys {
    /// Reads `ctrl-p,ctrl-q` or single characters; an empty text is no keys.
    pub fn parse(text: &str) -> Result<Self> {
        let keys =
            text.split(',').filter(|part| !text.is_empty() || !part.is_empty()).map(key).collect::<Result<_>>()?;
        Ok(Self { keys, seen: 0 })
    }

    /// What is to be sent on of what was typed; `None` when the keys are complete. Keys that may begin the sequence are held
    /// back until it is known.
    pub fn pass(&mut self, typed: &[u8]) -> Option<Vec<u8>> {
        if self.keys.is_empty() {
            return Some(typed.to_vec());
        }
        let mut out = Vec::with_capacity(typed.len());
        for byte in typed {
            if *byte == self.keys[self.seen] {
                self.seen += 1;
                if self.seen == self.keys.len() {
                    return None;
                }
                continue;
            }
            out.extend_from_slice(&self.keys[..self.seen]);
            self.seen = usize::from(*byte == self.keys[0]);
            if self.seen == 0 {
                out.push(*byte);
            } else if self.keys.len() == 1 {
                return None;
            }
        }
        Some(out)
    }
}

fn key(text: &str) -> Result<u8> {
    let lower = text.trim().to_ascii_lowercase();
    match (lower.strip_prefix("ctrl-").map(str::as_bytes), text.as_bytes()) {
        (Some([c @ b'a'..=b'z']), _) => Ok(c - b'a' + 1),
        (Some([c @ (b'@' | b'[' | b'\\' | b']' | b'^' | b'_')]), _) => Ok(c & 0x1f),
        (None, [c]) if c.is_ascii_graphic() => Ok(*c),
        _ => bail!(
            "--detach-keys: {text:?} is no key; write single characters or ctrl-a to ctrl-z, ctrl-@ [ \\ ] ^ _, joined by commas"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read() {
        assert_eq!(DetachKeys::parse(DEFAULT).unwrap().keys, [16, 17]);
        assert_eq!(DetachKeys::parse("ctrl-],x,ctrl-@").unwrap().keys, [29, b'x', 0]);
        assert_eq!(DetachKeys::parse("").unwrap().keys, [] as [u8; 0]);
        for bad in ["ctrl-", "ctrl-1", "ab", "ctrl-p,", "ä", "ctrl-ab"] {
            assert!(DetachKeys::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_the_whole_sequence_leaves() {
        let mut keys = DetachKeys::parse(DEFAULT).unwrap();
        assert_eq!(keys.pass(b"a\x10").unwrap(), b"a");
        assert_eq!(keys.pass(b"b").unwrap(), b"\x10b", "what was held back comes");
        assert_eq!(keys.pass(b"\x10\x10").unwrap(), b"\x10", "the second may begin it");
        assert!(keys.pass(b"\x11").is_none());
        let mut none = DetachKeys::parse("").unwrap();
        assert_eq!(none.pass(b"\x10\x11").unwrap(), b"\x10\x11");
    }
}
