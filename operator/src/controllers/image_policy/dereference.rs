//! The images that the cluster itself needs: those of the pods in the operator's namespace and the system's.
use super::super::Context;
use crate::cluster::World;
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long what was found counts. A rollout makes several passes a second, and these images change with the cluster's own upgrades.
const FRESH: Duration = Duration::from_secs(30);

/// An image, and the namespace that it runs in.
pub(super) type SystemImage = (String, String);

/// What was found last, and for which policies: new ones are judged by a fresh look.
#[derive(Debug, Clone, Default)]
pub struct SystemImages(Arc<Mutex<Option<Found>>>);

#[derive(Debug, Clone)]
struct Found {
    at: Instant,
    policies: Vec<(String, Option<i64>)>,
    images: BTreeSet<SystemImage>,
}

/// Asked for only where there are policies: the list of pods is not watched.
pub(super) async fn system_images(context: &Context, world: &World) -> Result<BTreeSet<SystemImage>, String> {
    if world.policies.is_empty() {
        return Ok(BTreeSet::new());
    }
    let policies: Vec<_> = world.policies.iter().map(|(name, p)| (name.clone(), p.metadata.generation)).collect();
    let cache = &context.system_images.0;
    let before = cache.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some(found) = before.filter(|found| found.at.elapsed() < FRESH && found.policies == policies) {
        return Ok(found.images);
    }
    let mut images = BTreeSet::new();
    for namespace in &context.system_namespaces {
        context
            .writes
            .pods(Some(namespace), None, |pod| images.extend(of(&pod).map(|image| (namespace.clone(), image))))
            .await?;
    }
    let found = Found { at: Instant::now(), policies, images: images.clone() };
    *cache.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
    Ok(images)
}

fn of(pod: &Pod) -> impl Iterator<Item = String> {
    let containers =
        pod.spec.iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    containers.filter_map(|container| container.image.clone())
}
