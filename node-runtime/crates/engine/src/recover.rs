//! The daemon's start: records and living monitors become the pod table again.
//!
//! A record of another boot describes processes that are gone. A pod that was never Ready is torn down. A monitor that
//! answers tells what ended meanwhile; one that does not has left exit records on tmpfs. A torn record is reported and its
//! pod left alone; it never stops the start.
use crate::clock;
use crate::context::Engine;
use crate::pod::Pod;
use crate::record::{LOST_CODE, Life, PodPhase, PodRecord};
use berth_model::{ContainerId, ExitReason, ExitStatus, PodId, Result};
use berth_monitor_api::frame::Task;
use berth_oci::monitor::Monitor;
use berth_store::Sync;
use std::collections::HashSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long a monitor may take to answer a new daemon, on a node that is short of processors too. A stopped (SIGSTOP) one is
/// asked again in the background.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// Pause before a silent monitor is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// How the search for a pod's monitor ended.
enum Adoption {
    /// It answered, and what it knows is taken in.
    Taken,
    /// There is none.
    Dead,
    /// It lives and does not answer (stopped, or starved).
    Silent,
}

impl Engine {
    /// Brings back all pods, then removes what nobody owns. Errors: only when the records' directory cannot be read.
    pub async fn recover(self: &Arc<Self>) -> Result<()> {
        let loaded = self.records.load()?;
        for torn in loaded.unreadable {
            self.metrics.event("record_torn");
            tracing::error!(
                pod = torn.id,
                problem = torn.problem,
                "pod record cannot be read; the pod is UNKNOWN and left alone"
            );
            self.unknown.lock().unwrap_or_else(PoisonError::into_inner).insert(torn.id, torn.problem);
        }
        let pods = loaded.records.into_iter().filter_map(|(id, record)| Some((PodId::parse(&id).ok()?, record)));
        let recoveries = pods.map(|(id, record)| {
            let engine = self.clone();
            tokio::spawn(async move { engine.recover_pod(id, record).await })
        });
        for recovery in recoveries.collect::<Vec<_>>() {
            if let Err(e) = recovery.await {
                tracing::error!(error = %e, "recovery of a pod failed");
            }
        }
        self.reconcile().await;
        Ok(())
    }

    async fn recover_pod(self: Arc<Self>, id: PodId, record: PodRecord) {
        let same_boot = record.boot_id == self.boot_id;
        let phase = record.phase.clone();
        self.starts.learn_record(&record);
        let pod = self.enter(id, record);
        let recovered = match (same_boot, phase) {
            (_, PodPhase::Creating) => self.discard_half_made(&pod).await,
            (false, _) => self.after_reboot(&pod).await,
            (true, _) => self.reconnect(&pod).await,
        };
        if let Err(e) = recovered {
            tracing::error!(pod = %pod.id, error = %e, "pod could not be recovered whole");
        }
    }

    async fn discard_half_made(self: &Arc<Self>, pod: &Arc<Pod>) -> Result<()> {
        tracing::info!(pod = %pod.id, "a run that was cut short is undone");
        self.adopt_monitor(pod).await;
        self.network.detach_at_start(&pod.id, None).await?;
        self.stop_whole(pod).await?;
        self.remove_whole(pod).await
    }

    async fn after_reboot(self: &Arc<Self>, pod: &Arc<Pod>) -> Result<()> {
        let boot_id = self.boot_id.clone();
        let reason = "the node was rebooted".to_owned();
        pod.update(Sync::Later, |r| {
            r.phase = PodPhase::NotReady { reason };
            r.monitor = None;
            r.init_pid = None;
            r.init_cgroup = None;
            r.boot_id = boot_id;
            for container in r.containers.values_mut() {
                container.end(gone("the node was rebooted", ExitReason::Unknown));
            }
        })
        .await?;
        self.network.detach_at_start(&pod.id, pod.record().network.as_ref()).await
    }

