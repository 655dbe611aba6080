//! Requests and limits, and the cgroup values that a kubelet makes of them (`pkg/kubelet/cm/helpers_linux.go`,
//! `pkg/kubelet/qos/policy.go`).

/// CFS period in microseconds.
pub const PERIOD: i64 = 100_000;
const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;
const MIN_QUOTA: i64 = 1000;

/// Of one container; `None` is not said. CPU in millicores, memory in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requirements {
    pub cpu_request: Option<i64>,
    pub cpu_limit: Option<i64>,
    pub memory_request: Option<i64>,
    pub memory_limit: Option<i64>,
}

impl Requirements {
    /// A request that is not said is the limit, as the API server sets it.
    #[must_use]
    pub fn with_defaults(self) -> Self {
        let Self { cpu_request, cpu_limit, memory_request, memory_limit } = self;
        Self {
            cpu_request: cpu_request.or(cpu_limit),
            memory_request: memory_request.or(memory_limit),
            cpu_limit,
            memory_limit,
        }
    }

    /// CPU shares of the request.
    pub fn shares(&self) -> i64 {
        let milli = self.cpu_request.unwrap_or(0);
        milli.saturating_mul(1024).wrapping_div(1000).clamp(MIN_SHARES, MAX_SHARES)
    }

    /// CFS quota of the limit, in microseconds per [`PERIOD`]; 0 is none.
    pub fn quota(&self) -> i64 {
        match self.cpu_limit {
            None | Some(0) => 0,
            Some(milli) => (milli.saturating_mul(PERIOD) / 1000).max(MIN_QUOTA),
        }
    }

    fn nothing(&self) -> bool {
        [self.cpu_request, self.cpu_limit, self.memory_request, self.memory_limit].iter().all(|v| v.unwrap_or(0) == 0)
    }

    fn guaranteed(&self) -> bool {
        let same = |request: Option<i64>, limit: Option<i64>| limit.unwrap_or(0) > 0 && request == limit;
        same(self.cpu_request, self.cpu_limit) && same(self.memory_request, self.memory_limit)
    }
}

/// Who is killed first when the node runs out of memory, by the pod's class of service.
pub fn oom_score_adj(container: &Requirements, pod: &[&Requirements], node_memory: i64) -> i64 {
    if pod.iter().all(|r| r.guaranteed()) {
        return -997;
    }
    if pod.iter().all(|r| r.nothing()) {
        return 1000;
    }
    let request = container.memory_request.unwrap_or(0);
    let share = i128::from(request) * 1000 / i128::from(node_memory.max(1));
    // Above guaranteed pods (3 is what -997 leaves), below those that promise nothing.
    (1000 - i64::try_from(share).unwrap_or(1000)).clamp(3, 999)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(cpu: (Option<i64>, Option<i64>), memory: (Option<i64>, Option<i64>)) -> Requirements {
        let (cpu_request, cpu_limit) = cpu;
        let (memory_request, memory_limit) = memory;
        Requirements { cpu_request, cpu_limit, memory_request, memory_limit }.with_defaults()
    }

    #[test]
    fn shares_and_quota_are_the_kubelets() {
        let shares =
            [(None, 2), (Some(0), 2), (Some(1), 2), (Some(500), 512), (Some(1000), 1024), (Some(i64::MAX), 262_144)];
        for (milli, wanted) in shares {
            assert_eq!(of((milli, None), (None, None)).shares(), wanted, "{milli:?}");
        }
        let quotas =
            [(None, 0), (Some(0), 0), (Some(1), 1000), (Some(10), 1000), (Some(500), 50_000), (Some(1500), 150_000)];
        for (milli, wanted) in quotas {
            assert_eq!(of((None, milli), (None, None)).quota(), wanted, "{milli:?}");
        }
        assert_eq!(of((None, Some(500)), (None, None)).shares(), 512, "the limit is the request");
        assert_eq!(of((Some(100), Some(500)), (None, None)).shares(), 102);
    }

    #[test]
    fn scores_follow_the_class_of_service() {
        let (gib, mib) = (1 << 30, 1 << 20);
        let full = of((None, Some(500)), (None, Some(128 * mib)));
        let half = of((Some(100), None), (Some(gib), None));
        let none = of((None, None), (None, None));
        assert_eq!(oom_score_adj(&full, &[&full], 4 * gib), -997);
        assert_eq!(oom_score_adj(&none, &[&none, &none], 4 * gib), 1000);
        assert_eq!(oom_score_adj(&half, &[&half], 4 * gib), 750);
        assert_eq!(oom_score_adj(&half, &[&half], gib), 3);
        assert_eq!(oom_score_adj(&none, &[&none, &full], 4 * gib), 999);
        assert_eq!(oom_score_adj(&full, &[&full, &none], 4 * gib), 1000 - 31);
    }
}
