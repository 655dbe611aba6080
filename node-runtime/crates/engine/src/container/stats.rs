//! ContainerStats and ListContainerStats: one pass over the kernel's files, for running containers.
use crate::context::{Engine, blocking};
use crate::table::{ContainerFilter, ContainerView};
use berth_model::{ContainerState, Error, ErrorKind, Labels, Result};
use berth_stats::{ContainerStats, WritableLayer, container_stats};
use std::sync::Arc;
use std::time::Duration;

/// How old a reading of a writable layer may be: walking it costs more than the kubelet's ten seconds are worth.
const LAYER_AGE: Duration = Duration::from_secs(10);

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
        let fs = self.images.fs_usage()?;
        let mut layers = Vec::new();
        for view in &views {
            let used = self.images.rootfs_usage(&view.id, LAYER_AGE).await.ok();
            layers.push(used.map(|u| WritableLayer {
                taken_at: u.at,
                file_system: fs.mountpoint.clone(),
                used_bytes: u.usage.bytes,
                inodes_used: u.usage.inodes,
            }));
        }
        let cgroups = self.cgroups.clone();
        blocking(move || {
            let read = |(view, layer): (ContainerView, Option<WritableLayer>)| {
                let stats = container_stats(&cgroups, &view.record.cgroup, layer)?;
                Some((view, stats))
            };
            Ok(views.into_iter().zip(layers).filter_map(read).collect())
        })
        .await
    }
}
