//! One task per pod listens to its monitor: ends of containers and commands, and the end of the monitor itself.
use crate::clock;
use crate::context::{Engine, blocking};
use crate::pod::Pod;
use crate::record::{LOST_CODE, Life, PodPhase};
use berth_model::{ContainerId, ExitReason, ExitStatus};
use berth_monitor_api::frame::Exit;
use berth_oci::monitor::{Closed, Monitor};
use berth_store::Sync;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedReceiver;

impl Engine {
    /// Starts the pod's listener. `exits` are those of this connection, taken before anything was asked: none is missed.
    pub(crate) fn supervise(
        self: Arc<Self>,
        pod: Arc<Pod>,
        monitor: Monitor,
        mut exits: UnboundedReceiver<(String, Exit)>,
    ) {
        tokio::spawn(async move {
            while let Some((id, exit)) = exits.recv().await {
                self.task_ended(&pod, &monitor, &id, exit).await;
            }
            // A monitor that was ended on purpose has been taken off the pod before.
            if !pod.monitor().is_ok_and(|current| current.pid() == monitor.pid()) {
                return;
            }
            match monitor.closed().await {
                Closed::ProcessEnded => self.monitor_lost(&pod).await,
                Closed::ConnectionLost => self.keep_asking(pod),
            }
        });
    }

    /// Takes note of a task's end: of a command, the pod's init or a container.
    pub(crate) async fn task_ended(self: &Arc<Self>, pod: &Arc<Pod>, monitor: &Monitor, id: &str, exit: Exit) {
        self.metrics.node().oom_kills(pod.kills().tell(exit.oom_kills));
        if id == pod.id.as_str() {
            self.pod_init_ended(pod).await;
        } else if !pod.exec_ended(id, exit)
            && let Ok(container) = ContainerId::parse(id)
            && !pod.defer_exit(&container, exit)
            && let Ok(record) = pod.container(&container)
            && record.life != Life::Starting
        {
            self.container_ended(pod, &container, record.exit_status(&exit)).await;
        }
        if let Err(e) = monitor.forget(id).await {
            tracing::debug!(pod = %pod.id, task = id, error = %e, "monitor keeps an ended task");
        }
    }

    async fn pod_init_ended(self: &Arc<Self>, pod: &Arc<Pod>) {
        let record = pod.record();
        if record.phase != PodPhase::Ready || record.init_pid.is_none() {
            return;
        }
        let reason = "the pod's init process ended".to_owned();
        if let Err(e) = pod.update(Sync::Later, |r| r.phase = PodPhase::NotReady { reason }).await {
            tracing::error!(pod = %pod.id, error = %e, "cannot record the end of a pod's init");
        }
    }

    /// Records a container's end and clears its cgroup: nothing outlives the main process.
    pub(crate) async fn container_ended(self: &Arc<Self>, pod: &Arc<Pod>, id: &ContainerId, status: ExitStatus) {
        let status = self.with_missed_kills(pod, id, status).await;
        let reason = status.reason;
        let ended_so = status.clone();
        if let Ok(container) = pod.container(id)
            && let Err(e) = self.clear_cgroup(&container.cgroup).await
        {
            tracing::warn!(container = %id, error = %e, "cgroup of an ended container is still there");
        }
        let mut taken = false;
        let ended = pod.update_container(id, Sync::Later, |c| taken = c.end(status)).await;
        if let Err(e) = ended {
            tracing::error!(container = %id, error = %e, "cannot record the end of a container");
        }
        if taken {
            self.metrics.exit(reason.as_str());
            if let Ok(container) = pod.container(id)
                && (!pod.was_signalled(id) || reason == ExitReason::OomKilled)
            {
                self.troubles.exit(pod, &container.config.metadata.name, &ended_so);
            }
            tracing::info!(pod = %pod.id, container = %id, reason = reason.as_str(), "container ended");
        }
    }

    /// The monitor died: its pod is killed by cgroup, its containers are EXITED, the sandbox is NOTREADY.
    pub(crate) async fn monitor_lost(self: &Arc<Self>, pod: &Arc<Pod>) {
        tracing::error!(pod = %pod.id, "the pod's monitor is gone; its containers are killed");
        self.metrics.event("monitor_lost");
        pod.set_monitor(None);
        pod.drop_execs();
        self.end_from_records(pod).await;
        let reason = "MonitorLost: the pod's monitor ended unexpectedly".to_owned();
        let lost = pod.update(Sync::Later, |r| {
            r.monitor = None;
            if r.phase == PodPhase::Ready {
                r.phase = PodPhase::NotReady { reason };
            }
        });
        if let Err(e) = lost.await {
            tracing::error!(pod = %pod.id, error = %e, "cannot record the loss of a monitor");
        }
        if let Err(e) = self.end_pod_init(pod).await {
            tracing::error!(pod = %pod.id, error = %e, "cannot end the init of a pod that lost its monitor");
        }
    }

    /// Ends every container of a pod without a monitor: by the exit record that the monitor left, or as lost.
    pub(crate) async fn end_from_records(self: &Arc<Self>, pod: &Arc<Pod>) {
        let dir = self.paths.pod_dir(&pod.id);
        let exits = match blocking(move || berth_oci::exits::read_exits(dir.path())).await {
            Ok(exits) => exits.records,
            Err(e) => {
                tracing::error!(pod = %pod.id, error = %e, "cannot read exit records");
                Default::default()
            }
        };
        let open: Vec<_> = pod
            .record()
            .containers
            .iter()
            .filter(|(_, c)| c.exit().is_none() && c.life != Life::Created)
            .map(|(id, c)| (id.clone(), c.clone()))
            .collect();
        for (id, container) in open {
            let status = exits.get(id.as_str()).map_or_else(lost, |record| container.exit_status(&record.exit));
            self.container_ended(pod, &id, status).await;
        }
    }
}

fn lost() -> ExitStatus {
    let message = "its monitor ended, so its exit code is not known".to_owned();
    ExitStatus { code: LOST_CODE, finished_at: clock::now(), reason: ExitReason::MonitorLost, message }
}
