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
            let update = with_swap(&container.resources, update);
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

/// A new memory limit alone moves a limit of memory and swap together that was equal to it, and one that would be below it. Any
/// other stays what it is, so it is said again: on cgroup v2 the kernel counts swap alone, and would let the sum grow.
fn with_swap(known: &Resources, mut update: Resources) -> Resources {
    let Some(limit) = update.memory_limit else { return update };
    let Some(both) = known.memory_swap_limit.filter(|both| *both >= 0) else { return update };
    if update.memory_swap_limit.is_none() {
        let moves = known.memory_limit == Some(both) || both < limit || limit < 0;
        update.memory_swap_limit = Some(if moves { limit } else { both });
    }
    update
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(memory: Option<i64>, both: Option<i64>) -> Resources {
        Resources { memory_limit: memory, memory_swap_limit: both, ..Resources::default() }
    }

    #[test]
    fn swap_moves_with_a_memory_limit_that_comes_alone() {
        let swap = |known: (i64, i64), limit| {
            with_swap(&limits(Some(known.0), Some(known.1)), limits(limit, None)).memory_swap_limit
        };
        assert_eq!(swap((100, 100), Some(200)), Some(200), "no swap stays no swap");
        assert_eq!(swap((100, 100), Some(50)), Some(50));
        assert_eq!(swap((100, 150), Some(200)), Some(200), "the sum is never below");
        assert_eq!(swap((100, 300), Some(200)), Some(300), "what is not said stays");
        assert_eq!(swap((100, 100), Some(-1)), Some(-1));
        assert_eq!(swap((100, -1), Some(200)), None, "unlimited swap stays so");
        assert_eq!(swap((100, 100), None), None);
        let said = with_swap(&limits(Some(100), Some(100)), limits(Some(200), Some(400)));
        assert_eq!(said.memory_swap_limit, Some(400));
        assert_eq!(with_swap(&limits(Some(100), None), limits(Some(200), None)).memory_swap_limit, None);
    }
}
