//! Which process the node's kubelet is. Must not: guess where there are several.
use std::path::Path;

/// How it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kubelet {
    /// It is the only one that can be seen outside of pods; the agent's pod shares the host's process ids.
    Only,
    /// The process whose id stands in this file.
    PidFile(std::path::PathBuf),
}

impl Kubelet {
    /// Its process id. Errors: there is none, or more than one, with the remedy.
    pub fn find(&self) -> Result<u32, String> {
        match self {
            Self::Only => only(&all(Path::new("/proc"))),
            Self::PidFile(path) => {
                let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
                let pid = text.trim().parse().map_err(|_| format!("{}: has no process id", path.display()))?;
                let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                if name.trim() != "kubelet" {
                    return Err(format!("{}: process {pid} is no kubelet", path.display()));
                }
                Ok(pid)
            }
        }
    }
}

/// When a process was started, in clock ticks since the boot (`starttime` of proc_pid_stat(5)).
pub(super) fn started(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind the name, which may have spaces and parentheses, comes the third field.
    text.rsplit_once(") ")?.1.split(' ').nth(22 - 3)?.parse().ok()
}

fn all(proc: &Path) -> Vec<u32> {
    let entries = std::fs::read_dir(proc).into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let named = |pid: &u32| std::fs::read_to_string(proc.join(pid.to_string()).join("comm")).unwrap_or_default();
    let found: Vec<u32> = pids.filter(|pid| named(pid).trim() == "kubelet").collect();
    // A name is anybody's: what a pod calls a kubelet is not the node's. Where the node itself is a pod's, they are all in one.
    let apart: Vec<u32> = found.iter().copied().filter(|pid| !is_in_a_pod(proc, *pid)).collect();
    if apart.is_empty() { found } else { apart }
}

/// Whether the kubelet has put the process into a pod's control group (`kubepods`, or `kubepods.slice` with systemd).
fn is_in_a_pod(proc: &Path, pid: u32) -> bool {
    let groups = std::fs::read_to_string(proc.join(pid.to_string()).join("cgroup")).unwrap_or_default();
    groups.lines().flat_map(|line| line.split('/')).any(|part| part == "kubepods" || part == "kubepods.slice")
}

fn only(found: &[u32]) -> Result<u32, String> {
    match found {
        [one] => Ok(*one),
        [] => Err("no process named kubelet can be seen: the agent's pod needs hostPID, or the kubelet does not run"
            .to_owned()),
        several => Err(format!("processes {several:?} are kubelets: --kubelet-pid-file says which one is this node's")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_younger_than_the_one_that_started_it() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let (own, its) = (started(std::process::id()).unwrap(), started(child.id()).unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(own > 0 && own <= its, "{own} {its}");
        assert_eq!(started(0), None);
    }

    #[test]
    fn the_only_one_is_taken_and_nothing_is_guessed() {
        let dir = tempfile::tempdir().unwrap();
        let process = |pid: &str, name: &str| {
            std::fs::create_dir(dir.path().join(pid)).unwrap();
            std::fs::write(dir.path().join(pid).join("comm"), format!("{name}\n")).unwrap();
        };
        process("1", "systemd");
        process("self", "kubelet");
        assert!(only(&all(dir.path())).unwrap_err().contains("hostPID"));
        process("42", "kubelet");
        assert_eq!(only(&all(dir.path())), Ok(42));
        let group = |pid: &str, path: &str| std::fs::write(dir.path().join(pid).join("cgroup"), path).unwrap();
        process("76", "kubelet");
        group("76", "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-1.scope\n");
        group("42", "4:cpu:/node/kubelet\n0::/system.slice/kubelet.service\n");
        assert_eq!(only(&all(dir.path())), Ok(42), "one of a pod is none");
        group("42", "0::/kubepods/burstable/pod2/a\n");
        assert!(only(&all(dir.path())).is_err(), "a node within a pod");
        group("42", "0::/system.slice/kubelet.service\n");
        process("77", "kubelet");
        assert!(only(&all(dir.path())).unwrap_err().contains("--kubelet-pid-file"));
    }
}
