//! The daemon: its sockets, its process, its answers; and what lies in its directories.
use crate::commands::connect;
use crate::doctor::facts::{Answer, Daemon};
use crate::layout::Layout;
use crate::node_files::{processes, text};
use crate::serve::wire;
use berth_proto::node::{DiagnoseRequest, DiagnoseResponse, InfoRequest, InfoResponse};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How long the daemon may take to answer; a sound one takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn gather(layout: &Layout) -> Daemon {
    let flags = if layout.is_system() { String::new() } else { format!(" --root {}", layout.root.display()) };
    let mut daemon = Daemon {
        flags,
        socket: layout.cri_socket(),
        node_socket: layout.node_socket(),
        sockets: [layout.cri_socket(), layout.node_socket()].into_iter().filter_map(owner).collect(),
        ..Daemon::default()
    };
    let holder = match UnixStream::connect(layout.node_socket()).await {
        Ok(stream) => stream.peer_cred().ok().and_then(|cred| cred.pid()).and_then(|pid| u32::try_from(pid).ok()),
        Err(e) => {
            daemon.answer = unreachable(e.kind());
            daemon.documents = documents(layout);
            return daemon;
        }
    };
    daemon.process = holder.and_then(|pid| Some((pid, state(pid)?)));
    daemon.files = holder.and_then(files);
    let exe = holder.and_then(|pid| std::fs::metadata(format!("/proc/{pid}/exe")).ok());
    daemon.built = exe.and_then(|m| m.modified().ok()?.duration_since(UNIX_EPOCH).ok()).map(|d| d.as_secs());
    match timeout(PATIENCE, ask(layout)).await {
        Ok(Ok((info, told))) => {
            daemon.sockets.extend(info.further_cri_sockets.iter().map(PathBuf::from).filter_map(owner));
            (daemon.answer, daemon.info, daemon.told) = (Answer::Up, Some(info), told);
        }
        Ok(Err(problem)) => (daemon.answer, daemon.problem) = (Answer::Up, Some(problem)),
        Err(_) => {
            daemon.answer = Answer::Stuck;
            // What it does after all that time, not before.
            daemon.process = holder.and_then(|pid| Some((pid, state(pid)?)));
        }
    }
    if daemon.info.is_none() {
        daemon.documents = documents(layout);
    }
    daemon.old_monitors = holder.map_or(0, |pid| old_monitors(layout, pid));
    daemon
}

/// A socket with its owner and mode.
fn owner(path: PathBuf) -> Option<(PathBuf, u32, u32)> {
    let meta = std::fs::symlink_metadata(&path).ok()?;
    Some((path, meta.uid(), meta.mode() & 0o7777))
}

/// What it means that nobody takes a connection: a full queue, which is told at once, has somebody who does not empty it.
fn unreachable(why: ErrorKind) -> Answer {
    match why {
        ErrorKind::PermissionDenied => Answer::Forbidden,
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Answer::Stuck,
        _ => Answer::Down,
    }
}

/// Info, and what only a daemon of this version tells. Errors: what it says instead, which is an answer too.
async fn ask(layout: &Layout) -> Result<(InfoResponse, Option<DiagnoseResponse>), String> {
    let mut node = connect::node(layout).await.map_err(|e| format!("{e:#}"))?;
    let info = node.info(InfoRequest {}).await.map_err(|status| format!("{:#}", connect::said(status)))?.into_inner();
    let told = node.diagnose(DiagnoseRequest {}).await.ok().map(tonic::Response::into_inner);
    Ok((info, told))
}

/// Why the documents on disk cannot be taken, where the daemon cannot say so itself.
fn documents(layout: &Layout) -> Option<String> {
    berth_settings::load(&layout.etc, &wire::accepted(layout)).err().map(|e| e.to_string())
}

/// State of a process, as in proc_pid_stat(5).
fn state(pid: u32) -> Option<char> {
    text(format!("/proc/{pid}/stat"))?.rsplit_once(") ")?.1.chars().next()
}

/// Open descriptors of a process, and the limit.
fn files(pid: u32) -> Option<(u64, u64)> {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
    let limits = text(format!("/proc/{pid}/limits"))?;
    let line = limits.lines().find_map(|l| l.strip_prefix("Max open files"))?;
    Some((u64::try_from(open).ok()?, line.split_whitespace().next()?.parse().ok()?))
}

/// Monitors of this daemon whose program is not the one beside the daemon's, by its length: they run from memory files. A monitor's
/// current directory or arguments name its pod's runtime directory.
fn old_monitors(layout: &Layout, daemon: u32) -> u64 {
    let run = layout.run.display().to_string();
    let own = std::fs::read_link(format!("/proc/{daemon}/exe")).unwrap_or_default();
    let Ok(now) = std::fs::metadata(own.with_file_name("berth-monitor")) else { return 0 };
    let old = processes().into_iter().filter(|pid| {
        let name = text(format!("/proc/{pid}/comm")).unwrap_or_default();
        let other = std::fs::metadata(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.len() != now.len());
        name.trim() == "berth-monitor" && other && is_of(*pid, &run)
    });
    u64::try_from(old.count()).unwrap_or(u64::MAX)
}

fn is_of(pid: u32, run: &str) -> bool {
    let arguments = text(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let directory = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
    arguments.contains(run) || directory.starts_with(run)
}

/// Directories of pods that an answering daemon does not know.
pub(super) fn leftovers(daemon: &Daemon) -> Vec<String> {
    let Some(told) = &daemon.told else { return Vec::new() };
    let mut left = Vec::new();
    for directory in [&told.run_directory, &told.record_directory] {
        let entries = std::fs::read_dir(Path::new(directory)).into_iter().flatten().flatten();
        for entry in entries {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_pod = name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
            // Whoever was made since the daemon was asked is not left over.
            let fresh =
                entry.metadata().and_then(|m| m.modified()).is_ok_and(|t| t.elapsed().is_ok_and(|age| age < PATIENCE));
            if is_pod && !fresh && !told.pod_ids.contains(&name) {
                left.push(entry.path().display().to_string());
            }
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_take_connections_is_told_apart() {
        assert_eq!(unreachable(ErrorKind::NotFound), Answer::Down);
        assert_eq!(unreachable(ErrorKind::ConnectionRefused), Answer::Down);
        assert_eq!(unreachable(ErrorKind::PermissionDenied), Answer::Forbidden);
        assert_eq!(unreachable(ErrorKind::WouldBlock), Answer::Stuck);
    }
}
