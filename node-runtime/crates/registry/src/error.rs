//! Errors of the client: what a registry did, in words the kubelet understands.
//!
//! Owns: the sentences and kinds. Must not: print a credential, or a query string (signed URLs carry secrets there).
use berth_model::{Error, ErrorKind, Reference};
use std::time::Duration;

/// How one attempt failed: for good, or so that another may succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Trying again changes nothing.
    Final(Error),
    /// Trying again may help; the registry may have said when.
    Again(Error, Option<Duration>),
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

/// The registry refuses this repository.
pub(crate) fn denied(repo: &Reference, why: impl std::fmt::Display) -> Error {
    let (host, path) = (repo.host(), repo.path());
    Error::new(ErrorKind::PermissionDenied, format!("registry {host} refuses access to repository {path}: {why}"))
}

/// Content is not what was promised.
pub(crate) fn mismatch(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::FailedPrecondition, what.to_string())
}
