//! Text that must not be seen: passwords, tokens, keys.
//!
//! Owns: the one type that holds such text. Must not: have a `Display`, or be written anywhere but to the server that it is for.
use std::fmt;

/// A secret. It is shown as `redacted`; [`Secret::expose`] is the only way to its text, so a search for that word finds every use.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Secret(String);

impl Secret {
    /// The text, for the server that it is meant for.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "none" } else { "redacted" })
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn it_is_not_shown() {
        assert_eq!(format!("{:?} {:?}", Secret::from("sesame"), Secret::default()), "redacted none");
    }
}
