//! RemoveContainer: kill if it runs, then root file system, cgroup, record. Idempotent.
use crate::context::Engine;
use crate::pod::Pod;
use crate::pod::stop::run_to_end;
use crate::steps::Walk;
use berth_model::{ContainerId, ErrorKind, Result};
use berth_store::Sync;
use std::sync::Arc;

impl Engine {
    /// Removes a container, by force if it runs. One that does not exist is removed. Logs stay: they are the kubelet's.
    pub async fn remove_container(self: &Arc<Self>, id: &str) -> Result<()> {
        let (pod, id) = match self.table.container(id) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        let engine = self.clone();
        run_to_end(async move {
            let mut walk = Walk::new("remove-container", &engine.metrics);
            walk.step("container", engine.discard_container(&pod, &id)).await
        })
        .await
    }

    pub(crate) async fn discard_container(self: &Arc<Self>, pod: &Arc<Pod>, id: &ContainerId) -> Result<()> {
        self.kill_container(pod, id).await?;
        let lock = pod.container_lock(id);
        let _one = lock.lock().await;
        // A start that won the lock in between may have brought it to life.
        self.kill_container(pod, id).await?;
        let Ok(container) = pod.container(id) else { return Ok(()) };
        self.cgroups.remove(&container.cgroup).await?;
        self.images.remove_rootfs(id).await?;
        self.layers.forget(id);
        self.table.remove_container(id);
        pod.update(Sync::Now, |r| drop(r.containers.remove(id))).await?;
        pod.forget_container(id);
        Ok(())
    }
}
