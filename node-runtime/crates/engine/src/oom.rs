//! OOM kills that only the pod's group can still tell of.
//!
//! systemd removes a scope with its last process, and with the scope goes its count of OOM kills, at times before the monitor has
//! read it: most of all with `memory.oom.group`, where the kernel ends all processes at once. The group above, the pod's, stays
//! and counts what happened below it (`memory.events`, cgroup-v2.rst).
use crate::context::{Engine, blocking};
use crate::pod::Pod;
use berth_cgroups::CgroupPath;
use berth_model::{ContainerId, ExitReason, ExitStatus, PodConfig};
use berth_store::Sync;

/// Exit code of a process that was killed.
const KILLED: i32 = 137;

impl Engine {
    /// OOM kills in the pod's own group so far: of former sandboxes of the same pod too. 0 where it has none of its own.
    pub(crate) fn oom_kills_so_far(&self, pod: &PodConfig) -> u64 {
        if pod.cgroup_parent.is_empty() {
            return 0;
        }
        let any = self.cgroups.path(&pod.cgroup_parent, &self.paths.cgroup_parent, "any");
        let group = any.ok().filter(|path| path.scope().is_some()).and_then(|path| path.parent());
        group.and_then(|group| self.cgroups.oom_kills(&group).ok()).unwrap_or_default()
    }

    /// The status of a container that ended, with OOMKilled where its monitor came too late to see it: it was killed, and the
    /// pod's group counts kills that no end has accounted for yet.
    pub(crate) async fn with_kills_of_pod(&self, pod: &Pod, id: &ContainerId, status: ExitStatus) -> ExitStatus {
        let record = pod.record();
        let Some(group) = record.containers.get(id).and_then(|c| pods_group(&record.config, &c.cgroup)) else {
            return status;
        };
        let cgroups = self.cgroups.clone();
        let Ok(total) = blocking(move || cgroups.oom_kills(&group)).await else { return status };
        if total <= record.oom_kills {
            return status;
        }
        if let Err(e) = pod.update(Sync::Later, |r| r.oom_kills = total).await {
            tracing::warn!(pod = %pod.id, error = %e, "count of OOM kills is not recorded");
        }
        let unseen = status.code == KILLED && status.reason == ExitReason::Error;
        if unseen { ExitStatus { reason: ExitReason::OomKilled, ..status } } else { status }
    }
}

/// The group of the pod above a scope of its containers. Where the kubelet named none it is not one pod's alone.
fn pods_group(pod: &PodConfig, container: &CgroupPath) -> Option<CgroupPath> {
    if pod.cgroup_parent.is_empty() { None } else { container.scope().and_then(|_| container.parent()) }
}
