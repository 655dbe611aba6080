//! The daemon's own group, where no service manager gives it one: never among the pods' groups, nor above them.
//!
//! Owns: moving this process there and back. Must not: touch other processes.
use crate::files::Tree;
use crate::{CgroupPath, Cgroups, Driver};
use berth_model::{Result, ResultExt};
use rustix::process::getpid;

/// Where this process is now, and where it was in each hierarchy that it was moved in.
#[derive(Debug)]
pub struct Apart {
    leaf: CgroupPath,
    former: Vec<(usize, String)>,
}

impl Cgroups {
    /// Moves this process to `BASE/NAME` in each hierarchy where it is in a pod's group, or in one below which pods' groups are
    /// made: `pods` (the parent of pods that name none), or the root, where the kubelet makes its own. With the systemd driver
    /// the service has a group already. `None` when nothing had to be moved. Errors: a group cannot be made or joined.
    pub fn set_apart(&self, pods: &str, base: &str, name: &str) -> Result<Option<Apart>> {
        if self.driver() == Driver::Systemd {
            return Ok(None);
        }
        let own = format!("{base}/{name}");
        let former =
            self.own_groups()?.into_iter().filter_map(|(i, group)| former(group, pods, &own).map(|to| (i, to)));
        let former = former.collect::<Vec<_>>();
        if former.is_empty() {
            return Ok(None);
        }
        self.enter_leaf(base, name, former).map(Some)
    }

    /// Moves this process to `BASE/NAME` in every hierarchy, wherever it is: what ends the group that it was started in does not end it.
    /// Errors: a group cannot be made or joined.
    pub fn move_apart(&self, base: &str, name: &str) -> Result<Apart> {
        let former = self.own_groups()?;
        self.enter_leaf(base, name, former)
    }

    /// Where this process is, in each hierarchy.
    fn own_groups(&self) -> Result<Vec<(usize, String)>> {
        let path = "/proc/self/cgroup";
        let text = std::fs::read_to_string(path).context(|| path)?;
        let trees = self.trees_by_name();
        let groups = trees.iter().enumerate();
        Ok(groups.filter_map(|(i, (names, _))| Some((i, group_of(&text, names)?.to_owned()))).collect())
    }

    fn enter_leaf(&self, base: &str, name: &str, former: Vec<(usize, String)>) -> Result<Apart> {
        let leaf = self.own_leaf(base, name, &[])?;
        let trees = self.trees_by_name();
        for (i, _) in &former {
            enter(trees[*i].1, leaf.dir())?;
        }
        Ok(Apart { leaf, former })
    }

    /// Moves this process back, or to the root where its former group is gone, as that of a pod that has ended; and removes the group. Errors: it
    /// cannot be moved; another process is in the group.
    pub async fn rejoin(&self, apart: &Apart) -> Result<()> {
        for (i, group) in &apart.former {
            let tree = self.trees_by_name()[*i].1;
            enter(tree, group).or_else(|_| enter(tree, ""))?;
        }
        self.remove(&apart.leaf).await
    }

    /// Each tree with its controllers; none for v2.
    fn trees_by_name(&self) -> Vec<(&[String], &Tree)> {
        let v1 = self.inner.v1.iter().map(|h| (h.controllers.as_slice(), &h.tree));
        v1.chain(self.inner.v2.iter().map(|tree| (&[][..], tree))).collect()
    }
}

fn enter(tree: &Tree, dir: &str) -> Result<()> {
    let what = || format!("cannot move the daemon to {}", tree.path(dir).display());
    let pid = getpid().as_raw_nonzero().to_string();
    tree.group(dir).and_then(|group| group.write("cgroup.procs", &pid)).context(what)
}

/// The group in the hierarchy with one of these controllers (v2 with none), from the lines `ID:CONTROLLERS:/GROUP` of
/// proc_pid_cgroup(5); without its first slash.
fn group_of<'a>(text: &'a str, controllers: &[String]) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, names, group) = (parts.next()?, parts.next()?, parts.next()?);
        let found = match controllers {
            [] => names.is_empty(),
            some => names.split(',').any(|name| some.iter().any(|c| c == name)),
        };
        found.then(|| group.trim_start_matches('/'))
    })
}

/// Where a process goes back to that is in this group, if it has to leave it for its `own`. One that is there already was started by another one of
/// its kind, which is gone, and is the last one there.
fn former(group: String, pods: &str, own: &str) -> Option<String> {
    if group == own.trim_matches('/') {
        return Some(String::new());
    }
    is_amid(&group, pods).then_some(group)
}

/// In a pod's group, or in one below which there are pods' groups.
fn is_amid(group: &str, pods: &str) -> bool {
    let pods = pods.trim_matches('/');
    let above = pods == group || pods.strip_prefix(group).is_some_and(|rest| rest.starts_with('/'));
    let within = group.strip_prefix(pods).is_some_and(|rest| rest.starts_with('/'));
    group.is_empty() || above || within || group.split('/').any(|part| part.starts_with("kubepods"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_is_that_of_the_hierarchy() {
        let text = "9:name=systemd:/\n2:cpu,cpuacct:/a\n4:memory:/b/c\n0::/d\n";
        let own = |list: &[&str]| list.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>();
        assert_eq!(group_of(text, &own(&["memory"])), Some("b/c"));
        assert_eq!(group_of(text, &own(&["cpuacct"])), Some("a"));
        assert_eq!((group_of(text, &[]), group_of(text, &own(&["pids"]))), (Some("d"), None));
    }

    #[test]
    fn who_is_in_its_own_group_already_goes_back_to_the_root() {
        let to = |group: &str| former(group.to_owned(), "berth-1", "/berth-1-runtime/supervise");
        assert_eq!(to("berth-1-runtime/supervise").as_deref(), Some(""));
        assert_eq!(to("kubepods/podx").as_deref(), Some("kubepods/podx"));
        assert_eq!(to("system.slice/x.service"), None);
    }

    #[test]
    fn among_pods_is_the_root_their_parent_and_what_is_below() {
        for group in ["", "berth-1", "berth-1/ab", "kubepods/burstable/podx/y", "a/kubepods.slice"] {
            assert!(is_amid(group, "/berth-1"), "{group}");
        }
        assert!(is_amid("x", "x/y"));
        for group in ["system.slice/berth.service", "berth-1-runtime/daemon", "user", "berth"] {
            assert!(!is_amid(group, "berth-1"), "{group}");
        }
    }
}
