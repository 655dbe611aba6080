//! The daemon's restart, perhaps as another version: `current` is pointed at it, and who keeps the daemon running starts it again.
//!
//! Containers do not notice (`berth-monitor` supervises them). Must not: end anything but the daemon that answers on node.sock.
use super::Host;
use super::enter_call::{entered, run};
use crate::facts::Daemon;
use crate::node::Trouble;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// The unit of a host install.
const UNIT: &str = "berth.service";
/// How long a service manager may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(90);
/// How long it may take until another daemon answers.
const LIMIT: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(250);

pub(super) async fn restart(host: &Host, version: &str) -> Result<(), Trouble> {
    let Some((former, _)) = host.sock.look().await else {
        return Err(Trouble::Later("the daemon does not answer, so it is not known which one to restart".to_owned()));
    };
    point(&prefix(host)?, version)?;
    if of_unit(former.pid) {
        let words = ["systemctl", "restart", UNIT].map(str::to_owned);
        let command = entered(host, &words).map_err(Trouble::Later)?;
        let ended = run(command, COMMAND_LIMIT).await.map_err(Trouble::Later)?;
        if ended.code != Some(0) {
            return Err(Trouble::Later(ended.said()));
        }
    } else {
        end(host, &former).await?;
    }
    let end = Instant::now() + LIMIT;
    while Instant::now() < end {
        if host.sock.look().await.is_some_and(|(daemon, _)| daemon.pid != former.pid) {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(Trouble::Later(format!("no daemon answers {} s after the restart", LIMIT.as_secs())))
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
    let mut names: Vec<String> = names.filter(|name| name != "current" && name != "previous").collect();
    names.sort();
    names
}

/// Whether systemd runs it: then only systemd may start another one.
fn of_unit(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|text| text.contains(UNIT))
}

/// Asks it to end; its supervisor starts the next one.
async fn end(host: &Host, daemon: &Daemon) -> Result<(), Trouble> {
    let later = |e: rustix::io::Errno| Trouble::Later(format!("process {}: {e}", daemon.pid));
    let Some(pid) = i32::try_from(daemon.pid).ok().and_then(Pid::from_raw) else {
        return Err(Trouble::Later("the daemon has no process id".to_owned()));
    };
    let process = pidfd_open(pid, PidfdFlags::empty()).map_err(later)?;
    // Whoever answers now is who the descriptor means.
    if host.sock.look().await.is_none_or(|(now, _)| now.pid != daemon.pid) {
        return Ok(());
    }
    pidfd_send_signal(&process, Signal::TERM).map_err(later)
}

#[cfg(test)]
mod tests {
    use super::*;

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
