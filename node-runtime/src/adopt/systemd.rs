//! What systemd says of a unit: asked of `systemctl show`, whose lines are `Name=value`.
//!
//! Owns: asking with a limit. Must not: change anything.
use crate::node_files::{self, MAX_FILE};
use anyhow::{Context, Result, bail};
use berth_adopt::plan::{Carrier, CarrierKind};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long it may think.
const LIMIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);
/// Most that is read of an answer, which is what a pipe holds: one that says more is not waited for.
const MAX_ANSWER: u64 = 64 << 10;

/// Whether systemd runs this node.
pub(super) fn is_here() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// The unit of systemd that a process runs in, from its control groups (proc_pid_cgroup(5)).
pub(super) fn unit_of(cgroups: &str) -> Option<String> {
    let group = cgroups
        .lines()
        .find_map(|line| line.strip_prefix("0::").or_else(|| line.split_once(":name=systemd:").map(|(_, g)| g)))?;
    let leaf = group.rsplit('/').find(|part| part.ends_with(".service"))?;
    Some(leaf.to_owned())
}

/// A property of a unit; empty where there is none. Errors: no answer within the limit.
async fn property(unit: &str, name: &str) -> Result<String> {
    let mut command = Command::new("systemctl");
    command.args(["show", "--value", "-p", name, "--", unit]);
    answer(command).await.with_context(|| format!("systemctl show -p {name} {unit}"))
}

async fn answer(mut command: Command) -> Result<String> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let end = Instant::now() + LIMIT;
    while child.try_wait()?.is_none() {
        if Instant::now() > end {
            let _ = child.kill();
            let _ = child.wait();
            bail!("no answer within {} s", LIMIT.as_secs());
        }
        tokio::time::sleep(PAUSE).await;
    }
    let mut said = Vec::new();
    if let Some(out) = child.stdout.take() {
        out.take(MAX_ANSWER).read_to_end(&mut said)?;
    }
    Ok(String::from_utf8_lossy(&said).trim().to_owned())
}

/// Whether the unit has a file, and whether it is started with the node.
pub(super) async fn is_known(unit: &str) -> Result<(bool, bool)> {
    let enabled = property(unit, "UnitFileState").await?;
    Ok((!property(unit, "FragmentPath").await?.is_empty(), enabled == "enabled"))
}

/// The process that the unit stands for; `None` where it has none.
pub(super) async fn main_process(unit: &str) -> Result<Option<u32>> {
    Ok(property(unit, "MainPID").await?.parse().ok().filter(|pid| *pid != 0))
}

/// Files that the unit's command line comes from: the unit, its drop-ins, its environment files.
pub(super) async fn carriers(unit: &str) -> Result<Vec<Carrier>> {
    let units = [property(unit, "FragmentPath").await?, property(unit, "DropInPaths").await?].join(" ");
    let units = units.split_whitespace().map(|path| (PathBuf::from(path), CarrierKind::Unit));
    // One a line: `PATH (ignore_errors=yes)`.
    let environment = property(unit, "EnvironmentFiles").await?;
    let files = environment.lines().filter_map(|line| line.split_once(" (ignore_errors=").map(|(path, _)| path));
    let files = files.map(|path| (PathBuf::from(path), CarrierKind::Environment));
    Ok(units.chain(files).filter_map(|(path, kind)| carrier(path, kind)).collect())
}

/// One file, if it is there.
pub(super) fn carrier(path: PathBuf, kind: CarrierKind) -> Option<Carrier> {
    let text = node_files::exact(&path, MAX_FILE).ok()?;
    Some(Carrier { path, text, kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_is_cut_and_none_is_not_waited_for() {
        let sh = |text: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", text]);
            command
        };
        assert_eq!(answer(sh("echo ' one'")).await.unwrap(), "one");
        let began = Instant::now();
        assert!(answer(sh("exec sleep 60")).await.is_err() && began.elapsed() < LIMIT * 3);
    }

    #[test]
    fn a_process_is_in_the_unit_that_its_groups_name() {
        let unit = |text| unit_of(text);
        assert_eq!(unit("0::/system.slice/kubelet.service\n").as_deref(), Some("kubelet.service"));
        assert_eq!(
            unit("4:memory:/x\n1:name=systemd:/system.slice/kubelet.service\n").as_deref(),
            Some("kubelet.service")
        );
        assert_eq!(unit("0::/user.slice/session-1.scope\n"), None);
        assert_eq!(unit("4:memory:/kubelet.service\n"), None);
    }
}
