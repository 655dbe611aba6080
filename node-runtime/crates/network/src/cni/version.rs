//! Versions of the CNI specification: which ones are spoken, and what each brought.
//! Must not: read a configuration.
use std::fmt;

/// A version, comparable as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

/// Versions that we speak, oldest first (github.com/containernetworking/cni, releases of SPEC.md). 0.1.0 and 0.2.0 knew neither
/// lists nor several addresses.
pub const SPOKEN: [Version; 5] =
    [Version(0, 3, 0), Version(0, 3, 1), Version(0, 4, 0), Version(1, 0, 0), Version(1, 1, 0)];
/// From here on there is CHECK, and DEL is told the result of ADD.
pub const CHECK_FROM: Version = Version(0, 4, 0);
/// From here on there are GC and STATUS.
pub const STATUS_FROM: Version = Version(1, 1, 0);

impl Version {
    /// `1.0.0`; `None` for anything else than three numbers.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.').map(|part| {
            let digits = !part.is_empty() && part.len() <= 6 && part.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| part.parse().ok()).flatten()
        });
        let version = Self(parts.next()??, parts.next()??, parts.next()??);
        parts.next().is_none().then_some(version)
    }

    /// Whether we speak it.
    pub fn is_spoken(self) -> bool {
        SPOKEN.contains(&self)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbers() {
        assert_eq!(Version::parse("1.1.0"), Some(STATUS_FROM));
        assert!(Version::parse("0.10.0") > Version::parse("0.4.0"));
        for bad in ["", "1", "1.0", "1.0.0.0", "1.0.x", "1.0.-1", " 1.0.0", "1..0", "1.0.9999999999"] {
            assert_eq!(Version::parse(bad), None, "{bad}");
        }
        assert!(SPOKEN.is_sorted() && !Version(0, 2, 0).is_spoken());
    }
}
