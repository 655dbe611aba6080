//! Errors as the kubelet reads them: gRPC codes, and the prefixes that it knows.
use berth_model::{Error, ErrorKind};
use tonic::Status;

/// What a kubelet calls an image that policy refuses; it matches on this prefix, and only with the code Unknown (cri-contract 2.6,
/// cri-api pkg/errors).
const REFUSED: &str = "SignatureValidationFailed";

/// The status of an error.
pub(crate) fn status(error: Error) -> Status {
    match error.kind() {
        ErrorKind::PolicyDenied => Status::unknown(format!("{REFUSED}: {}", error.message())),
        _ => berth_proto::status(error),
    }
}

/// The answer of a call that is not built yet.
pub(crate) fn unimplemented(call: &str) -> Status {
    Status::unimplemented(format!("{call} is not built yet"))
}
