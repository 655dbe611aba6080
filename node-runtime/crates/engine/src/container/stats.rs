//! ContainerStats and ListContainerStats: one pass over the kernel's files, for running containers.
use crate::context::{Engine, blocking};
use crate::table::{ContainerFilter, ContainerView};
use berth_model::{ContainerState, Error, ErrorKind, Labels, Result};
use berth_stats::{ContainerStats, container_stats};
use std::sync::Arc;

/// Which containers' readings to take.
#[derive(Debug, Clone, Default)]
pub struct StatsFilter {
    /// Container's id or prefix.
    pub id: String,
    /// Pod's id or prefix.
    pub pod: String,
    /// Labels that must be there.
    pub labels: Labels,
}

impl Engine {
    /// Readings of one container. Errors: `NotFound`; `FailedPrecondition` when it does not run.
    pub async fn container_stats(self: &Arc<Self>, id: &str) -> Result<(ContainerView, ContainerStats)> {
        let view = self.container(id)?;
        if view.record.pid().is_none() {
            return Err(Error::new(ErrorKind::FailedPrecondition, format!("container {} is not running", view.id)));
        }
        let mut read = self.read_stats(vec![view]).await?;
        read.pop().ok_or_else(|| Error::new(ErrorKind::NotFound, format!("container {id} has just ended")))
    }

    /// Readings of all running containers that match; one that ends meanwhile is left out.
    pub async fn list_container_stats(
        self: &Arc<Self>,
        filter: &StatsFilter,
    ) -> Result<Vec<(ContainerView, ContainerStats)>> {
        let views = self.table.containers(&ContainerFilter {
            id: filter.id.clone(),
            pod: filter.pod.clone(),
            state: Some(ContainerState::Running),
            labels: filter.labels.clone(),
        });
        self.read_stats(views).await
    }

    async fn read_stats(self: &Arc<Self>, views: Vec<ContainerView>) -> Result<Vec<(ContainerView, ContainerStats)>> {
        let mut layers = self.layers(views.iter().map(|view| view.id.clone()).collect()).await;
        let cgroups = self.cgroups.clone();
        blocking(move || {
            let read = |view: ContainerView| {
                let stats = container_stats(&cgroups, &view.record.cgroup, layers.remove(&view.id))?;
                Some((view, stats))
            };
            Ok(views.into_iter().filter_map(read).collect())
        })
        .await
    }
}
