//! Containers.
use super::pod::mapping;
use crate::decode::signal_value;
use berth_engine::{ContainerRecord, ContainerView};
use berth_model::{ContainerState, Mount, Propagation, Resources};
use berth_proto::cri as wire;

fn metadata(record: &ContainerRecord) -> Option<wire::ContainerMetadata> {
    let m = &record.config.metadata;
    Some(wire::ContainerMetadata { name: m.name.clone(), attempt: m.attempt })
}

fn image_spec(record: &ContainerRecord) -> Option<wire::ImageSpec> {
    let config = &record.config;
    Some(wire::ImageSpec {
        image: config.image.clone(),
        user_specified_image: config.user_image.clone(),
        ..wire::ImageSpec::default()
    })
}

/// The image as people know it: the kubelet asks for images by id, and shows what stands here as the container's image.
fn shown_image(record: &ContainerRecord) -> Option<wire::ImageSpec> {
    let mut spec = image_spec(record)?;
    if !spec.user_specified_image.is_empty() {
        spec.image = spec.user_specified_image.clone();
    }
    Some(spec)
}

fn state(record: &ContainerRecord) -> i32 {
    let state = match record.state() {
        ContainerState::Created => wire::ContainerState::ContainerCreated,
        ContainerState::Running => wire::ContainerState::ContainerRunning,
        ContainerState::Exited => wire::ContainerState::ContainerExited,
        ContainerState::Unknown => wire::ContainerState::ContainerUnknown,
    };
    state as i32
}

/// A container in a list.
pub(crate) fn container(view: &ContainerView) -> wire::Container {
    let record = &view.record;
    wire::Container {
        id: view.id.to_string(),
        pod_sandbox_id: view.pod.to_string(),
        metadata: metadata(record),
        image: image_spec(record),
        image_ref: record.image_ref.clone(),
        state: state(record),
        created_at: record.created_at,
        labels: record.config.labels.clone().into_iter().collect(),
        annotations: record.config.annotations.clone().into_iter().collect(),
        image_id: record.image_id.to_string(),
    }
}

/// A container's status. Mounts are echoed as they were asked for: the kubelet finds the termination log by them.
pub(crate) fn container_status(view: &ContainerView) -> wire::ContainerStatus {
    let record = &view.record;
    let config = &record.config;
    let exit = record.exit();
    wire::ContainerStatus {
        id: view.id.to_string(),
        metadata: metadata(record),
        state: state(record),
        created_at: record.created_at,
        started_at: record.started_at(),
        finished_at: exit.map_or(0, |e| e.finished_at),
        exit_code: exit.map_or(0, |e| e.code),
        image: shown_image(record),
        image_ref: record.image_ref.clone(),
        reason: exit.map_or_else(String::new, |e| e.reason.as_str().to_owned()),
        message: exit.map_or_else(String::new, |e| e.message.clone()),
        labels: config.labels.clone().into_iter().collect(),
        annotations: config.annotations.clone().into_iter().collect(),
        mounts: mounts(record),
        log_path: record.log_path.as_ref().map_or_else(String::new, |p| p.to_string_lossy().into_owned()),
        resources: Some(wire::ContainerResources { linux: Some(resources(&record.resources)), windows: None }),
        image_id: record.image_id.to_string(),
        user: record.identity.as_ref().map(user),
        stop_signal: signal_value(record.stop_signal),
    }
}

fn user(identity: &berth_engine::Identity) -> wire::ContainerUser {
    let groups = identity.groups.iter().map(|g| i64::from(*g)).collect();
    let linux = wire::LinuxContainerUser {
        uid: i64::from(identity.uid),
        gid: i64::from(identity.gid),
        supplemental_groups: groups,
    };
    wire::ContainerUser { linux: Some(linux) }
}

/// Image volumes tell in `image_ref` what they were resolved to (KEP-5365), by the id that PullImage gave.
fn mounts(record: &ContainerRecord) -> Vec<wire::Mount> {
    let mut volumes = record.image_volumes.iter();
    let all = record.config.mounts.iter();
    all.map(|m| mount(m, m.image.as_ref().and_then(|_| volumes.next()).map(ToString::to_string))).collect()
}

fn mount(mount: &Mount, image_id: Option<String>) -> wire::Mount {
    let propagation = match mount.propagation {
        Propagation::Private => wire::MountPropagation::PropagationPrivate,
        Propagation::HostToContainer => wire::MountPropagation::PropagationHostToContainer,
        Propagation::Bidirectional => wire::MountPropagation::PropagationBidirectional,
    };
    let image = mount.image.as_ref();
    wire::Mount {
        container_path: mount.container_path.clone(),
        host_path: mount.host_path.clone(),
        readonly: mount.readonly,
        selinux_relabel: mount.selinux_relabel,
        propagation: propagation as i32,
        uid_mappings: mount.uid_mappings.iter().copied().map(mapping).collect(),
        gid_mappings: mount.gid_mappings.iter().copied().map(mapping).collect(),
        recursive_read_only: mount.recursive_read_only,
        image: image.map(|i| wire::ImageSpec {
            image: i.image.clone(),
            user_specified_image: i.user_image.clone(),
            image_ref: image_id.unwrap_or_default(),
            ..wire::ImageSpec::default()
        }),
        image_sub_path: image.map_or_else(String::new, |i| i.sub_path.clone()),
        mount_options: mount.options.names().into_iter().map(str::to_owned).collect(),
    }
}

/// Limits in force; what was never said is zero again.
fn resources(r: &Resources) -> wire::LinuxContainerResources {
    let signed = |v: Option<u64>| v.map_or(0, |v| i64::try_from(v).unwrap_or(i64::MAX));
    wire::LinuxContainerResources {
        cpu_period: signed(r.cpu_period),
        cpu_quota: r.cpu_quota.unwrap_or(0),
        cpu_shares: signed(r.cpu_shares),
        memory_limit_in_bytes: r.memory_limit.unwrap_or(0),
        oom_score_adj: i64::from(r.oom_score_adj.unwrap_or(0)),
        cpuset_cpus: r.cpuset_cpus.clone(),
        cpuset_mems: r.cpuset_mems.clone(),
        hugepage_limits: r
            .hugepages
            .iter()
            .map(|h| wire::HugepageLimit { page_size: h.page_size.clone(), limit: h.limit })
            .collect(),
        unified: r.unified.clone().into_iter().collect(),
        memory_swap_limit_in_bytes: r.memory_swap_limit.unwrap_or(0),
    }
}
