//! The lock of a root: one daemon holds it. Another one says who does, or (`berth serve --replace`) asks it to hand over: it ends as by
//! SIGTERM, and pods, sessions and logs stay with their monitors.
//!
//! Must not: kill anybody. A daemon that does not end keeps its root.
use crate::layout::Layout;
use crate::node_files::{contents, text};
use crate::supervise;
use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How long the lock may outlive its daemon: a process that the daemon was starting when it was killed holds its descriptors
/// until it executes its own program.
const LOCK_LIMIT: Duration = Duration::from_secs(2);
/// How long a daemon that was asked to hand over may take: calls under way get five seconds (`sockets`), figures and sockets moments.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(30);
const LOCK_RETRY: Duration = Duration::from_millis(10);
/// Most that is read of the kernel's list of locks, and of a process's environment.
const MAX_LIST: u64 = 4 << 20;
const SIGTERM: i32 = 15;

/// Makes the root's directories and takes the lock. The lock goes with the process, however it ends.
/// Errors: another daemon has it, and was not to be replaced, may not be, or did not end.
pub fn take(layout: &Layout, replace: bool) -> Result<File> {
    for dir in [&layout.lib, &layout.run] {
        std::fs::create_dir_all(dir).with_context(|| format!("directory {}", dir.display()))?;
        std::fs::set_permissions(dir, PermissionsExt::from_mode(0o711))
            .with_context(|| format!("directory {}", dir.display()))?;
    }
    let path = layout.lib.join("lock");
    let file = File::create(&path).with_context(|| format!("lock {}", path.display()))?;
    if wait(&file, LOCK_LIMIT) {
        return Ok(file);
    }
    let holder = holder(layout, &file);
    if !replace {
        let who = holder.map(|pid| format!(" (process {pid})")).unwrap_or_default();
        bail!(
            "another daemon{who} runs with root {}; stop it, replace it by `berth serve --replace`, or use --root with \
             another directory",
            layout.root.display()
        );
    }
    let pid =
        holder.with_context(|| format!("who holds {} cannot be told; stop the daemon yourself", path.display()))?;
    ask(layout, &file, pid)?;
    if wait(&file, HAND_OVER_LIMIT) {
        tracing::info!(pid, "the daemon that ran before has handed over");
        return Ok(file);
    }
    bail!(
        "the daemon (process {pid}) was asked to hand over and has not ended after {} s; it was not killed, and keeps root {}",
        HAND_OVER_LIMIT.as_secs(),
        layout.root.display()
    )
}

/// Whether the lock was had within that time.
fn wait(file: &File, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while flock(file, FlockOperation::NonBlockingLockExclusive).is_err() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(LOCK_RETRY);
    }
    true
}

/// Has the daemon end. Errors: somebody would start it again at once.
fn ask(layout: &Layout, file: &File, pid: u32) -> Result<()> {
    if let Some(keeper) = keeper(layout, pid) {
        bail!("{keeper}");
    }
    let Ok(process) = berth_sys::pidfd::open(pid) else { return Ok(()) };
    // Whoever holds the lock now is who the descriptor means.
    if holder(layout, file) == Some(pid) {
        tracing::info!(pid, "the daemon that runs is asked to hand over");
        berth_sys::pidfd::signal(process.as_fd(), SIGTERM).with_context(|| format!("process {pid}"))?;
    }
    Ok(())
}

/// Who would start that daemon again, as a sentence with the remedy.
fn keeper(layout: &Layout, pid: u32) -> Option<String> {
    let environment = contents(format!("/proc/{pid}/environ"), MAX_LIST).unwrap_or_default();
    // systemd.exec(5): set for the service's own process alone; what that process starts has another number.
    let ours = format!("SYSTEMD_EXEC_PID={pid}");
    if environment.split('\0').any(|entry| entry == ours) {
        let groups = text(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let unit =
            groups.split(['/', '\n']).find(|part| part.ends_with(".service")).unwrap_or("berth.service").to_owned();
        return Some(format!(
            "the daemon (process {pid}) is systemd's, which would start it again: systemctl restart {unit} replaces it by the \
             program that is installed"
        ));
    }
    let supervisor = supervise::holder(layout)?;
    let own = std::os::unix::process::parent_id() == supervisor;
    (!own).then(|| {
        format!(
            "the daemon (process {pid}) is kept by `berth supervise` (process {supervisor}), which would start it again: \
             kill -HUP {supervisor} replaces it by the program that is installed"
        )
    })
}

/// The process that holds the lock: as the daemon's socket says, else as the kernel lists its locks (proc_locks(5)).
fn holder(layout: &Layout, file: &File) -> Option<u32> {
    let serving = UnixStream::connect(layout.node_socket()).ok();
    let peer = serving.and_then(|stream| rustix::net::sockopt::socket_peercred(&stream).ok());
    if let Some(peer) = peer {
        return u32::try_from(peer.pid.as_raw_nonzero().get()).ok();
    }
    let inode = file.metadata().ok()?.ino();
    listed(&contents("/proc/locks", MAX_LIST).ok()?, inode)
}

/// The holder of the flock on an inode: `1: FLOCK  ADVISORY  WRITE 812 fe:00:1234 0 EOF`. Process 0 is one of another PID namespace.
fn listed(locks: &str, inode: u64) -> Option<u32> {
    let suffix = format!(":{inode}");
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, _, pid, place, ..] = words.as_slice() else { return None };
        pid.parse().ok().filter(|pid| *pid > 0 && place.ends_with(&suffix))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_list_names_the_holder() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(Some(dir.path())).unwrap();
        let held = take(&layout, false).unwrap();
        let other = File::open(layout.lib.join("lock")).unwrap();
        assert_eq!(holder(&layout, &other), Some(std::process::id()));
        let inode = held.metadata().unwrap().ino();
        let line = format!("3: FLOCK  ADVISORY  WRITE 812 fe:00:{inode} 0 EOF");
        assert_eq!(listed(&line, inode), Some(812));
        for other in
            [line.replace("812", "0"), line.replace("FLOCK", "POSIX"), line.replace(":00:", ":00:1"), "3:".into()]
        {
            assert_eq!(listed(&other, inode), None, "{other}");
        }
        let refused = take(&layout, false).unwrap_err().to_string();
        let own = format!("process {}", std::process::id());
        assert!(refused.contains(&own) && refused.contains("--replace") && refused.contains("--root"), "{refused}");
    }
}
