//! UpdatePodSandboxResources: what the kubelet says of a pod's resources is kept. Nothing is applied: the pod's cgroup is the
//! kubelet's, and the containers' come with calls of their own (KEP-1287).
use crate::context::Engine;
use crate::pod::stop::run_to_end;
use crate::record::PodResources;
use berth_model::{Resources, Result};
use berth_store::Sync;
use std::sync::Arc;

impl Engine {
    /// Keeps what is said; what is not said stays as it was said before. Idempotent. Errors: `NotFound`.
    pub async fn update_pod(
        self: &Arc<Self>,
        id: &str,
        overhead: Option<Resources>,
        resources: Option<Resources>,
    ) -> Result<()> {
        let pod = self.table.pod(id)?;
        run_to_end(async move {
            let known = pod.record().resized.clone().unwrap_or_default();
            let told = PodResources {
                overhead: overhead.unwrap_or(known.overhead),
                resources: resources.unwrap_or(known.resources),
            };
            if pod.record().resized.as_ref() == Some(&told) {
                return Ok(());
            }
            pod.update(Sync::Later, |r| r.resized = Some(told)).await
        })
        .await
    }
}
