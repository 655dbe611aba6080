//! The daemon's restart, perhaps as another version: `current` is pointed at it, and who keeps the daemon running starts it again; and who keeps
//! it running, where that one was killed.
//!
//! Containers do not notice (`berth-monitor` supervises them). Must not: end anything but the daemon that answers on node.sock.
use super::Host;
use super::enter_call::{entered, run};
use crate::facts::Daemon;
use crate::node::Trouble;
use crate::stage::LINKS;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::Deserialize;
use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::time::Instant;

/// The unit of a host install.
const UNIT: &str = "berth.service";
/// How long a service manager may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(90);
/// How long it may take until another daemon answers.
const LIMIT: Duration = Duration::from_secs(90);
/// The same after systemd has said that the first start failed: the second one is a second later, with the settings of before.
const FAILED_LIMIT: Duration = Duration::from_secs(20);
/// So many ends of the daemon, and it does not stay up: the one that was asked for, and three starts.
const MAX_ENDS: u64 = 4;
const PAUSE: Duration = Duration::from_millis(250);
/// Longest status file of a supervisor, in bytes.
const MAX_STATUS: u64 = 64 << 10;

pub(super) async fn restart(host: &Host, version: &str) -> Result<(), Trouble> {
    let former = host.sock.look().await.map(|(daemon, _)| daemon);
    let before = Supervisor::read(&host.sock.path);
    point(&prefix(host)?, version)?;
    let failed = match (&former, &before) {
        (Some(daemon), _) if !of_unit(daemon.pid) => end(host, daemon).await.map(|()| None)?,
        // It may be pausing between two starts.
        (None, Some(supervisor)) => supervisor.wake().map(|()| None)?,
        _ => restart_unit(host).await?,
    };
    let limit = if failed.is_some() { FAILED_LIMIT } else { LIMIT };
    let began = Instant::now();
    while began.elapsed() < limit {
        let pid = host.sock.look().await.map(|(daemon, _)| daemon.pid);
        if pid.is_some() && pid != former.as_ref().map(|daemon| daemon.pid) {
            return Ok(());
        }
        if let (Some(before), Some(now)) = (&before, Supervisor::read(&host.sock.path))
            && now.ends.saturating_sub(before.ends) >= MAX_ENDS
        {
            return Err(Trouble::Refused(format!("the daemon does not stay up: {}", now.last_end)));
        }
        tokio::time::sleep(PAUSE).await;
    }
    match failed.filter(|_| former.is_some()) {
        Some(said) => Err(Trouble::Refused(format!("{UNIT} does not start: {said}"))),
        None => Err(Trouble::Later(format!("no daemon answers {} s after the restart", limit.as_secs()))),
    }
}

/// What systemd says where the first start fails.
async fn restart_unit(host: &Host) -> Result<Option<String>, Trouble> {
    // One that was started too often may be started again.
    let forget = entered(host, &["systemctl", "reset-failed", UNIT].map(str::to_owned)).map_err(Trouble::Later)?;
    let _ = run(forget, COMMAND_LIMIT).await;
    let command = entered(host, &["systemctl", "restart", UNIT].map(str::to_owned)).map_err(Trouble::Later)?;
    let ended = run(command, COMMAND_LIMIT).await.map_err(Trouble::Later)?;
    Ok((ended.code != Some(0)).then(|| ended.said()))
}

/// `berth supervise`, by its status file (docs/formats/supervisor.md).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Supervisor {
    supervisor: u32,
    ends: u64,
    #[serde(default, deserialize_with = "or_empty")]
    last_end: String,
}

fn or_empty<'de, D: serde::Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

