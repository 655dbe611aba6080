//! Filters; one that is absent matches everything.
use super::enumeration;
use berth_engine::{ContainerFilter, PodFilter, StatsFilter};
use berth_model::{ContainerState, PodState, Result};
use berth_proto::cri as wire;

/// Which pods.
pub(crate) fn pod_filter(filter: Option<wire::PodSandboxFilter>) -> Result<PodFilter> {
    let filter = filter.unwrap_or_default();
    let state = match filter.state {
        None => None,
        Some(value) => Some(match enumeration("filter.state", value.state)? {
            wire::PodSandboxState::SandboxReady => PodState::Ready,
            wire::PodSandboxState::SandboxNotready => PodState::NotReady,
        }),
    };
    Ok(PodFilter { id: filter.id, state, labels: filter.label_selector.into_iter().collect() })
}

/// Which containers.
pub(crate) fn container_filter(filter: Option<wire::ContainerFilter>) -> Result<ContainerFilter> {
    let filter = filter.unwrap_or_default();
    let state = match filter.state {
        None => None,
        Some(value) => Some(match enumeration("filter.state", value.state)? {
            wire::ContainerState::ContainerCreated => ContainerState::Created,
            wire::ContainerState::ContainerRunning => ContainerState::Running,
            wire::ContainerState::ContainerExited => ContainerState::Exited,
            wire::ContainerState::ContainerUnknown => ContainerState::Unknown,
        }),
    };
    let labels = filter.label_selector.into_iter().collect();
    Ok(ContainerFilter { id: filter.id, pod: filter.pod_sandbox_id, state, labels })
}

/// Whose pods' readings.
pub(crate) fn pod_stats_filter(filter: Option<wire::PodSandboxStatsFilter>) -> PodFilter {
    let filter = filter.unwrap_or_default();
    PodFilter { id: filter.id, state: None, labels: filter.label_selector.into_iter().collect() }
}

/// Whose readings.
pub(crate) fn stats_filter(filter: Option<wire::ContainerStatsFilter>) -> StatsFilter {
    let filter = filter.unwrap_or_default();
    StatsFilter { id: filter.id, pod: filter.pod_sandbox_id, labels: filter.label_selector.into_iter().collect() }
}
