//! UpdateContainerResources: the kernel first, then the record; unspecified values stay.
use crate::context::Engine;
use crate::pod::stop::run_to_end;
use crate::record::Life;
use berth_model::{Error, ErrorKind, Resources, Result};
use berth_store::Sync;
use std::sync::Arc;

impl Engine {
    /// Changes limits of a CREATED or RUNNING container, all of them or none.
    /// Errors: `InvalidArgument` naming the field, `FailedPrecondition` for an ended one or a limit below usage.
    pub async fn update_container(self: &Arc<Self>, id: &str, update: Resources) -> Result<()> {
        let (pod, id) = self.table.container(id)?;
        let engine = self.clone();
        run_to_end(async move {
            let lock = pod.container_lock(&id);
            let _one = lock.lock().await;
            let container = pod.container(&id)?;
            let mut merged = container.resources.clone();
            merged.merge(&update);
            engine.cgroups.check(&merged)?;
            match container.life {
                Life::Created => {}
                Life::Starting | Life::Running { .. } => engine.cgroups.update(&container.cgroup, &update).await?,
                Life::Exited { .. } => {
                    return Err(Error::new(ErrorKind::FailedPrecondition, format!("container {id} has ended")));
                }
            }
            pod.update_container(&id, Sync::Later, |c| c.resources = merged).await
        })
        .await
    }
}
