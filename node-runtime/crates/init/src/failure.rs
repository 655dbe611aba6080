//! Why a step failed.
//!
//! Owns: the type that becomes [`berth_monitor_api::sync::FromInit::Failed`]. Must not: name steps; [`crate::talk`] knows them.
use berth_sys::mount::MountError;
use std::fmt::Display;
use std::io;

/// Result of a step.
pub type Result<T> = std::result::Result<T, Failure>;

/// A failed step.
#[derive(Debug)]
pub struct Failure {
    /// The errno, or 0.
    pub errno: i32,
    /// What, on which path, why.
    pub detail: String,
    /// Exit code of the process that failed: 126 and 127 as shells use them, `sync::ABANDONED`, else 1.
    pub exit: u8,
}

impl Failure {
    /// Something that we refuse, not the kernel.
    pub fn refused(detail: impl Into<String>) -> Self {
        Self { errno: 0, detail: detail.into(), exit: 1 }
    }
}

impl From<berth_model::Error> for Failure {
    fn from(error: berth_model::Error) -> Self {
        Self::refused(error.message())
    }
}

/// Turns errors of the kernel into failures.
pub trait Explain<T> {
    /// `what: error`; the closure runs only on error.
    fn explain<S: Display>(self, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T> Explain<T> for io::Result<T> {
    fn explain<S: Display>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|e| Failure { errno: e.raw_os_error().unwrap_or(0), detail: format!("{}: {e}", what()), exit: 1 })
    }
}

impl<T> Explain<T> for std::result::Result<T, MountError> {
    fn explain<S: Display>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|e| Failure {
            errno: e.error.raw_os_error().unwrap_or(0),
            detail: format!("{}: {e}", what()),
            exit: 1,
        })
    }
}

impl<T> Explain<T> for Result<T> {
    fn explain<S: Display>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|f| Failure { detail: format!("{}: {}", what(), f.detail), ..f })
    }
}
