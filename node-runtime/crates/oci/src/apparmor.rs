//! AppArmor on the node: which profiles the kernel has, and the runtime's default profile.
//!
//! Owns: the default profile's text, and loading profiles through `apparmor_parser(8)`, which is on the closed list of programs that
//! the daemon executes, under a time limit. Must not: decide which profile a container gets (`spec::confine`).
//!
//! The default profile denies what the peers' default profiles deny (containerd contrib/apparmor/template.go, moby
//! profiles/apparmor/template.go): mounts, writes to the kernel's knobs below /proc and /sys, signals to and traces of processes
//! with another label. It is a profile on top of capabilities, seccomp and masked paths, not in their place.
use crate::spec::DEFAULT_APPARMOR;
use berth_model::{Error, ErrorKind, Result};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;

/// The kernel's list: `name (mode)` a line (security/apparmor/apparmorfs.c).
const PROFILES: &str = "/sys/kernel/security/apparmor/profiles";
/// Where distributions have the parser.
const PARSERS: [&str; 2] = ["/usr/sbin/apparmor_parser", "/sbin/apparmor_parser"];
/// How long compiling and loading may take. A small node does it in a tenth of a second.
const LOAD_LIMIT: Duration = Duration::from_secs(20);
/// The set of features that the profile is written for; without it a parser of 4.0 mediates kinds of access that this profile
/// does not know, and denies them.
const ABI: &str = "/etc/apparmor.d/abi/3.0";
/// Most of the parser's complaint that is passed on, in bytes.
const MAX_COMPLAINT: usize = 1000;

/// Whether the kernel has a profile of this name, in any mode.
/// Errors: `FailedPrecondition` when the kernel's list cannot be read.
pub fn is_loaded(name: &str) -> Result<bool> {
    let list = std::fs::read_to_string(PROFILES).map_err(|e| {
        let problem =
            format!("{PROFILES}: {e}; AppArmor is enabled, so securityfs must be mounted on /sys/kernel/security");
        Error::new(ErrorKind::FailedPrecondition, problem)
    })?;
    Ok(lists(&list, name))
}

fn lists(list: &str, name: &str) -> bool {
    list.lines().any(|line| line.rsplit_once(" (").map_or(line, |(profile, _)| profile) == name)
}

/// Compiles the default profile and loads it, in the place of what has its name.
/// Errors: `FailedPrecondition` with the parser's words, or saying that there is none.
pub async fn load_default() -> Result<()> {
    let text = profile(own_label().as_deref(), Path::new(ABI).exists());
    parse(&LOAD, &text).await.map(drop).map_err(|e| cannot_load(DEFAULT_APPARMOR, &e))
}

/// The same with a profile of a document. The text must declare the profile of that name and no other but its children, or it could
/// replace profiles of the node.
/// Errors: `FailedPrecondition` with the parser's words, the names that the text declares, or saying that there is no parser.
pub async fn load(name: &str, text: &str) -> Result<()> {
    let declared = parse(&["--names"], text).await.map_err(|e| cannot_load(name, &e))?;
    if let Some(problem) = other_than(name, &declared) {
        return Err(cannot_load(name, &problem));
    }
    parse(&LOAD, text).await.map(drop).map_err(|e| cannot_load(name, &e))
}

const LOAD: [&str; 3] = ["--replace", "--skip-cache", "--quiet"];

/// Why the names that a text declares, one a line, are not those of one profile.
fn other_than(name: &str, declared: &str) -> Option<String> {
    let child = format!("{name}//");
    let names: Vec<&str> = declared.lines().map(str::trim).filter(|n| !n.is_empty()).collect();
    if !names.contains(&name) {
        return Some(format!("its text declares {names:?}, not {name:?}"));
    }
    let other = names.iter().find(|n| **n != name && !n.starts_with(&child))?;
    Some(format!("its text declares {other:?} as well; each profile needs an entry of its own"))
}

/// Runs the parser with a text, and gives what it says. Errors: why not, in words.
async fn parse(arguments: &[&str], text: &str) -> std::result::Result<String, String> {
    let parser = PARSERS.into_iter().find(|path| Path::new(path).exists());
    let parser = parser.ok_or("apparmor_parser is not installed; install the package apparmor")?;
    let mut command = tokio::process::Command::new(parser);
    command.args(arguments).env_clear().kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = async {
        let mut child = command.spawn()?;
        let stdin = child.stdin.take();
        let feed = async {
            if let Some(mut stdin) = stdin {
                // A parser that ends early says why on stderr.
                let _ = stdin.write_all(text.as_bytes()).await;
            }
        };
        let (output, ()) = tokio::join!(child.wait_with_output(), feed);
        output
    };
    let output = match tokio::time::timeout(LOAD_LIMIT, run).await {
        Ok(output) => output.map_err(|e| format!("{parser}: {e}"))?,
        Err(_) => return Err(format!("{parser} did not end within {} seconds", LOAD_LIMIT.as_secs())),
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr[..output.stderr.len().min(MAX_COMPLAINT)]).trim().to_owned();
    Err(format!("{parser} ended with {}: {complaint}", output.status))
}

