//! Resource limits as the CRI states them (LinuxContainerResources).
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `None` means: leave as it is (update), or no limit (create).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// CFS period in microseconds.
    pub cpu_period: Option<u64>,
    /// CFS quota in microseconds; negative means unlimited.
    pub cpu_quota: Option<i64>,
    /// CPU shares, 2 to 262144.
    pub cpu_shares: Option<u64>,
    /// Memory limit in bytes; negative means unlimited.
    pub memory_limit: Option<i64>,
    /// Memory plus swap limit in bytes; negative means unlimited.
    pub memory_swap_limit: Option<i64>,
    /// OOM score adjustment, -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// CPU list, such as `0-3,7`; empty means leave.
    pub cpuset_cpus: String,
    /// Memory nodes list; empty means leave.
    pub cpuset_mems: String,
    /// Limits on huge pages.
    pub hugepages: Vec<HugepageLimit>,
    /// cgroup v2 files to write as they are (KEP-2570).
    pub unified: BTreeMap<String, String>,
    /// Process limit; the runtime's own setting, the CRI has none.
    pub pids: Option<u64>,
}

/// A limit on one page size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HugepageLimit {
    /// Size as in cgroup file names, such as `2MB`.
    pub page_size: String,
    /// Limit in bytes.
    pub limit: u64,
}

impl Resources {
    /// Takes over each value that `update` sets and keeps the others: the semantics of UpdateContainerResources.
    pub fn merge(&mut self, update: &Resources) {
        let Resources {
            cpu_period,
            cpu_quota,
            cpu_shares,
            memory_limit,
            memory_swap_limit,
            oom_score_adj,
            cpuset_cpus,
            cpuset_mems,
            hugepages,
            unified,
            pids,
        } = update;
        self.cpu_period = cpu_period.or(self.cpu_period);
        self.cpu_quota = cpu_quota.or(self.cpu_quota);
        self.cpu_shares = cpu_shares.or(self.cpu_shares);
        self.memory_limit = memory_limit.or(self.memory_limit);
        self.memory_swap_limit = memory_swap_limit.or(self.memory_swap_limit);
        self.oom_score_adj = oom_score_adj.or(self.oom_score_adj);
        self.pids = pids.or(self.pids);
        if !cpuset_cpus.is_empty() {
            self.cpuset_cpus.clone_from(cpuset_cpus);
        }
        if !cpuset_mems.is_empty() {
            self.cpuset_mems.clone_from(cpuset_mems);
        }
        if !hugepages.is_empty() {
            self.hugepages.clone_from(hugepages);
        }
        self.unified.extend(unified.clone());
    }
}
