//! Identifiers. Pods and containers are 64 lower-case hex digits: the kubelet cuts a systemd scope's name at the last
//! `-`, so an id may not contain one.
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Number of hex digits of a pod or container id.
const ID_LEN: usize = 64;

fn parse_hex(kind: &str, text: &str) -> Result<String> {
    if text.len() == ID_LEN && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        Ok(text.to_owned())
    } else {
        Err(Error::invalid(format!("{kind} id"), "must be 64 lower-case hex digits"))
    }
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The id made of 32 random bytes; the caller brings the randomness.
            pub fn from_random(bytes: [u8; 32]) -> Self {
                Self(bytes.iter().map(|b| format!("{b:02x}")).collect())
            }

            /// Parses a full id. Errors: `InvalidArgument` for anything but 64 lower-case hex digits.
            pub fn parse(text: &str) -> Result<Self> {
                parse_hex($kind, text).map(Self)
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The first 12 digits, as people see it in tables.
            pub fn short(&self) -> &str {
                &self.0[..12]
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(text: String) -> Result<Self> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
    };
}

hex_id!(
    /// Identifies a pod sandbox.
    PodId,
    "pod"
);
hex_id!(
    /// Identifies a container.
    ContainerId,
    "container"
);
hex_id!(
    /// Identifies one command that runs in a container beside its main process.
    ExecId,
    "exec"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_and_refuse_everything_else() {
        let id = PodId::from_random([0xab; 32]);
        assert_eq!(PodId::parse(id.as_str()).unwrap(), id);
        assert_eq!(id.short(), "abababababab");
        for bad in ["", "abc", &"A".repeat(64), &"g".repeat(64), &"a".repeat(65), &format!("{}-", "a".repeat(63))] {
            assert!(ContainerId::parse(bad).is_err(), "{bad:?} was taken for an id");
        }
    }
}