    async fn reconnect(self: &Arc<Self>, pod: &Arc<Pod>) -> Result<()> {
        if pod.record().monitor.is_none() {
            // Stopped before; nothing of it runs.
            return Ok(());
        }
        match self.adopt_monitor(pod).await {
            Adoption::Taken => {}
            Adoption::Dead => self.monitor_lost(pod).await,
            Adoption::Silent => self.clone().keep_asking(pod.clone()),
        }
        Ok(())
    }

    /// Asks a silent monitor again until it answers, dies, or the pod is stopped by the ways that need no monitor.
    pub(crate) fn keep_asking(self: Arc<Self>, pod: Arc<Pod>) {
        tracing::warn!(pod = %pod.id, "the pod's monitor does not answer; it is asked again");
        tokio::spawn(async move {
            while pod.record().monitor.is_some() && self.table.pod(pod.id.as_str()).is_ok() {
                match self.adopt_monitor(&pod).await {
                    Adoption::Taken => return,
                    Adoption::Dead => return self.monitor_lost(&pod).await,
                    Adoption::Silent => tokio::time::sleep(ASK_AGAIN).await,
                }
            }
        });
    }

    /// Connects to the pod's monitor and takes in what it knows.
    async fn adopt_monitor(self: &Arc<Self>, pod: &Arc<Pod>) -> Adoption {
        let dir = self.paths.pod_dir(&pod.id);
        let monitor = match Monitor::connect(dir.path(), &pod.id, Instant::now() + CONNECT_LIMIT).await {
            Ok(monitor) => monitor,
            Err(e) => {
                let pid = pod.record().monitor.map_or(0, |m| m.pid);
                let lives = berth_oci::processes::is_monitor_of(pid, &pod.id);
                tracing::debug!(pod = %pod.id, lives, error = %e, "no answer from a monitor");
                return if lives { Adoption::Silent } else { Adoption::Dead };
            }
        };
        // Listening starts before the list is asked for: no end falls between the two.
        let exits = monitor.exits();
        match monitor.list().await {
            Ok(tasks) => {
                self.take_in(pod, &monitor, tasks).await;
                // Not before: a start that began meanwhile would look like one of the former daemon's.
                pod.set_monitor(Some(monitor.clone()));
                self.clone().supervise(pod.clone(), monitor, exits);
                Adoption::Taken
            }
            Err(e) => {
                tracing::error!(pod = %pod.id, error = %e, "monitor does not list its tasks");
                Adoption::Silent
            }
        }
    }

    async fn take_in(self: &Arc<Self>, pod: &Arc<Pod>, monitor: &Monitor, tasks: Vec<Task>) {
        let mut known = HashSet::new();
        for task in tasks {
            known.insert(task.id.clone());
            self.settle_start(pod, monitor, &task).await;
            if let Some(exit) = task.exit {
                self.task_ended(pod, monitor, &task.id, exit).await;
            }
        }
        let record = pod.record();
        let unknown = record
            .containers
            .iter()
            .filter(|(id, c)| matches!(c.life, Life::Starting | Life::Running { .. }) && !known.contains(id.as_str()));
        for (id, _) in unknown {
            let status = gone("the daemon ended before the start was complete", ExitReason::StartError);
            self.container_ended(pod, id, status).await;
        }
    }

    /// A start that the former daemon did not finish: init has seen the daemon go and ended the child; to be sure it is killed.
    async fn settle_start(self: &Arc<Self>, pod: &Arc<Pod>, monitor: &Monitor, task: &Task) {
        let Ok(id) = ContainerId::parse(&task.id) else { return };
        let Ok(container) = pod.container(&id) else { return };
        if container.life != Life::Starting {
            return;
        }
        if task.exit.is_none() {
            let _ = monitor.signal(&task.id, 9).await;
        }
        let status = gone("the daemon ended before the start was complete", ExitReason::StartError);
        self.container_ended(pod, &id, status).await;
    }
}

fn gone(why: &str, reason: ExitReason) -> ExitStatus {
    let code = if reason == ExitReason::StartError { crate::record::START_ERROR_CODE } else { LOST_CODE };
    ExitStatus { code, finished_at: clock::now(), reason, message: why.to_owned() }
}
