//! Reading back from the kernel what confines a process (design, principle 4): asked for is not yet applied.
//!
//! `/proc/PID/status` as in proc_pid_status(5): `Seccomp` 2 is a filter, `NoNewPrivs` 1 is set.
use berth_model::{Error, ErrorKind, Profile, Result, SecurityContext};

/// What must hold after the program was executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    seccomp: bool,
    no_new_privs: bool,
}

impl Expected {
    /// What a security context promises.
    pub fn of(security: &SecurityContext) -> Self {
        Self {
            seccomp: !security.privileged && security.seccomp != Profile::Unconfined,
            no_new_privs: security.no_new_privs,
        }
    }
}

/// Compares. A process that has ended already proves nothing and is let pass: its exit code tells.
/// Errors: `Internal` naming what does not hold; the caller kills the container.
pub fn check(pid: u32, expected: &Expected) -> Result<()> {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { return Ok(()) };
    if field(&status, "State").is_some_and(|s| s.starts_with('Z')) {
        return Ok(());
    }
    let wrong = |what: &str| {
        Err(Error::new(
            ErrorKind::Internal,
            format!("{what} is not in force after the start; the container was killed"),
        ))
    };
    if expected.seccomp && field(&status, "Seccomp") != Some("2") {
        return wrong("the seccomp filter");
    }
    if expected.no_new_privs && field(&status, "NoNewPrivs") != Some("1") {
        return wrong("no_new_privs");
    }
    if field(&status, "CapInh") != field(&status, "CapAmb") {
        return wrong("an empty set of inheritable capabilities");
    }
    Ok(())
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unconfined_process_does_not_pass_for_a_confined_one() {
        let me = std::process::id();
        let free = Expected { seccomp: false, no_new_privs: false };
        assert_eq!(check(me, &free), Ok(()));
        let promised = Expected { seccomp: true, no_new_privs: false };
        assert!(check(me, &promised).unwrap_err().message().contains("seccomp"));
    }
}
