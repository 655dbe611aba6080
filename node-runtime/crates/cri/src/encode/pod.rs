//! Pod sandboxes.
use berth_engine::PodView;
use berth_model::{IdMapping, NamespaceMode, PodMetadata, PodState, SecurityContext};
use berth_proto::cri as wire;

pub(super) fn metadata(m: &PodMetadata) -> Option<wire::PodSandboxMetadata> {
    let m = m.clone();
    Some(wire::PodSandboxMetadata { name: m.name, uid: m.uid, namespace: m.namespace, attempt: m.attempt })
}

fn state(view: &PodView) -> i32 {
    match view.record.state() {
        PodState::Ready => wire::PodSandboxState::SandboxReady as i32,
        PodState::NotReady => wire::PodSandboxState::SandboxNotready as i32,
    }
}

/// A pod in a list.
pub(crate) fn pod(view: &PodView) -> wire::PodSandbox {
    let config = &view.record.config;
    wire::PodSandbox {
        id: view.id.to_string(),
        metadata: metadata(&config.metadata),
        state: state(view),
        created_at: view.record.created_at,
        labels: config.labels.clone().into_iter().collect(),
        annotations: config.annotations.clone().into_iter().collect(),
        runtime_handler: config.handler.clone(),
    }
}

/// A pod's status. The namespace modes are echoed: the kubelet makes a new sandbox when they differ (cri-contract 2.4).
pub(crate) fn pod_status(view: &PodView) -> wire::PodSandboxStatus {
    let config = &view.record.config;
    let mut addresses = view.record.addresses().into_iter().map(|a| a.to_string());
    let ip = addresses.next().unwrap_or_default();
    let additional_ips = addresses.map(|ip| wire::PodIp { ip }).collect();
    wire::PodSandboxStatus {
        id: view.id.to_string(),
        metadata: metadata(&config.metadata),
        state: state(view),
        created_at: view.record.created_at,
        network: Some(wire::PodSandboxNetworkStatus { ip, additional_ips }),
        linux: Some(wire::LinuxPodSandboxStatus {
            namespaces: Some(wire::Namespace { options: Some(namespaces(&config.security)) }),
        }),
        labels: config.labels.clone().into_iter().collect(),
        annotations: config.annotations.clone().into_iter().collect(),
        runtime_handler: config.handler.clone(),
    }
}

fn namespaces(security: &SecurityContext) -> wire::NamespaceOption {
    let options = &security.namespaces;
    wire::NamespaceOption {
        network: mode(options.network),
        pid: mode(options.pid),
        ipc: mode(options.ipc),
        target_id: options.target.clone(),
        userns_options: options.user.map(|(uid, gid)| wire::UserNamespace {
            mode: wire::NamespaceMode::Pod as i32,
            uids: vec![mapping(uid)],
            gids: vec![mapping(gid)],
        }),
    }
}

pub(super) fn mapping(m: IdMapping) -> wire::IdMapping {
    wire::IdMapping { host_id: m.host, container_id: m.container, length: m.length }
}

fn mode(mode: NamespaceMode) -> i32 {
    let mode = match mode {
        NamespaceMode::Pod => wire::NamespaceMode::Pod,
        NamespaceMode::Container => wire::NamespaceMode::Container,
        NamespaceMode::Node => wire::NamespaceMode::Node,
        NamespaceMode::Target => wire::NamespaceMode::Target,
    };
    mode as i32
}
