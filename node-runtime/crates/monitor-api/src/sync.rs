//! Daemon and init while a task is set up, over a `SOCK_SEQPACKET` pair of the daemon's. Not frozen: both are of one version.
//!
//! A start goes: `Phase`*, (`Paused` → `Continue`)?, `Phase`*, `Ready` → `Go`, `ExecNext`, end of file. End of file without
//! `ExecNext` (or, for a sandbox, `Done`) is a death in set-up. If the daemon goes away, init ends the child: nothing
//! starts that nobody waits for.
use crate::codec::DecodeError;
use serde::{Deserialize, Serialize};

/// Longest message in bytes.
pub const MAX_MESSAGE: usize = 16 * 1024;

/// Step of a [`FromInit::Failed`] whose program is not there or cannot be executed; its errno says which.
pub const PROGRAM_STEP: &str = "program";

/// Exit code of a child whose daemon went away before `Go`: its program was never executed.
pub const ABANDONED: u8 = 128;

/// Identity of the process after the image's files were read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups, the primary one included.
    pub groups: Vec<u32>,
}

/// What init says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromInit {
    /// A step is done.
    Phase {
        /// Step name.
        name: String,
        /// Duration in microseconds.
        micros: u64,
    },
    /// The child exists and waits to be moved into its cgroup (systemd driver).
    Paused {
        /// Its process id.
        pid: u32,
    },
    /// Set-up is complete; waits for [`ToInit::Go`].
    Ready {
        /// Process id of the child.
        pid: u32,
        /// Who it will be.
        identity: Identity,
    },
    /// The next thing is `execve`.
    ExecNext,
    /// A sandbox's namespaces are made.
    Done {
        /// Process id of the pod's init, with a shared pid namespace.
        pid: Option<u32>,
    },
    /// A step failed; end of file follows.
    Failed {
        /// Step name.
        step: String,
        /// The errno, or 0.
        errno: i32,
        /// In words: what, on which path, why.
        detail: String,
    },
}

/// What the daemon answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToInit {
    /// The child is in its cgroup.
    Continue,
    /// Execute the program.
    Go,
}

/// Encodes either side's message.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    // Serialising these types into a growing vector has no failing path in postcard.
    postcard::to_stdvec(message).unwrap_or_default()
}

/// Decodes either side's message.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, DecodeError> {
    if bytes.len() > MAX_MESSAGE {
        return Err(DecodeError::TooLong);
    }
    crate::spec::exact(bytes)
}