impl Supervisor {
    /// The one whose daemon has that socket; `None`: there is none.
    fn read(socket: &Path) -> Option<Self> {
        let mut text = String::new();
        let file = fs::File::open(socket.with_file_name("supervise.json")).ok()?;
        file.take(MAX_STATUS).read_to_string(&mut text).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Whether it is still that process.
    fn lives(&self) -> bool {
        let words = fs::read(format!("/proc/{}/cmdline", self.supervisor)).unwrap_or_default();
        words.split(|byte| *byte == 0).any(|word| word == b"supervise")
    }

    /// Has it start the daemon now.
    fn wake(&self) -> Result<(), Trouble> {
        pidfd_send_signal(process(self.supervisor)?, Signal::HUP).map_err(|e| later(self.supervisor, e))
    }
}

fn later(pid: u32, e: rustix::io::Errno) -> Trouble {
    Trouble::Later(format!("process {pid}: {e}"))
}

fn process(pid: u32) -> Result<OwnedFd, Trouble> {
    let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Err(Trouble::Later(format!("{pid} is no process id")));
    };
    pidfd_open(number, PidfdFlags::empty()).map_err(|e| later(pid, e))
}

/// Whether the daemon's supervisor was killed: one that ends by itself takes its file along, and a boot does.
pub(super) fn is_unsupervised(socket: &Path) -> bool {
    Supervisor::read(socket).is_some_and(|known| !known.lives())
}

