//! OOM kills that only the pod's group, or the kernel's log, can still tell of.
//!
//! systemd removes a scope with its last process, and with the scope goes its count of OOM kills, at times before the monitor has
//! read it: most of all with `memory.oom.group`, where the kernel ends all processes at once. The group above, the pod's, stays
//! and counts what happened below it (`memory.events`, cgroup-v2.rst). What groups that are still there count themselves is not
//! the ended one's. Where several were removed at once, or the pod has no group of its own, the kernel's log says which processes
//! it has killed; it is asked last, as it may be closed to us or written over.
use crate::context::{Engine, blocking};
use crate::pod::Pod;
use crate::record::{ContainerRecord, Life, PodRecord};
use berth_cgroups::{CgroupPath, Cgroups, Driver};
use berth_model::{ContainerId, ExitReason, ExitStatus, PodConfig, Result, UnixNanos};
use berth_store::Sync;
use std::collections::BTreeMap;
use std::time::Duration;

/// Exit code of a process that was killed.
const KILLED: i32 = 137;
/// How often counts that change while they are read are read again.
const LOOKS: usize = 4;
/// The kernel kills first and logs then: how long its words may take to come.
const LOG_DELAYS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(20), Duration::from_millis(100)];

/// What the kernel's files say when a container has ended.
struct Counts {
    /// Kills in the pod's group and below.
    pod: u64,
    /// Kills of each other container that has not ended by our records; `None` where its group is gone.
    others: BTreeMap<ContainerId, Option<u64>>,
}

/// OOM kills of a pod since the daemon began. Its monitor tells them with the ends of containers, and its group counts those too, besides
/// others that no monitor saw: the larger of the two sums is how many there were.
#[derive(Debug, Default)]
pub(crate) struct Kills {
    told: u64,
    found: u64,
    counted: u64,
}

impl Kills {
    /// The monitor told of some. Gives how many were not counted yet.
    pub(crate) fn tell(&mut self, kills: u64) -> u64 {
        self.told += kills;
        self.count()
    }

    /// The pod's group has some more than the records account for. Gives how many were not counted yet.
    fn find(&mut self, kills: u64) -> u64 {
        self.found += kills;
        self.count()
    }

    fn count(&mut self) -> u64 {
        let all = self.told.max(self.found);
        let new = all - self.counted;
        self.counted = all;
        new
    }
}

impl Engine {
    /// OOM kills in the pod's own group so far: of former sandboxes of the same pod too. 0 where it has none of its own.
    pub(crate) fn oom_kills_so_far(&self, pod: &PodConfig) -> u64 {
        let group = pods_group(&self.cgroups, pod);
        group.and_then(|group| self.cgroups.oom_kills(&group).ok()).unwrap_or_default()
    }

    /// The status of a container that ended, with OOMKilled where its monitor came too late to see it: it was killed, and the
    /// pod's group counts kills that are nobody else's, or the kernel's log names its process.
    pub(crate) async fn with_missed_kills(&self, pod: &Pod, id: &ContainerId, status: ExitStatus) -> ExitStatus {
        let container = pod.container(id).ok().filter(|container| container.exit().is_none());
        let status = self.with_kills_of_pod(pod, id, status).await;
        let doubtful = status.code == KILLED && status.reason == ExitReason::Error && !pod.was_signalled(id);
        let Some((pid, started_at)) = container.and_then(|c| Some((c.pid()?, c.started_at()))).filter(|_| doubtful)
        else {
            return status;
        };
        if !killed_by_the_log(pid, started_at, status.finished_at).await {
            return status;
        }
        tracing::info!(pod = %pod.id, container = %id, "an OOM kill is known from the kernel's log alone");
        if pods_group(&self.cgroups, &pod.record().config).is_none() {
            self.metrics.node().oom_kills(pod.kills().tell(1));
        }
        ExitStatus { reason: ExitReason::OomKilled, message: String::new(), ..status }
    }

    async fn with_kills_of_pod(&self, pod: &Pod, id: &ContainerId, status: ExitStatus) -> ExitStatus {
        let record = pod.record();
        let known = record.containers.get(id).is_some_and(|c| c.exit().is_none());
        let Some(group) = pods_group(&self.cgroups, &record.config).filter(|_| known) else { return status };
        let (cgroups, groups) = (self.cgroups.clone(), others(&record, id));
        let Ok(counts) = blocking(move || count(&cgroups, &group, &groups)).await else { return status };
        let unaccounted = counts.unaccounted(record.oom_kills);
        if unaccounted == 0 {
            return status;
        }
        self.metrics.node().oom_kills(pod.kills().find(unaccounted));
        let rivals = self.killed_at_once(pod, &counts).await;
        if let Err(e) = pod.update(Sync::Later, |r| r.oom_kills += unaccounted).await {
            tracing::warn!(pod = %pod.id, error = %e, "count of OOM kills is not recorded");
        }
        with_kills(status, &rivals)
    }

    /// Containers that were killed too, that nobody has recorded yet, and whose counts are gone as well: the kills may be theirs.
    async fn killed_at_once(&self, pod: &Pod, counts: &Counts) -> Vec<ContainerId> {
        let gone: Vec<_> =
            counts.others.iter().filter(|(_, count)| count.is_none()).map(|(id, _)| id.clone()).collect();
        if gone.is_empty() {
            return gone;
        }
        let tasks = match pod.monitor() {
            Ok(monitor) => monitor.list().await.unwrap_or_default(),
            Err(_) => Vec::new(),
        };
        let record = pod.record();
        let is_rival =
            |id: &ContainerId| match tasks.iter().find(|task| task.id == id.as_str()).and_then(|task| task.exit) {
                // One that did not die by SIGKILL, or whose own count was read in time, is none.
                Some(exit) => exit.signaled && exit.code == KILLED && exit.oom_kills == 0,
                // Its group is gone, so it is about to be told. One that starts may not have had a group yet.
                None => record.containers.get(id).is_some_and(|c| matches!(c.life, Life::Running { .. })),
            };
        gone.into_iter().filter(is_rival).collect()
    }
}

