//! StopPodSandbox: containers, pod init, network, namespaces, monitor. Idempotent, and never in need of a monitor's answer.
use crate::context::{Engine, blocking};
use crate::pod::Pod;
use crate::record::PodPhase;
use crate::steps::Walk;
use berth_cgroups::CgroupPath;
use berth_model::{ErrorKind, NamespaceMode, NetworkOperation, Result};
use berth_store::Sync;
use std::sync::Arc;
use std::time::Duration;

/// How long a monitor may take to end before it is killed.
const MONITOR_END_LIMIT: Duration = Duration::from_secs(2);
/// How long the processes of a cgroup may take to go after SIGKILL.
pub(crate) const KILL_WAIT: Duration = Duration::from_secs(10);

impl Engine {
    /// Stops a pod. A pod that does not exist is stopped.
    pub async fn stop_pod(self: &Arc<Self>, id: &str) -> Result<()> {
        let pod = match self.table.pod(id) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        let engine = self.clone();
        run_to_end(async move { engine.stop_whole(&pod).await }).await
    }

    /// The steps, under the pod's lifecycle lock.
    pub(crate) async fn stop_whole(self: &Arc<Self>, pod: &Arc<Pod>) -> Result<()> {
        let _one = pod.lifecycle.lock().await;
        let mut walk = Walk::new("stop", &self.metrics);
        walk.step("containers", self.kill_containers(pod)).await?;
        walk.step("init", self.end_pod_init(pod)).await?;
        walk.step("network", self.detach_network(pod)).await?;
        let dir = self.paths.pod_dir(&pod.id);
        walk.step("namespaces", blocking(move || dir.unmount())).await?;
        walk.step("monitor", self.end_monitor(pod)).await?;
        if pod.record().phase == PodPhase::Ready {
            let reason = "stopped".to_owned();
            walk.step("record", pod.update(Sync::Later, |r| r.phase = PodPhase::NotReady { reason })).await?;
        }
        Ok(())
    }

    async fn kill_containers(self: &Arc<Self>, pod: &Arc<Pod>) -> Result<()> {
        let running: Vec<_> =
            pod.record().containers.iter().filter(|(_, c)| c.exit().is_none()).map(|(id, _)| id.clone()).collect();
        let kills = running.iter().map(|id| self.kill_container(pod, id));
        futures_util::future::join_all(kills).await.into_iter().collect()
    }

    async fn detach_network(&self, pod: &Pod) -> Result<()> {
        let record = pod.record();
        if record.config.security.namespaces.network == NamespaceMode::Node {
            return Ok(());
        }
        let detach = self.network.detach(&pod.id, record.network.as_ref());
        self.metrics.network(self.network.name(), NetworkOperation::Detach, detach).await
    }

    /// Ends PID 1 of a shared pid namespace, and with it whatever is left inside.
    pub(crate) async fn end_pod_init(self: &Arc<Self>, pod: &Arc<Pod>) -> Result<()> {
        let Some(cgroup) = pod.record().init_cgroup.clone() else { return Ok(()) };
        // First, so that its end is known to be wanted; the group stays recorded until it is gone.
        pod.update(Sync::Later, |r| r.init_pid = None).await?;
        self.clear_cgroup(&cgroup).await?;
        pod.update(Sync::Later, |r| r.init_cgroup = None).await
    }

    /// Kills what is in a cgroup, and removes it.
    pub(crate) async fn clear_cgroup(&self, cgroup: &CgroupPath) -> Result<()> {
        let (cgroups, target) = (self.cgroups.clone(), cgroup.clone());
        blocking(move || cgroups.kill(&target, KILL_WAIT)).await?;
        self.cgroups.remove(cgroup).await
    }

    /// Ends the monitor: it is asked, and killed if it does not answer or was never reached. Its tasks have ended before.
    pub(crate) async fn end_monitor(&self, pod: &Pod) -> Result<()> {
        let connected = pod.monitor().ok();
        let record = pod.record();
        if connected.is_none() && record.monitor.is_none() && record.phase != PodPhase::Creating {
            return Ok(());
        }
        pod.set_monitor(None);
        pod.drop_execs();
        let asked = async { matches!(connected, Some(monitor) if monitor.shutdown().await.is_ok()) };
        if !tokio::time::timeout(MONITOR_END_LIMIT, asked).await.unwrap_or(false) {
            let (base, id) = (self.paths.pod_base(), pod.id.clone());
            blocking(move || berth_oci::processes::kill_monitors(&base, |pod| pod == id.as_str())).await?;
        }
        pod.update(Sync::Later, |r| r.monitor = None).await
    }
}

/// Runs an operation in a task of its own: a caller that goes away stops no step midway.
pub(crate) async fn run_to_end<T: Send + 'static>(
    operation: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    tokio::spawn(operation).await.map_err(|e| berth_model::Error::internal(format!("operation: {e}")))?
}
