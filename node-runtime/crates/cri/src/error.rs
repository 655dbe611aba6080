//! The answer of a call that is not built yet.
use tonic::Status;

/// The answer of a call that is not built yet.
pub(crate) fn unimplemented(call: &str) -> Status {
    Status::unimplemented(format!("{call} is not built yet"))
}
