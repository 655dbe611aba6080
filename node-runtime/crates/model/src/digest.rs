//! Content digests (OCI image spec, `descriptor.md`): sha256 is what we store and verify by.
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;

/// `sha256:` and 64 lower-case hex digits. Other algorithms are refused where a digest is parsed, by name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// Parses `sha256:<64 hex>`. Errors: `InvalidArgument` naming what is wrong.
    pub fn parse(text: &str) -> Result<Self> {
        let Some(hex) = text.strip_prefix("sha256:") else {
            let algorithm = text.split(':').next().unwrap_or_default();
            return Err(Error::invalid("digest", format!("algorithm {algorithm:?} is not supported, only sha256 is")));
        };
        if hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::invalid("digest", "sha256 needs 64 lower-case hex digits"))
        }
    }

    /// The digest whose raw bytes are these.
    pub fn from_bytes(sha256: [u8; 32]) -> Self {
        let hex: String = sha256.iter().map(|b| format!("{b:02x}")).collect();
        Self(format!("sha256:{hex}"))
    }

    /// `sha256:...`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The hex digits alone, as used for file names.
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", &self.hex()[..12])
    }
}

impl TryFrom<String> for Digest {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        Self::parse(&text)
    }
}

impl From<Digest> for String {
    fn from(d: Digest) -> String {
        d.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_sha256_is_a_digest() {
        let good = format!("sha256:{}", "0f".repeat(32));
        assert_eq!(Digest::parse(&good).unwrap(), Digest::from_bytes([0x0f; 32]));
        let bad = [
            String::new(),
            "sha256:".into(),
            format!("sha256:{}", "0F".repeat(32)),
            format!("sha256:{}/", "0f".repeat(32)),
            format!("sha512:{}", "0f".repeat(64)),
            "0f".repeat(32),
        ];
        for text in bad {
            assert!(Digest::parse(&text).is_err(), "{text:?} was taken for a digest");
        }
    }
}
