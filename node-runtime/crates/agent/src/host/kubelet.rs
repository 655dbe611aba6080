//! Which process the node's kubelet is: its namespaces are entered, and a program in them is started with all rights. Must not: guess where there
//! are several, or take one of a pod by its name, which is anybody's.
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
    pids.filter(|pid| named(pid).trim() == "kubelet" && is_outside_of_pods(proc, *pid)).collect()
}

/// Whether no kubelet has put the process into a pod's control group. One whose groups cannot be read is ending.
fn is_outside_of_pods(proc: &Path, pid: u32) -> bool {
    let groups = std::fs::read_to_string(proc.join(pid.to_string()).join("cgroup")).unwrap_or_default();
    !groups.is_empty() && !groups.lines().flat_map(|line| line.split('/')).any(is_of_pods)
}

/// Whether a control group is one of those that kubelets make for pods: `kubepods` and, with systemd, `kubepods.slice` with all that is below it,
/// each of whose names has it too, behind the name of `cgroupRoot` where there is one. Names below are known by themselves: whoever has a control
/// group namespace of its own sees those of others from where they part (cgroup_namespaces(7)).
fn is_of_pods(group: &str) -> bool {
    let name = group.strip_suffix(".slice").unwrap_or(group);
    let uid = |text: &str| text.len() >= 32 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    name.split('-').any(|word| word == "kubepods")
        || ["burstable", "besteffort"].contains(&name)
        || name.strip_prefix("pod").is_some_and(uid)
}

fn only(found: &[u32]) -> Result<u32, String> {
    match found {
        [one] => Ok(*one),
        [] => Err("no process named kubelet can be seen outside of pods: the agent's pod needs hostPID, or the kubelet does not run; \
                   --kubelet-pid-file says which one it is on a node that is itself a pod"
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
            std::fs::write(dir.path().join(pid).join("cgroup"), "0::/system.slice/kubelet.service\n").unwrap();
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
        // The node's own is being started again: what pods call a kubelet is none meanwhile.
        std::fs::remove_dir_all(dir.path().join("42")).unwrap();
        let uid = "3f1e0c2a-7d5b-4a57-9d3e-0b6c1f2a9e88";
        for path in [
            "/kubepods.slice/kubepods-pod1.slice/cri-1.scope".to_owned(),
            "/kubepods/burstable/pod2/a".to_owned(),
            "/node.slice/node-kubepods.slice/node-kubepods-pod1.slice/cri-1.scope".to_owned(),
            "/../../kubepods-besteffort.slice/kubepods-besteffort-pod1.slice/cri-1.scope".to_owned(),
            "/../../../burstable/pod2/a".to_owned(),
            format!("/../../pod{uid}/a"),
        ] {
            group("76", &format!("0::{path}\n"));
            assert!(only(&all(dir.path())).unwrap_err().contains("--kubelet-pid-file"), "{path}");
        }
        group("76", "");
        assert!(only(&all(dir.path())).is_err(), "one that ends");
        process("42", "kubelet");
        group("76", "0::/system.slice/docker-1.scope/podman/kubelet\n");
        assert!(only(&all(dir.path())).is_err(), "two");
        group("76", "0::/kubepods/burstable/pod2/a\n");
        assert_eq!(only(&all(dir.path())), Ok(42));
        process("77", "kubelet");
        assert!(only(&all(dir.path())).unwrap_err().contains("--kubelet-pid-file"));
    }
}
