//! Errors of the client: what a registry did, in words the kubelet understands.
//!
//! Owns: the sentences and kinds. Must not: print a credential, or a query string (signed URLs carry secrets there).
use crate::observe::Outcome;
use crate::site::Site;
use berth_model::{Error, ErrorKind, Reference};
use std::time::Duration;

/// How one attempt failed: for good, or so that another may succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Trying again changes nothing.
    Final(Error),
    /// Trying again may help; the registry may have said when.
    Again(Error, Option<Duration>),
    /// As `Again`: too many asked at once.
    Limited(Error, Option<Duration>),
}

impl Failure {
    /// As an observer hears it.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Final(e) if e.kind() == ErrorKind::NotFound => Outcome::NotFound,
            Self::Final(e) if e.kind() == ErrorKind::PermissionDenied => Outcome::Denied,
            Self::Limited(..) => Outcome::RateLimited,
            _ => Outcome::Failed,
        }
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Self::Final(e)
    }
}

/// The registry does not answer as it should. The kubelet matches this prefix, and only with the code `Unknown` (cri-api,
/// `ErrRegistryUnavailable`); whoever adds context must put it behind, not before.
pub(crate) fn unavailable(host: &str, what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Unknown, format!("RegistryUnavailable: registry {host} {what}"))
}

/// A site refuses this repository.
pub(crate) fn denied(site: &Site, repo: &Reference, why: impl std::fmt::Display) -> Error {
    let (host, path) = (site.name(), site.repository(repo));
    Error::new(ErrorKind::PermissionDenied, format!("registry {host} refuses access to repository {path}: {why}"))
}

/// Content is not what was promised.
pub(crate) fn mismatch(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::FailedPrecondition, what.to_string())
}
