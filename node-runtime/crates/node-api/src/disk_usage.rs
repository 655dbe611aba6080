//! DiskUsage: what each image and each container takes.
use berth_engine::{Engine, Life, StoreUsage};
use berth_model::{ContainerId, Result};
use berth_proto::node as wire;
use std::sync::Arc;

pub(crate) async fn call(engine: &Arc<Engine>) -> Result<wire::DiskUsageResponse> {
    let usage = engine.disk_usage().await?;
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let images = usage.images.iter().map(|one| wire::ImageDiskUsage {
        id: one.image.id.to_string(),
        names: one.image.repo_tags.iter().chain(&one.image.repo_digests).map(ToString::to_string).collect(),
        size: one.size,
        shared: one.shared,
        containers: count(one.containers),
        pinned: one.image.pinned,
        pulled_at: one.image.pulled_at,
        created: one.image.created.clone(),
    });
    let containers = containers(engine, &usage);
    Ok(wire::DiskUsageResponse {
        directory: usage.fs.mountpoint.display().to_string(),
        image_bytes: usage.fs.images.bytes,
        image_inodes: usage.fs.images.inodes,
        container_bytes: usage.fs.containers.bytes,
        container_inodes: usage.fs.containers.inodes,
        reclaimable_bytes: usage.reclaimable,
        images: images.collect(),
        layers: count(usage.layers),
        shared_layers: count(usage.shared_layers),
        kept_bytes: usage.kept_blobs.bytes,
        collections: usage.collected.runs,
        collected_bytes: usage.collected.bytes,
        containers,
    })
}

fn containers(engine: &Engine, usage: &StoreUsage) -> Vec<wire::ContainerDiskUsage> {
    let one = |owner: &ContainerId, size, inodes| {
        let Ok(view) = engine.container(owner.as_str()) else {
            return wire::ContainerDiskUsage { id: owner.to_string(), size, inodes, ..Default::default() };
        };
        let pod = &view.pod_record.config.metadata;
        wire::ContainerDiskUsage {
            id: owner.to_string(),
            name: view.record.config.metadata.name.clone(),
            pod: pod.name.clone(),
            namespace: pod.namespace.clone(),
            image: view.record.config.image.clone(),
            running: matches!(view.record.life, Life::Running { .. }),
            size,
            inodes,
            created_at: view.record.created_at,
        }
    };
    let layers = usage.containers.iter();
    layers
        .map(|layer| {
            let written = layer.written.map(|w| w.usage);
            one(&layer.owner, written.map(|u| u.bytes), written.map(|u| u.inodes))
        })
        .collect()
}
