//! Errors of the node half as gRPC status: exactly one code per kind. Both edges answer with this; the CRI's has one exception.
use berth_model::{Error, ErrorKind};
use tonic::{Code, Status};

/// Metadata of a status: the exit code of a program that could not be executed.
const EXEC_CODE: &str = "berth-exec-code";

/// The status of an error.
pub fn status(error: Error) -> Status {
    let code = match error.kind() {
        ErrorKind::InvalidArgument => Code::InvalidArgument,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::AlreadyExists => Code::AlreadyExists,
        ErrorKind::FailedPrecondition => Code::FailedPrecondition,
        ErrorKind::ResourceExhausted => Code::ResourceExhausted,
        ErrorKind::DeadlineExceeded => Code::DeadlineExceeded,
        ErrorKind::PermissionDenied | ErrorKind::PolicyDenied => Code::PermissionDenied,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::Unimplemented => Code::Unimplemented,
        ErrorKind::Unknown => Code::Unknown,
        ErrorKind::Internal => Code::Internal,
    };
    let mut status = Status::new(code, error.message());
    if let Some(code) = error.exec_code() {
        status.metadata_mut().insert(EXEC_CODE, code.into());
    }
    status
}

/// The exit code that shells give a program that could not be executed, from a status.
pub fn exec_code(status: &Status) -> Option<i32> {
    status.metadata().get(EXEC_CODE)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_cannot_be_executed_is_told_by_number() {
        let missing = Error::invalid("cmd", "not found").with_exec_code(127);
        assert_eq!(exec_code(&status(missing)), Some(127));
        assert_eq!(exec_code(&status(Error::invalid("cmd", "must name a program (exit code 127)"))), None);
    }
}
