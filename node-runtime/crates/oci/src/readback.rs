//! Reading back from the kernel what confines a process (design, principle 4): asked for is not yet applied.
//!
//! `/proc/PID/status` as in proc_pid_status(5): `Seccomp` 2 is a filter, `NoNewPrivs` 1 is set.
use crate::spec::{self, NodeFacts};
use berth_model::{Error, ErrorKind, Profile, Result, SecurityContext};
use serde::{Deserialize, Serialize};
use std::io;

/// What must hold after the program was executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    seccomp: bool,
    no_new_privs: bool,
    apparmor: Option<String>,
    selinux: Option<String>,
}

impl Expected {
    /// What a security context promises on this node; `selinux` is the label of the process.
    pub fn of(security: &SecurityContext, selinux: Option<String>, node: &NodeFacts) -> Result<Self> {
        Ok(Self {
            seccomp: !security.privileged && security.seccomp != Profile::Unconfined,
            no_new_privs: security.no_new_privs,
            apparmor: spec::apparmor(security, node)?,
            selinux,
        })
    }
}

/// Labels that were found on a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labels {
    /// AppArmor's, with its mode: `berth-default (enforce)`. None where AppArmor is off.
    pub apparmor: Option<String>,
    /// SELinux's. None where SELinux is off.
    #[serde(default)]
    pub selinux: Option<String>,
}

/// Compares, and gives the labels that were found. A process that has ended already proves nothing and is let pass: its exit
/// code tells. Errors: `Internal` naming what does not hold; the caller kills the container.
pub fn check(pid: u32, expected: &Expected) -> Result<Labels> {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { return Ok(Labels::default()) };
    let found = apparmor_label(pid);
    if field(&status, "State").is_some_and(|s| s.starts_with('Z')) || (found.is_err() && !exists(pid)) {
        return Ok(Labels::default());
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
    let selinux = selinux_label(pid);
    if let Some(label) = &expected.selinux
        && selinux.as_ref() != Some(label)
        && exists(pid)
    {
        return wrong(&format!("the SELinux label {label} (the process has {selinux:?})"));
    }
    match (&expected.apparmor, found) {
        (None, found) => Ok(Labels { apparmor: found.unwrap_or_default(), selinux }),
        (Some(name), Ok(Some(label))) if is_profile(&label, name) => Ok(Labels { apparmor: Some(label), selinux }),
        (Some(name), _) => wrong(&format!("the AppArmor profile {name}")),
    }
}

/// SELinux's label of a process; none where SELinux is off. It is first among the modules that have `attr/current`.
fn selinux_label(pid: u32) -> Option<String> {
    let text =
        crate::selinux::enabled().then(|| std::fs::read_to_string(format!("/proc/{pid}/attr/current")).ok())??;
    Some(text.trim_end_matches(['\0', '\n']).to_owned())
}

/// The label's profile is this one, or a child of it or a stack upon it (`name//child`, `name//&other`), which a process can
/// only have come to through it.
fn is_profile(label: &str, name: &str) -> bool {
    let profile = label.rsplit_once(" (").map_or(label, |(profile, _)| profile);
    profile.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("//"))
}

/// AppArmor's label of a process; none where AppArmor is off.
fn apparmor_label(pid: u32) -> io::Result<Option<String>> {
    if !apparmor_enabled() {
        return Ok(None);
    }
    let label = std::fs::read_to_string(format!("/proc/{pid}/attr/apparmor/current"))?;
    Ok(Some(label.trim_end_matches(['\0', '\n']).to_owned()))
}

/// Whether the kernel has AppArmor on (security/apparmor/lsm.c, parameter `enabled`).
pub(crate) fn apparmor_enabled() -> bool {
    std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'))
}

fn exists(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}/status")).exists()
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
        let free = Expected { seccomp: false, no_new_privs: false, apparmor: None, selinux: None };
        check(me, &free).unwrap();
        let promised = Expected { seccomp: true, ..free.clone() };
        assert!(check(me, &promised).unwrap_err().message().contains("seccomp"));
        let promised = Expected { apparmor: Some("berth-default".into()), ..free };
        assert!(check(me, &promised).unwrap_err().message().contains("AppArmor profile berth-default"));
    }

    #[test]
    fn a_label_is_its_profile_or_below_it() {
        assert!(is_profile("berth-default (enforce)", "berth-default") && is_profile("a//b (complain)", "a"));
        assert!(is_profile("a//&b (mixed)", "a") && !is_profile("ab (enforce)", "a"));
        assert!(!is_profile("unconfined", "berth-default"));
    }
}
