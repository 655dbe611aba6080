//! StopContainer: signal, grace, kill. A later call with a shorter grace wins, because each call waits for its own.
use crate::clock;
use crate::context::{Engine, blocking};
use crate::pod::Pod;
use crate::pod::stop::run_to_end;
use crate::record::{ContainerRecord, Life};
use berth_model::{ContainerId, Error, ErrorKind, ExitReason, ExitStatus, Result};
use berth_store::Sync;
use std::sync::Arc;
use std::time::Duration;

/// How long an end may take to be told after SIGKILL; in uninterruptible sleep a process can take for ever.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// How long a monitor may take to tell the end of a container whose cgroup is empty.
const TELL_LIMIT: Duration = Duration::from_secs(3);
/// How long a monitor may take to send a signal.
const SIGNAL_LIMIT: Duration = Duration::from_secs(2);
const SIGKILL: i32 = 9;
/// 128 + SIGKILL.
const KILLED_CODE: i32 = 137;

impl Engine {
    /// Stops a container; it is EXITED on return. One that does not exist is stopped.
    /// Errors: `DeadlineExceeded` when the kernel does not let go of a process.
    pub async fn stop_container(self: &Arc<Self>, id: &str, grace: Duration) -> Result<()> {
        let (pod, id) = match self.table.container(id) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        let engine = self.clone();
        run_to_end(async move { engine.stop_gently(&pod, &id, grace).await }).await
    }

    async fn stop_gently(self: &Arc<Self>, pod: &Arc<Pod>, id: &ContainerId, grace: Duration) -> Result<()> {
        let Ok(container) = pod.container(id) else { return Ok(()) };
        match container.life {
            Life::Exited { .. } => return Ok(()),
            Life::Created => return self.end_created(pod, id).await,
            Life::Starting | Life::Running { .. } => {}
        }
        if !grace.is_zero() {
            self.signal_once(pod, id, &container).await;
            if self.wait_for_end(pod, id, grace).await {
                return Ok(());
            }
        }
        self.kill_container(pod, id).await
    }

    /// A container that never ran is stopped by writing so down.
    async fn end_created(&self, pod: &Pod, id: &ContainerId) -> Result<()> {
        let status = ExitStatus {
            code: KILLED_CODE,
            finished_at: clock::now(),
            reason: ExitReason::Error,
            message: "stopped before it was started".to_owned(),
        };
        pod.update_container(id, Sync::Later, |c| {
            c.end(status);
        })
        .await
    }

    /// The stop signal goes out once, however often stop is called.
    async fn signal_once(&self, pod: &Pod, id: &ContainerId, container: &ContainerRecord) {
        if !pod.first_signal(id) {
            return;
        }
        let Ok(monitor) = pod.monitor() else { return };
        let sent = tokio::time::timeout(SIGNAL_LIMIT, monitor.signal(id.as_str(), container.stop_signal)).await;
        if !matches!(sent, Ok(Ok(()))) {
            tracing::warn!(container = %id, "the monitor did not send the stop signal; SIGKILL follows after the grace period");
        }
    }

    async fn wait_for_end(&self, pod: &Pod, id: &ContainerId, limit: Duration) -> bool {
        pod.wait_until(limit, |r| r.containers.get(id).is_none_or(|c| c.exit().is_some())).await
    }

    /// Kills a container and all of its cgroup, and waits until its end is recorded.
    pub(crate) async fn kill_container(self: &Arc<Self>, pod: &Arc<Pod>, id: &ContainerId) -> Result<()> {
        let Ok(container) = pod.container(id) else { return Ok(()) };
        match container.life {
            Life::Exited { .. } => return Ok(()),
            Life::Created => return self.end_created(pod, id).await,
            Life::Starting | Life::Running { .. } => {}
        }
        if let Ok(monitor) = pod.monitor() {
            // By pidfd first: it needs no cgroup and is the quickest. The group's kill follows in any case.
            let _ = tokio::time::timeout(SIGNAL_LIMIT, monitor.signal(id.as_str(), SIGKILL)).await;
        }
        let (cgroups, group) = (self.cgroups.clone(), container.cgroup.clone());
        let killed = blocking(move || cgroups.kill(&group, KILL_LIMIT)).await;
        let limit = if killed.is_ok() { TELL_LIMIT } else { KILL_LIMIT };
        if self.wait_for_end(pod, id, limit).await {
            return Ok(());
        }
        killed?;
        self.end_without_monitor(pod, id, &container).await
    }

    /// The monitor does not tell: if the cgroup is empty the container is over all the same.
    async fn end_without_monitor(
        self: &Arc<Self>,
        pod: &Arc<Pod>,
        id: &ContainerId,
        container: &ContainerRecord,
    ) -> Result<()> {
        let (cgroups, group) = (self.cgroups.clone(), container.cgroup.clone());
        if blocking(move || cgroups.is_populated(&group)).await? {
            let problem = format!("container {id} was killed, and the kernel has not let go of it; try again later");
            return Err(Error::new(ErrorKind::DeadlineExceeded, problem));
        }
        let status = ExitStatus {
            code: KILLED_CODE,
            finished_at: clock::now(),
            reason: ExitReason::Error,
            message: "killed; its monitor does not answer".to_owned(),
        };
        self.container_ended(pod, id, status).await;
        Ok(())
    }
}
