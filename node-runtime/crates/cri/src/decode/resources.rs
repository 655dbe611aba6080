//! LinuxContainerResources. Zero means "not said" on this wire.
use super::bounded;
use berth_model::{Error, HugepageLimit, Resources, Result};
use berth_proto::cri as wire;

/// Decodes limits of a new container or pod.
pub(crate) fn resources(field: &str, wire: wire::LinuxContainerResources) -> Result<Resources> {
    let positive = |name: &str, value: i64| match value {
        0 => Ok(None),
        v => u64::try_from(v).map(Some).map_err(|_| Error::invalid(format!("{field}.{name}"), "must not be negative")),
    };
    let oom = i32::try_from(wire.oom_score_adj).ok().filter(|v| (-1000..=1000).contains(v));
    let oom = oom.ok_or_else(|| Error::invalid(format!("{field}.oom_score_adj"), "must be -1000 to 1000"))?;
    Ok(Resources {
        cpu_period: positive("cpu_period", wire.cpu_period)?,
        cpu_quota: said(wire.cpu_quota),
        cpu_shares: positive("cpu_shares", wire.cpu_shares)?,
        memory_limit: said(wire.memory_limit_in_bytes),
        memory_swap_limit: said(wire.memory_swap_limit_in_bytes),
        oom_score_adj: Some(oom),
        cpuset_cpus: bounded(&format!("{field}.cpuset_cpus"), wire.cpuset_cpus)?,
        cpuset_mems: bounded(&format!("{field}.cpuset_mems"), wire.cpuset_mems)?,
        hugepages: wire
            .hugepage_limits
            .into_iter()
            .map(|l| HugepageLimit { page_size: l.page_size, limit: l.limit })
            .collect(),
        unified: wire.unified.into_iter().collect(),
        pids: None,
    })
}

/// Decodes an update: a score of 0 does not say anything there.
pub(crate) fn update(field: &str, wire: wire::LinuxContainerResources) -> Result<Resources> {
    let unsaid = wire.oom_score_adj == 0;
    let mut resources = resources(field, wire)?;
    if unsaid {
        resources.oom_score_adj = None;
    }
    Ok(resources)
}

fn said(value: i64) -> Option<i64> {
    (value != 0).then_some(value)
}