/// Whether the kernel's log names the process among those that it has killed for want of memory.
async fn killed_by_the_log(pid: u32, started_at: UnixNanos, ended_at: UnixNanos) -> bool {
    for delay in LOG_DELAYS {
        tokio::time::sleep(delay).await;
        match blocking(move || berth_cgroups::oom_killed(pid, started_at, ended_at)).await {
            Ok(false) => {}
            Ok(true) => return true,
            Err(e) => {
                tracing::debug!(error = %e, "whether a process was killed for want of memory is not known");
                return false;
            }
        }
    }
    false
}

fn with_kills(status: ExitStatus, rivals: &[ContainerId]) -> ExitStatus {
    if status.code != KILLED || status.reason != ExitReason::Error {
        return status;
    }
    if rivals.is_empty() {
        return ExitStatus { reason: ExitReason::OomKilled, ..status };
    }
    let names: Vec<&str> = rivals.iter().map(ContainerId::as_str).collect();
    let message = format!(
        "killed at the same time as {}, when the pod ran out of memory; whose memory it was is not known",
        names.join(", ")
    );
    ExitStatus { message, ..status }
}

impl Counts {
    /// Kills of the pod that neither ended containers nor living ones account for.
    fn unaccounted(&self, accounted: u64) -> u64 {
        let living: u64 = self.others.values().flatten().sum();
        self.pod.saturating_sub(accounted).saturating_sub(living)
    }
}

/// Reads all of them so that they belong together.
fn count(cgroups: &Cgroups, pod: &CgroupPath, others: &[(ContainerId, CgroupPath)]) -> Result<Counts> {
    let look =
        || others.iter().map(|(id, group)| (id.clone(), cgroups.oom_kills(group).ok())).collect::<BTreeMap<_, _>>();
    let mut before = look();
    for _ in 1..LOOKS {
        let (total, after) = (cgroups.oom_kills(pod)?, look());
        if before == after {
            return Ok(Counts { pod: total, others: after });
        }
        before = after;
    }
    // Kills go on all the time: those that are counted twice are nobody's.
    Ok(Counts { pod: cgroups.oom_kills(pod)?, others: look() })
}

/// Containers that may have counts of their own, besides this one.
fn others(record: &PodRecord, id: &ContainerId) -> Vec<(ContainerId, CgroupPath)> {
    let may = |container: &ContainerRecord| matches!(container.life, Life::Running { .. } | Life::Starting);
    let others = record.containers.iter().filter(|(other, container)| *other != id && may(container));
    others.map(|(other, container)| (other.clone(), container.cgroup.clone())).collect()
}

/// The group of the pod above the scopes of its containers. Where the kubelet named none it is not one pod's alone, and groups
/// of the other driver stay until we remove them.
fn pods_group(cgroups: &Cgroups, pod: &PodConfig) -> Option<CgroupPath> {
    if pod.cgroup_parent.is_empty() || cgroups.driver() != Driver::Systemd {
        return None;
    }
    cgroups.parent(&pod.cgroup_parent).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(letter: char) -> ContainerId {
        ContainerId::parse(&letter.to_string().repeat(64)).unwrap()
    }

    fn killed() -> ExitStatus {
        ExitStatus { code: KILLED, finished_at: 1, reason: ExitReason::Error, message: String::new() }
    }

    #[test]
    fn kills_of_the_living_are_theirs() {
        let counts = |pod, living: Option<u64>| Counts { pod, others: [(id('a'), living)].into() };
        assert_eq!(counts(3, Some(3)).unaccounted(0), 0, "a child of another container was killed");
        assert_eq!(counts(4, Some(3)).unaccounted(0), 1);
        assert_eq!(counts(4, Some(0)).unaccounted(4), 0, "all were told before");
        assert_eq!(counts(1, Some(3)).unaccounted(2), 0);
        assert_eq!(counts(2, None).unaccounted(0), 2);
    }

    #[test]
    fn each_kill_is_counted_once() {
        let mut kills = Kills::default();
        assert_eq!((kills.tell(3), kills.find(3)), (3, 0), "the group counts what the monitor told");
        assert_eq!((kills.tell(0), kills.find(2)), (0, 2), "the monitor came too late");
        assert_eq!((kills.find(2), kills.tell(1), kills.tell(1)), (2, 0, 0), "two at once, found with the first");
        let mut without_group = Kills::default();
        assert_eq!((without_group.tell(1), without_group.tell(0), without_group.tell(2)), (1, 0, 2));
    }

    #[test]
    fn only_a_kill_that_is_certain_is_told() {
        assert_eq!(with_kills(killed(), &[]).reason, ExitReason::OomKilled);
        let doubtful = with_kills(killed(), &[id('b')]);
        assert_eq!(doubtful.reason, ExitReason::Error);
        assert!(doubtful.message.contains(id('b').as_str()), "{}", doubtful.message);
        let ended = ExitStatus { code: 1, ..killed() };
        assert_eq!(with_kills(ended.clone(), &[]), ended);
    }
}
