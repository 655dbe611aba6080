//! What systemd says of a unit: asked of `systemctl show`, whose lines are `Name=value`.
//!
//! Owns: asking with a limit. Must not: change anything.
use crate::node_files::{self, MAX_FILE};
use berth_adopt::plan::{Carrier, CarrierKind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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

/// A property of a unit; empty where there is none.
fn property(unit: &str, name: &str) -> String {
    let mut command = Command::new("systemctl");
    command.args(["show", "--value", "-p", name, "--", unit]).stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output[..output.len().min(64 << 10)]).trim().to_owned()
}

/// Whether the unit has a file.
pub(super) fn is_known(unit: &str) -> bool {
    !property(unit, "FragmentPath").is_empty()
}

/// Files that the unit's command line comes from: the unit, its drop-ins, its environment files.
pub(super) fn carriers(unit: &str) -> Vec<Carrier> {
    let units = [property(unit, "FragmentPath"), property(unit, "DropInPaths")].join(" ");
    let units = units.split_whitespace().map(|path| (PathBuf::from(path), CarrierKind::Unit));
    // One a line: `PATH (ignore_errors=yes)`.
    let environment = property(unit, "EnvironmentFiles");
    let files = environment.lines().filter_map(|line| line.split_once(" (ignore_errors=").map(|(path, _)| path));
    let files = files.map(|path| (PathBuf::from(path), CarrierKind::Environment));
    units.chain(files.collect::<Vec<_>>()).filter_map(|(path, kind)| carrier(path, kind)).collect()
}

/// One file, if it is there.
pub(super) fn carrier(path: PathBuf, kind: CarrierKind) -> Option<Carrier> {
    let text = node_files::exact(&path, MAX_FILE).ok()?;
    Some(Carrier { path, text, kind })
}

#[cfg(test)]
mod tests {
    use super::*;

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
