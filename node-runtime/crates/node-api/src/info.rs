//! Info.
use crate::service::DaemonFacts;
use berth_engine::{ContainerFilter, Engine, PodFilter, Prefetched};
use berth_model::{ContainerState, PodState};
use berth_proto::node as wire;
use std::sync::Arc;

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn prefetched(image: Prefetched) -> wire::PrefetchedImage {
    let Prefetched { reference, state, problem, failures } = image;
    wire::PrefetchedImage { reference: reference.to_string(), state: state.as_str().to_owned(), problem, failures }
}

pub(crate) async fn call(engine: &Arc<Engine>, facts: &DaemonFacts) -> wire::InfoResponse {
    let settings = engine.settings();
    let status = engine.status().await;
    let network = status.conditions.into_iter().find(|c| c.kind == "NetworkReady");
    let ready = PodFilter { state: Some(PodState::Ready), ..PodFilter::default() };
    let running = ContainerFilter { state: Some(ContainerState::Running), ..ContainerFilter::default() };
    let (major, minor) = engine.facts().kernel;
    let path = |p: &std::path::Path| p.to_string_lossy().into_owned();
    wire::InfoResponse {
        version: berth_engine::VERSION.to_owned(),
        pid: std::process::id(),
        root: path(&facts.root),
        cri_socket: path(&facts.cri_socket),
        further_cri_sockets: facts.further_cri_sockets.clone(),
        metrics_address: facts.metrics_address.borrow().clone(),
        cgroup_driver: format!("{:?}", engine.cgroup_driver()).to_lowercase(),
        cgroup_layout: engine.cgroup_layout().to_lowercase(),
        kernel: format!("{major}.{minor}"),
        network_mode: format!("{:?}", settings.network.mode),
        network_message: network.map(|n| n.message).unwrap_or_default(),
        documents_directory: path(&facts.documents),
        documents: settings.documents.clone(),
        refused_documents: engine.standing().refused(),
        pods_ready: count(engine.pods(&ready).len()),
        containers_running: count(engine.containers(&running).len()),
        images: count(engine.images().len()),
        image_bytes: engine.image_fs().map(|u| u.images.bytes).unwrap_or_default(),
        subnet: engine.subnets(),
        bridge: facts.bridge.clone(),
        pending_restart: engine.standing().pending().into_iter().map(|change| change.field).collect(),
        unknown_pods: engine.unknown_pods().into_iter().map(|(id, why)| format!("{id}: {why}")).collect(),
        handlers: engine.handlers(),
        prefetch: engine.prefetch().into_iter().map(prefetched).collect(),
        settings_problems: engine
            .standing()
            .problems()
            .into_iter()
            .map(|(field, why)| format!("{field}: {why}"))
            .collect(),
    }
}
