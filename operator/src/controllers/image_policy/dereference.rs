//! The images that the cluster itself needs: those of the pods in the operator's namespace and the system's.
use super::super::Context;
use crate::cluster::World;
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeSet;

/// An image, and the namespace that it runs in.
pub(super) type SystemImage = (String, String);

/// Asked for only where there are policies: the list of pods is not watched.
pub(super) async fn system_images(context: &Context, world: &World) -> Result<BTreeSet<SystemImage>, String> {
    let mut images = BTreeSet::new();
    if world.policies.is_empty() {
        return Ok(images);
    }
    for namespace in &context.system_namespaces {
        let pods = context.writes.pods(Some(namespace), None).await?;
        images.extend(pods.iter().flat_map(of).map(|image| (namespace.clone(), image)));
    }
    Ok(images)
}

fn of(pod: &Pod) -> Vec<String> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    containers.filter_map(|container| container.image.clone()).collect()
}
