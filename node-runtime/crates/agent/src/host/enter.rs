//! `berth-agent enter`: becomes a program of the host, in the namespaces of a process of the host. A process of its own, because only one
//! without further threads can change its mount namespace (setns(2)).
//!
//! Owns: the namespaces and the order. Must not: be called once threads exist.
use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a program of the host needs to see the node: the mount namespace comes last, since /proc of the pod names the others.
const NAMESPACES: [(&str, LinkNameSpaceType); 5] = [
    ("cgroup", LinkNameSpaceType::ControlGroup),
    ("ipc", LinkNameSpaceType::InterProcessCommunication),
    ("net", LinkNameSpaceType::Network),
    ("uts", LinkNameSpaceType::HostNameAndNISDomainName),
    ("mnt", LinkNameSpaceType::Mount),
];

/// What to become.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// The process whose namespaces are entered
    #[arg(long, value_name = "PID")]
    target: u32,
    /// The program on the host, and its words
    #[arg(required = true, last = true, value_name = "PROGRAM")]
    command: Vec<String>,
}

/// Becomes the program. Returns only what kept it from that.
pub fn become_program(options: &Options) -> String {
    match enter(options.target) {
        Ok(()) => {}
        Err(e) => return e,
    }
    let Some((program, words)) = options.command.split_first() else { return "no program is named".to_owned() };
    // The pod's own variables (its token's, its services') are nobody's business on the host.
    let mut command = Command::new(program);
    command.args(words).env_clear().current_dir("/");
    command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    format!("{program}: {}", command.exec())
}

fn enter(target: u32) -> Result<(), String> {
    let proc = PathBuf::from(format!("/proc/{target}/ns"));
    // A program of the host must see the processes that the host sees; only children could be moved there.
    let own = std::fs::read_link("/proc/self/ns/pid").map_err(|e| format!("/proc/self/ns/pid: {e}"))?;
    let theirs = std::fs::read_link(proc.join("pid")).map_err(|e| format!("{}: {e}", proc.join("pid").display()))?;
    if own != theirs {
        return Err(format!("process {target} has other process ids than this one: the agent's pod needs hostPID"));
    }
    let open = |path: &Path| -> Result<OwnedFd, String> {
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| format!("{}: {e}", path.display()))
    };
    // All are opened before the first is entered: afterwards /proc may be another one.
    let mut opened = Vec::new();
    for (name, kind) in NAMESPACES {
        opened.push((name, kind, open(&proc.join(name))?));
    }
    for (name, kind, fd) in opened {
        move_into_link_name_space(fd.as_fd(), Some(kind)).map_err(|e| format!("{name} namespace of {target}: {e}"))?;
    }
    Ok(())
}
