//! RemovePodSandbox: stop, then containers, directory, record. Idempotent.
use crate::context::{Engine, blocking};
use crate::pod::Pod;
use crate::pod::stop::run_to_end;
use crate::steps::Walk;
use berth_model::{ErrorKind, Result};
use std::sync::Arc;

impl Engine {
    /// Removes a pod with its containers. A pod that does not exist is removed.
    pub async fn remove_pod(self: &Arc<Self>, id: &str) -> Result<()> {
        let pod = match self.table.pod(id) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        let engine = self.clone();
        run_to_end(async move {
            engine.stop_whole(&pod).await?;
            engine.remove_whole(&pod).await
        })
        .await
    }

    pub(crate) async fn remove_whole(self: &Arc<Self>, pod: &Arc<Pod>) -> Result<()> {
        let _one = pod.lifecycle.lock().await;
        let mut walk = Walk::new("remove", &self.metrics);
        let containers: Vec<_> = pod.record().containers.keys().cloned().collect();
        walk.step("containers", async {
            for id in &containers {
                self.discard_container(pod, id).await?;
            }
            Ok(())
        })
        .await?;
        let dir = self.paths.pod_dir(&pod.id);
        walk.step("directory", blocking(move || dir.teardown())).await?;
        walk.step("record", pod.erase()).await?;
        self.table.remove(&pod.id);
        self.rates.forget(&pod.id);
        pod.tell_deleted();
        tracing::info!(pod = %pod.id, "pod is removed");
        Ok(())
    }
}
