//! Credentials for registries on their way from the cluster's Secret to the daemon. They are in memory only, and nothing shows them.
//!
//! Must not: be written to the disk, to a log or to an object.
use berth_crds::{SecretCredential, sha256};
use std::collections::BTreeMap;
use std::fmt;

/// One, as it stands under its key in the Secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// Its key.
    pub name: String,
    /// SHA-256 of its bytes, as the revision has it.
    pub sha256: String,
    /// A configuration of Docker's format.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({}, redacted)", self.name)
    }
}

/// Those that a revision names, out of a Secret's data. Errors: the first that is not there or is another one than the revision means.
pub fn named(
    wanted: &[SecretCredential],
    mut data: BTreeMap<String, Vec<u8>>,
    secret: &str,
) -> Result<Vec<Credential>, String> {
    let one = |wanted: &SecretCredential| {
        let Some(bytes) = data.remove(&wanted.name) else {
            return Err(format!(
                "Secret {secret} has no key {:?}, which spec.credentials.fromSecret names",
                wanted.name
            ));
        };
        let found = sha256(&bytes);
        if found != wanted.sha256 {
            // Of a text with enough that nobody guesses, a hash tells nothing; of a short one it would.
            return Err(format!(
                "key {:?} of Secret {secret} has another content than spec.credentials.fromSecret says: its SHA-256 is not {}",
                wanted.name, wanted.sha256
            ));
        }
        Ok(Credential { name: wanted.name.clone(), sha256: found, bytes })
    };
    wanted.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_is_taken_and_what_is_another_is_refused_without_being_shown() {
        let wanted =
            |name: &str, text: &str| SecretCredential { name: name.to_owned(), sha256: sha256(text.as_bytes()) };
        let data = || BTreeMap::from([("a".to_owned(), b"sesame".to_vec()), ("b".to_owned(), b"other".to_vec())]);
        let found = named(&[wanted("a", "sesame")], data(), "ns/s").unwrap();
        assert_eq!((found.len(), found[0].bytes.as_slice()), (1, b"sesame".as_slice()));
        assert!(!format!("{found:?}").contains("sesame"));
        let message = named(&[wanted("c", "sesame")], data(), "ns/s").unwrap_err();
        assert!(message.contains("ns/s") && message.contains("\"c\""), "{message}");
        let message = named(&[wanted("a", "changed")], data(), "ns/s").unwrap_err();
        assert!(message.contains("another content") && !message.contains("sesame"), "{message}");
    }
}
