//! What others need to use a group: how a process gets in, what is mounted in the container, descriptors for the monitor.
use crate::files::{failed, is_gone};
use crate::{CgroupPath, Cgroups, Driver, Layout};
use berth_model::{Error, Result, ResultExt};
use berth_monitor_api::spec::{CgroupJoin, MountKind};
use rustix::fs::OFlags;
use std::os::fd::OwnedFd;

impl Cgroups {
    /// How a container's first process joins its group.
    pub fn join(&self, path: &CgroupPath) -> CgroupJoin {
        if path.unit().is_some() { CgroupJoin::Moved } else { self.own_join(path.dir(), path.dir()) }
    }

    /// How a command joins the group of a running container, with either driver. Where the container has divided its own group
    /// (v2 allows no process beside sub-groups with controllers), it is the group that its first process is in, if that is at
    /// or below the container's.
    pub fn join_exec(&self, path: &CgroupPath, first_process: u32) -> Result<CgroupJoin> {
        let divided = self.inner.v2.as_ref().and_then(|tree| tree.group(path.dir()).ok()).is_some_and(|group| {
            group.read("cgroup.subtree_control").is_ok_and(|controllers| !controllers.trim().is_empty())
        });
        if !divided {
            return Ok(self.own_join(path.dir(), path.dir()));
        }
        let group = v2_group_of(&first_process.to_string())?;
        let group = group.trim_start_matches('/');
        if group == path.dir() || group.strip_prefix(path.dir()).is_some_and(|rest| rest.starts_with('/')) {
            return Ok(self.own_join(path.dir(), group));
        }
        Err(Error::internal(format!("process {first_process} is in cgroup /{group}, outside its container's {path}")))
    }

    fn own_join(&self, v1: &str, v2: &str) -> CgroupJoin {
        CgroupJoin::Own {
            v2: self.inner.v2.as_ref().map(|tree| tree.path(v2)),
            v1_tasks: self.inner.v1.iter().map(|h| h.tree.path(v1).join("tasks")).collect(),
        }
    }

    /// What the container sees at /sys/fs/cgroup.
    ///
    /// v2: its own group below a cgroup namespace; without one (privileged) the host's tree, so that its contents agree with
    /// /proc/self/cgroup. v1 and hybrid: its own directory per hierarchy.
    pub fn container_mount(&self, path: &CgroupPath, private_namespace: bool, readonly: bool) -> MountKind {
        let mut v1 = Vec::new();
        let mut v1_links = Vec::new();
        for hierarchy in &self.inner.v1 {
            let Some(name) = hierarchy.tree.root().file_name().map(|n| n.to_string_lossy().into_owned()) else {
                continue;
            };
            let merged = hierarchy.controllers.iter().filter(|c| **c != name && !c.starts_with("name="));
            v1_links.extend(merged.map(|c| (c.clone(), name.clone())));
            v1.push((name, hierarchy.tree.path(path.dir())));
        }
        let v2_bind = match (&self.inner.v2, self.layout()) {
            (Some(_), Layout::V2) if private_namespace => None,
            (Some(tree), Layout::V2) => Some(tree.root().to_owned()),
            (Some(tree), _) => Some(tree.path(path.dir())),
            (None, _) => None,
        };
        MountKind::Cgroup { readonly, v1, v1_links, v2_bind }
    }

    /// The file whose `oom_kill` line counts the group's OOM kills, open for reading: `memory.events`, or `memory.oom_control`
    /// on v1. It stays readable while the group exists. `None` without the memory controller.
    pub fn oom_fd(&self, path: &CgroupPath) -> Result<Option<OwnedFd>> {
        let file = self.oom_file();
        let view = self.view(path)?;
        let Some(group) = view.group("memory") else { return Ok(None) };
        match group.open_file(file, OFlags::RDONLY) {
            Err(e) if is_gone(&e) => Ok(None),
            result => result.map(Some).map_err(|e| failed(format!("{file} of {path}"), e)),
        }
    }

    /// `cgroup.kill` of the group, open for writing. `None` without a v2 tree.
    pub fn kill_fd(&self, path: &CgroupPath) -> Result<Option<OwnedFd>> {
        let view = self.view(path)?;
        let Some(group) = &view.v2 else { return Ok(None) };
        match group.open_file("cgroup.kill", OFlags::WRONLY) {
            Err(e) if is_gone(&e) => Ok(None),
            result => result.map(Some).map_err(|e| failed(format!("cgroup.kill of {path}"), e)),
        }
    }

    /// OOM kills in the group so far: on v2 with all groups below. 0 without the memory controller.
    pub fn oom_kills(&self, path: &CgroupPath) -> Result<u64> {
        let view = self.view(path)?;
        let text = view.read("memory", self.oom_file()).unwrap_or_default();
        Ok(crate::usage::field(&text, "oom_kill").unwrap_or_default())
    }

    fn oom_file(&self) -> &'static str {
        if self.layout() == Layout::V2 { "memory.events" } else { "memory.oom_control" }
    }

    /// Has systemd move a paused process into a new scope, and sets its limits and device rules. The process must not run
    /// before this returns.
    ///
    /// Errors: `Unavailable` if systemd does not answer, `DeadlineExceeded` after 30 s; then the caller ends the process and
    /// calls [`Cgroups::remove`].
    pub async fn start_scope(
        &self,
        path: &CgroupPath,
        pid: u32,
        resources: &berth_model::Resources,
        devices: &crate::DevicePolicy,
    ) -> Result<()> {
        let resources = crate::check::checked(resources)?;
        let (Some(unit), Driver::Systemd) = (path.unit(), self.driver()) else {
            return Err(Error::internal(format!("cgroup {path} is not a systemd scope")));
        };
        self.inner.systemd.start_scope(unit, pid, &resources).await?;
        let actual = v2_group_of(&pid.to_string())?;
        if actual.trim_start_matches('/') != path.dir() {
            return Err(Error::internal(format!("systemd put process {pid} into cgroup {actual}, not into {path}")));
        }
        self.fill(path, &resources, devices)
    }
}

/// The group of a process in the v2 tree, from /proc/PID/cgroup.
pub(crate) fn v2_group_of(pid: &str) -> Result<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).context(|| format!("/proc/{pid}/cgroup"))?;
    let group = text.lines().find_map(|line| line.strip_prefix("0::"));
    group.map(str::to_owned).ok_or_else(|| Error::internal(format!("process {pid} is in no cgroup v2 group")))
}
