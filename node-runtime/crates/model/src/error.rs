//! The error that crosses crate edges: a kind that callers decide on (status codes, retries) and a sentence for people.
use std::fmt;

/// What a caller can do about an error. Each kind has exactly one gRPC status code at each edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request is wrong, whatever the state of the node.
    InvalidArgument,
    /// The object does not exist.
    NotFound,
    /// The name is taken by something else.
    AlreadyExists,
    /// The object is in a state that forbids the call.
    FailedPrecondition,
    /// A limit was reached (disk, memory, sizes, counts).
    ResourceExhausted,
    /// The time given was not enough.
    DeadlineExceeded,
    /// Access is not granted, or confinement forbids it.
    PermissionDenied,
    /// An image policy forbids it. The CRI has a code and a prefix of its own for this.
    PolicyDenied,
    /// Another party does not answer now; trying again may help.
    Unavailable,
    /// Not built yet.
    Unimplemented,
    /// The code `Unknown`, which the kubelet needs for its prefixed messages (`RegistryUnavailable`, ...).
    Unknown,
    /// A fault of ours or of the machine.
    Internal,
}

/// A kind and a message that stands alone: it names the field or object, the limit and, where there is one, the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    exec_code: Option<i32>,
}

/// Result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of any kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), exec_code: None }
    }

    /// `InvalidArgument` that names the field.
    pub fn invalid(field: impl fmt::Display, problem: impl fmt::Display) -> Self {
        Self::new(ErrorKind::InvalidArgument, format!("{field}: {problem}"))
    }

    /// `NotFound` of one object.
    pub fn not_found(what: impl fmt::Display, id: impl fmt::Display) -> Self {
        Self::new(ErrorKind::NotFound, format!("{what} {id} does not exist"))
    }

    /// `Internal`.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// The same error, as that of a program that could not be executed, with the exit code that shells give it: 127 for one
    /// that is not there, 126 for one that cannot be executed (POSIX, Shell Command Language 2.8.2).
    #[must_use]
    pub fn with_exec_code(self, code: i32) -> Self {
        Self { exec_code: Some(code), ..self }
    }

    /// The exit code that shells give a program that could not be executed, if this error says so.
    pub fn exec_code(&self) -> Option<i32> {
        self.exec_code
    }

    /// The kind.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The sentence.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The same error, told from one level further up: `context: message`.
    #[must_use]
    pub fn context(self, context: impl fmt::Display) -> Self {
        Self { message: format!("{context}: {}", self.message), ..self }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<std::io::Error> for Error {
    /// A full disk is `ResourceExhausted`; everything else of the machine is `Internal`.
    fn from(e: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match e.kind() {
            Io::StorageFull | Io::QuotaExceeded | Io::OutOfMemory => ErrorKind::ResourceExhausted,
            Io::TimedOut => ErrorKind::DeadlineExceeded,
            _ => ErrorKind::Internal,
        };
        Self::new(kind, e.to_string())
    }
}

/// Adds context to results of anything that turns into an [`Error`].
pub trait ResultExt<T> {
    /// `context: message`, kind kept. The closure runs only on error.
    fn context<C: fmt::Display>(self, context: impl FnOnce() -> C) -> Result<T>;
}

impl<T, E: Into<Error>> ResultExt<T> for std::result::Result<T, E> {
    fn context<C: fmt::Display>(self, context: impl FnOnce() -> C) -> Result<T> {
        self.map_err(|e| e.into().context(context()))
    }
}
