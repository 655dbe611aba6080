//! What changed between two settings, and what it takes to apply it.
use crate::Settings;

/// What it takes to apply a change, lightest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// At once.
    Live,
    /// For containers made from now on.
    NewContainers,
    /// When the daemon starts next.
    DaemonRestart,
}

/// One changed field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Field path.
    pub field: &'static str,
    /// Class.
    pub class: Class,
}

/// The changed fields, in the order of the documents.
pub fn diff(old: &Settings, new: &Settings) -> Vec<Change> {
    // Destructured without `..`: a new field does not compile until it has a class.
    let Settings {
        log_level,
        pids_limit,
        cgroup_manager,
        limits,
        registries,
        network,
        streaming,
        metrics_address,
        policies,
        sources: _,
        documents: _,
    } = new;
    let all = [
        ("spec.runtime.logLevel", *log_level != old.log_level, Class::Live),
        ("spec.runtime.pidsLimit", *pids_limit != old.pids_limit, Class::NewContainers),
        ("spec.runtime.cgroupManager", *cgroup_manager != old.cgroup_manager, Class::DaemonRestart),
        ("spec.runtime.limits", *limits != old.limits, Class::DaemonRestart),
        ("spec.runtime.streaming.tokenTTL", streaming.token_seconds != old.streaming.token_seconds, Class::Live),
        (
            "spec.runtime.streaming",
            (streaming.bind, &streaming.tls) != (old.streaming.bind, &old.streaming.tls),
            Class::DaemonRestart,
        ),
        ("spec.registries", *registries != old.registries, Class::Live),
        ("spec.network", *network != old.network, Class::DaemonRestart),
        ("spec.metrics.address", *metrics_address != old.metrics_address, Class::DaemonRestart),
        ("ImagePolicy", *policies != old.policies, Class::Live),
    ];
    all.into_iter().filter(|(_, changed, _)| *changed).map(|(field, _, class)| Change { field, class }).collect()
}
