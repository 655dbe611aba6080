//! Credentials that somebody hands to the daemon while it runs: a cluster's, by its agent. They are in memory only.
//!
//! Owns: which ones there are. Must not: write them down, or show them.
use super::DockerConfig;
use crate::auth::Auth;
use berth_model::{Error, Result, ResultExt};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// Most that are held.
pub const MAX_GIVEN: usize = 64;

/// All of them, by name and SHA-256. Clones are the same.
#[derive(Clone, Default)]
pub struct Given(Arc<Shared>);

#[derive(Default)]
struct Shared {
    held: RwLock<BTreeMap<(String, String), DockerConfig>>,
    edition: AtomicU64,
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Given({} credentials, redacted)", self.names().len())
    }
}

impl Given {
    /// Takes these beside those that `keep` says are needed still; the others are forgotten. All or nothing. Errors: `InvalidArgument`
    /// naming the one that is not of Docker's format, without its content, or too many.
    pub fn take(&self, new: Vec<(String, String, Vec<u8>)>, keep: impl Fn(&str, &str) -> bool) -> Result<()> {
        let mut parsed = BTreeMap::new();
        for (name, sha256, bytes) in new {
            let config = DockerConfig::parse(&bytes).context(|| format!("credential {name}"))?;
            parsed.insert((name, sha256), config);
        }
        let mut held = self.0.held.write().unwrap_or_else(PoisonError::into_inner);
        let mut kept: BTreeMap<_, _> =
            held.iter().filter(|((name, hash), _)| keep(name, hash)).map(|(k, v)| (k.clone(), v.clone())).collect();
        kept.extend(parsed);
        if kept.len() > MAX_GIVEN {
            return Err(Error::invalid("credentials", format!("are {}, the limit is {MAX_GIVEN}", kept.len())));
        }
        *held = kept;
        self.0.edition.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Names and hashes of those that are held.
    pub fn names(&self) -> Vec<(String, String)> {
        self.0.held.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// A value that changes with them.
    pub(super) fn edition(&self) -> u64 {
        self.0.edition.load(Ordering::Relaxed)
    }

    /// What one of them has for an image. Errors: it is not here.
    pub(super) fn lookup(&self, name: &(String, String), image: &str) -> std::result::Result<Vec<Auth>, String> {
        let held = self.0.held.read().unwrap_or_else(PoisonError::into_inner);
        match held.get(name) {
            Some(config) => Ok(config.lookup(image)),
            None => {
                Err(format!("credential {:?} of the cluster's Secret was not handed over yet by the agent", name.0))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &[u8] = br#"{"auths": {"r.example": {"username": "u", "password": "sesame"}}}"#;

    #[test]
    fn what_is_needed_is_kept_and_nothing_is_shown() {
        let given = Given::default();
        let name = |n: &str| (n.to_owned(), "0".to_owned());
        let entry = |n: &str, bytes: &[u8]| (n.to_owned(), "0".to_owned(), bytes.to_vec());
        given.take(vec![entry("a", ONE), entry("b", ONE)], |_, _| true).unwrap();
        let edition = given.edition();
        assert_eq!(given.lookup(&name("a"), "r.example/app").unwrap().len(), 1);
        assert!(given.lookup(&name("a"), "other.example/app").unwrap().is_empty());
        given.take(vec![entry("c", ONE)], |name, _| name == "b").unwrap();
        assert_eq!(given.names(), [name("b"), name("c")]);
        assert_ne!(given.edition(), edition);
        assert!(given.lookup(&name("a"), "r.example/app").unwrap_err().contains("not handed over"));
        let message = given.take(vec![entry("d", b"{\"auths\": sesame}")], |_, _| true).unwrap_err().to_string();
        assert!(message.contains("credential d") && !message.contains("sesame"), "{message}");
        assert_eq!(given.names(), [name("b"), name("c")], "all or nothing");
        assert!(!format!("{given:?}").contains("sesame"));
    }
}
