//! Events, and the statuses that go with them.
use super::{container_status, pod_status};
use berth_engine::{ContainerView, Event, EventKind, PodView};
use berth_proto::cri as wire;

/// An event with the statuses of its pod and of all containers in it.
pub(crate) fn event(event: &Event) -> wire::ContainerEventResponse {
    let kind = match event.kind {
        EventKind::Created => wire::ContainerEventType::ContainerCreatedEvent,
        EventKind::Started => wire::ContainerEventType::ContainerStartedEvent,
        EventKind::Stopped => wire::ContainerEventType::ContainerStoppedEvent,
        EventKind::Deleted => wire::ContainerEventType::ContainerDeletedEvent,
    };
    wire::ContainerEventResponse {
        container_id: event.id.clone(),
        container_event_type: kind as i32,
        created_at: event.at,
        pod_sandbox_status: Some(pod_status(&event.pod)),
        containers_statuses: containers_statuses(&event.pod),
    }
}

/// The statuses of all containers of a pod.
pub(crate) fn containers_statuses(pod: &PodView) -> Vec<wire::ContainerStatus> {
    let one = |(id, record): (&berth_model::ContainerId, &berth_engine::ContainerRecord)| {
        container_status(&ContainerView {
            id: id.clone(),
            pod: pod.id.clone(),
            pod_record: pod.record.clone(),
            record: record.clone(),
        })
    };
    pod.record.containers.iter().map(one).collect()
}