fn cannot_load(name: &str, problem: &str) -> Error {
    Error::new(ErrorKind::FailedPrecondition, format!("AppArmor profile {name} cannot be loaded: {problem}"))
}

/// The daemon's own profile, if it is confined.
fn own_label() -> Option<String> {
    let files = ["/proc/self/attr/apparmor/current", "/proc/self/attr/current"];
    let label = files.iter().find_map(|file| std::fs::read_to_string(file).ok())?;
    let label = label.trim_end_matches(['\0', '\n']);
    let name = label.rsplit_once(" (").map_or(label, |(name, _)| name);
    (name != "unconfined" && name.chars().all(|c| c.is_ascii_graphic() && !"\"{}[]*?,".contains(c)))
        .then(|| name.to_owned())
}

/// Paths that may not be written: all of /proc but what belongs to processes and the System V limits in /proc/sys/kernel/shm*,
/// all of /sys but the control groups. One glob for each letter at which a name may part from the name that is allowed.
const NO_WRITES: [&str; 15] = [
    "/proc/*",
    "/proc/[^1-9s]*/**",
    "/proc/s[^y]*/**",
    "/proc/sy[^s]*/**",
    "/proc/sys?*/**",
    "/proc/sys/[^k]**",
    "/proc/sys/k[^e]**",
    "/proc/sys/kernel/[^s]**",
    "/proc/sys/kernel/s[^h]**",
    "/proc/sys/kernel/sh[^m]**",
    "/sys/[^f]*/**",
    "/sys/f[^s]*/**",
    "/sys/fs/[^c]*/**",
    "/sys/fs/c[^g]*/**",
    "/sys/fs/cg[^r]*/**",
];
/// Paths that may not be used at all.
const NOTHING: [&str; 7] = [
    "/proc/sysrq-trigger",
    "/proc/mem",
    "/proc/kmem",
    "/proc/kcore",
    "/sys/firmware/**",
    "/sys/devices/virtual/powercap/**",
    "/sys/kernel/security/**",
];

/// The profile's text. `daemon` is the label of the process that stops containers, where it has one.
fn profile(daemon: Option<&str>, abi: bool) -> String {
    let mut text = String::new();
    let mut line = |words: &str| {
        let _ = writeln!(text, "{words}");
    };
    if abi {
        line("abi <abi/3.0>,");
    }
    // Paths of an overlay in a mount namespace of its own do not lead to the node's root.
    line(&format!("profile {DEFAULT_APPARMOR} flags=(attach_disconnected,mediate_deleted) {{"));
    for rule in ["network", "capability", "file", "umount", "deny mount", "signal (receive) peer=unconfined"] {
        line(&format!("  {rule},"));
    }
    if let Some(daemon) = daemon {
        line(&format!("  signal (receive) peer=\"{daemon}\","));
    }
    line(&format!("  signal (send,receive) peer={DEFAULT_APPARMOR},"));
    line(&format!("  ptrace (trace,tracedby,read,readby) peer={DEFAULT_APPARMOR},"));
    for path in NO_WRITES {
        line(&format!("  deny {path} wl,"));
    }
    for path in NOTHING {
        line(&format!("  deny {path} rwklx,"));
    }
    line("}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_whole() {
        let list = "/usr/bin/man (enforce)\nberth-default (complain)\nmy profile (enforce)\n";
        assert!(lists(list, "berth-default") && lists(list, "/usr/bin/man") && lists(list, "my profile"));
        assert!(!lists(list, "berth") && !lists(list, "profile") && !lists(list, ""));
    }

    #[test]
    fn a_text_declares_one_profile_and_its_children() {
        assert_eq!(other_than("a", "a\n"), None);
        assert_eq!(other_than("a", "a\na//hat\n"), None);
        assert!(other_than("a", "b\n").unwrap().contains("not \"a\""));
        assert!(other_than("a", "").is_some());
        assert!(other_than("a", "a\nberth-default\n").unwrap().contains("berth-default"));
        assert!(other_than("a", "a\nab\n").is_some());
    }

    #[test]
    fn a_confined_daemon_is_named() {
        let text = profile(Some("/usr/bin/berth"), false);
        assert!(text.contains("peer=\"/usr/bin/berth\",") && text.starts_with("profile berth-default "));
        assert!(profile(None, true).starts_with("abi <abi/3.0>,\nprofile"));
    }
}