/// Starts a supervisor in the place of one that was killed, which takes the daemon over if it runs, and leaves the agent's control group by itself.
pub(super) async fn supervise(host: &Host) -> Result<(), Trouble> {
    let (program, root) = host.berth("current");
    let program = program.display().to_string();
    let own = ["supervise", "--followed", "--program"].map(str::to_owned);
    let words = root.into_iter().chain(own).chain([program.clone()]);
    let all: Vec<String> = [program.clone()].into_iter().chain(words).collect();
    let mut command = entered(host, &all).map_err(Trouble::Later)?;
    // Its words are in the daemon's log, also when nobody reads these any more.
    let mut child =
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().map_err(|e| Trouble::Later(e.to_string()))?;
    tokio::spawn(async move { child.wait().await });
    let began = Instant::now();
    while is_unsupervised(&host.sock.path) {
        if began.elapsed() > FAILED_LIMIT {
            return Err(Trouble::Later(format!(
                "no supervisor of the daemon runs {} s after its start",
                FAILED_LIMIT.as_secs()
            )));
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// Versions that the node can be switched to; none where there is no kubelet.
pub(super) fn staged(host: &Host) -> Vec<String> {
    prefix(host).map(|prefix| versions(&prefix)).unwrap_or_default()
}

/// The programs' directory as the kubelet's root has it.
fn prefix(host: &Host) -> Result<PathBuf, Trouble> {
    let kubelet = host.kubelet.find().map_err(Trouble::Later)?;
    let inside = host.prefix.strip_prefix("/").unwrap_or(&host.prefix);
    Ok(Path::new(&format!("/proc/{kubelet}/root")).join(inside))
}

/// Has `current` name a version, at once or not at all. Errors: it was not staged.
fn point(prefix: &Path, version: &str) -> Result<(), Trouble> {
    // It becomes a path.
    let word = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
    if version.is_empty() || version.starts_with('.') || !version.chars().all(word) {
        return Err(Trouble::Refused(format!("{version:?} is no version")));
    }
    if !prefix.join(version).join("berth").is_file() {
        let known = versions(prefix).join(", ");
        let message = format!(
            "version {version} is not staged on this node (there are: {known}): \
            the DaemonSet's image must be of that version or a newer one that stages it"
        );
        return Err(Trouble::Refused(message));
    }
    let (link, new) = (prefix.join("current"), prefix.join(".current.agent"));
    if fs::read_link(&link).is_ok_and(|now| now == Path::new(version)) {
        return Ok(());
    }
    let replace = |target: &Path, link: &Path| {
        let _ = fs::remove_file(&new);
        std::os::unix::fs::symlink(target, &new).and_then(|()| fs::rename(&new, link))
    };
    // The way back stays open: whoever removes old versions leaves that one.
    let former = fs::read_link(&link).ok().map_or(Ok(()), |former| replace(&former, &prefix.join("previous")));
    let pointed = former.and_then(|()| replace(Path::new(version), &link));
    let synced = pointed.and_then(|()| fs::File::open(prefix)?.sync_all());
    synced.map_err(|e| Trouble::Later(format!("{}: {e}", link.display())))
}

fn versions(prefix: &Path) -> Vec<String> {
    let entries = fs::read_dir(prefix).into_iter().flatten().flatten();
    let names =
        entries.filter(|e| e.path().join("berth").is_file()).map(|e| e.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| !LINKS.contains(&name.as_str())).collect();
    names.sort();
    names
}

/// Whether systemd runs it: then only systemd may start another one.
fn of_unit(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|text| text.contains(UNIT))
}

/// Asks it to end; its supervisor starts the next one.
async fn end(host: &Host, daemon: &Daemon) -> Result<(), Trouble> {
    let process = process(daemon.pid)?;
    // Whoever answers now is who the descriptor means.
    if host.sock.look().await.is_none_or(|(now, _)| now.pid != daemon.pid) {
        return Ok(());
    }
    pidfd_send_signal(&process, Signal::TERM).map_err(|e| later(daemon.pid, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_supervisor_is_read_as_it_writes() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("node.sock");
        assert!(Supervisor::read(&socket).is_none());
        let text =
            r#"{"supervisor": 7, "daemon": null, "starts": 3, "ends": 3, "since": "x", "lastEnd": "exit status: 1"}"#;
        fs::write(dir.path().join("supervise.json"), text).unwrap();
        let found = Supervisor::read(&socket).unwrap();
        assert_eq!((found.supervisor, found.ends, found.last_end.as_str()), (7, 3, "exit status: 1"));
        fs::write(dir.path().join("supervise.json"), r#"{"supervisor": 7, "ends": 0, "lastEnd": null}"#).unwrap();
        assert_eq!(Supervisor::read(&socket).unwrap().last_end, "");
    }

    #[test]
    fn a_supervisor_that_was_killed_is_missed_and_one_that_ended_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, file) = (dir.path().join("node.sock"), dir.path().join("supervise.json"));
        assert!(!is_unsupervised(&socket), "there is none");
        let known = |pid: u32| fs::write(&file, format!(r#"{{"supervisor": {pid}, "ends": 0}}"#)).unwrap();
        let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        known(other.id());
        assert!(is_unsupervised(&socket), "its number is another process's");
        other.kill().unwrap();
        other.wait().unwrap();
        let mut own = std::process::Command::new("sh");
        let mut own = own.args(["-c", "read line", "supervise"]).stdin(Stdio::piped()).spawn().unwrap();
        known(own.id());
        // Its words are there a moment after it.
        let end = Instant::now() + Duration::from_secs(20);
        while is_unsupervised(&socket) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
        let found = is_unsupervised(&socket);
        own.kill().unwrap();
        own.wait().unwrap();
        assert!(!found && is_unsupervised(&socket), "it lived, and was killed");
    }

    #[test]
    fn only_a_staged_version_becomes_the_current_one() {
        let dir = tempfile::tempdir().unwrap();
        for version in ["0.1.0", "0.2.0"] {
            fs::create_dir(dir.path().join(version)).unwrap();
            fs::write(dir.path().join(version).join("berth"), "").unwrap();
        }
        point(dir.path(), "0.1.0").unwrap();
        point(dir.path(), "0.2.0").unwrap();
        point(dir.path(), "0.2.0").unwrap();
        assert_eq!(fs::read_link(dir.path().join("current")).unwrap(), Path::new("0.2.0"));
        assert_eq!(fs::read_link(dir.path().join("previous")).unwrap(), Path::new("0.1.0"));
        match point(dir.path(), "0.3.0") {
            Err(Trouble::Refused(why)) => assert!(why.contains("there are: 0.1.0, 0.2.0"), "{why}"),
            other => panic!("{other:?}"),
        }
        for bad in ["", "../../etc", ".hidden", "a/b"] {
            assert!(matches!(point(dir.path(), bad), Err(Trouble::Refused(_))), "{bad}");
        }
        assert_eq!(fs::read_link(dir.path().join("current")).unwrap(), Path::new("0.2.0"));
    }
}
