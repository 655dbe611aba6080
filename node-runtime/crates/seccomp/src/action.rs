//! What a filter answers for a system call.
use berth_model::{Error, Result};

/// `EPERM`: the answer of an errno action that names no errno.
const EPERM: u16 = 1;
/// `ENOSYS`.
pub(crate) const ENOSYS: u16 = 38;
/// Largest errno that the kernel returns (`MAX_ERRNO`, `include/linux/err.h`).
const MAX_ERRNO: u32 = 4095;

/// An action (`linux/seccomp.h`, `SECCOMP_RET_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Run it.
    Allow,
    /// Run it and log it.
    Log,
    /// Hand it to the tracer with this value; without a tracer it fails with `ENOSYS`.
    Trace(u16),
    /// Fail it with this errno.
    Errno(u16),
    /// Send `SIGSYS`.
    Trap,
    /// End the thread.
    KillThread,
    /// End the process.
    KillProcess,
}

impl Action {
    /// The value that a filter returns to the kernel.
    pub fn return_value(self) -> u32 {
        match self {
            Self::Allow => 0x7fff_0000,
            Self::Log => 0x7ffc_0000,
            Self::Trace(data) => 0x7ff0_0000 | u32::from(data),
            Self::Errno(errno) => 0x0005_0000 | u32::from(errno),
            Self::Trap => 0x0003_0000,
            Self::KillThread => 0,
            Self::KillProcess => 0x8000_0000,
        }
    }

    /// Lets a system call run, or may: a tracer is expected to answer for calls that it does not know.
    pub(crate) fn is_permissive(self) -> bool {
        matches!(self, Self::Allow | Self::Log | Self::Trace(_))
    }

    /// From a profile's `SCMP_ACT_*` and its errno. Errors name `field`: unknown action, the notify action, an errno out of
    /// range.
    pub(crate) fn parse(field: &str, name: &str, errno: Option<u32>) -> Result<Self> {
        let code = || match errno {
            None => Ok(EPERM),
            Some(code) if code <= MAX_ERRNO => u16::try_from(code).map_err(|e| Error::invalid(field, e)),
            Some(code) => {
                Err(Error::invalid(field, format_args!("errno {code} is above the kernel's largest, {MAX_ERRNO}")))
            }
        };
        match name {
            "SCMP_ACT_ALLOW" => Ok(Self::Allow),
            "SCMP_ACT_LOG" => Ok(Self::Log),
            "SCMP_ACT_TRACE" => Ok(Self::Trace(code()?)),
            "SCMP_ACT_ERRNO" => Ok(Self::Errno(code()?)),
            "SCMP_ACT_TRAP" => Ok(Self::Trap),
            // SCMP_ACT_KILL is libseccomp's older name of the thread's end.
            "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Ok(Self::KillThread),
            "SCMP_ACT_KILL_PROCESS" => Ok(Self::KillProcess),
            "SCMP_ACT_NOTIFY" => Err(Error::invalid(
                field,
                "SCMP_ACT_NOTIFY needs an agent that answers for the container, which this runtime does not offer; use another action",
            )),
            "" => Err(Error::invalid(field, "an action is needed, such as SCMP_ACT_ERRNO")),
            other => Err(Error::invalid(
                field,
                format_args!(
                    "{other:?} is not an action; use SCMP_ACT_ALLOW, _ERRNO, _KILL, _KILL_THREAD, _KILL_PROCESS, _TRAP, _TRACE or _LOG"
                ),
            )),
        }
    }
}
