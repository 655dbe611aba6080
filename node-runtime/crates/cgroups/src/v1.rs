//! Limits on cgroup v1: what is written in which order, and what the kernel has. Planning is pure but for reading present
//! values. (Documentation/admin-guide/cgroup-v1/{memory,cpusets,hugetlb,pids}.rst, scheduler/sched-bwc.rst)
use crate::view::View;
use crate::writes::Write;
use berth_model::{Error, ErrorKind, HugepageLimit, Resources, Result};

const LIMIT: &str = "memory.limit_in_bytes";
const MEMSW: &str = "memory.memsw.limit_in_bytes";
/// The kernel's "no limit" is the largest multiple of the page size below 2^63; anything near it means the same.
const UNLIMITED: u64 = 1 << 62;

/// The writes for these limits. `fresh`: the group was just made.
pub(crate) fn plan(view: &View, r: &Resources, fresh: bool) -> Result<Vec<Write>> {
    if let Some(key) = r.unified.keys().next() {
        return Err(Error::new(
            ErrorKind::FailedPrecondition,
            format!("unified: {key} is a cgroup v2 file, but this node's controllers are on cgroup v1"),
        ));
    }
    let mut writes = Vec::new();
    for (file, list) in [("cpuset.cpus", &r.cpuset_cpus), ("cpuset.mems", &r.cpuset_mems)] {
        if !list.is_empty() {
            writes.push(Write::new("cpuset", file, list));
        }
    }
    if let Some(shares) = r.cpu_shares {
        writes.push(Write::new("cpu", "cpu.shares", shares));
    }
    match (r.cpu_period, r.cpu_quota.map(|quota| quota.max(-1))) {
        (Some(period), Some(quota)) => writes.extend([
            Write::new("cpu", "cpu.cfs_period_us", period).swappable(),
            Write::new("cpu", "cpu.cfs_quota_us", quota),
        ]),
        (Some(period), None) => writes.push(Write::new("cpu", "cpu.cfs_period_us", period)),
        (None, Some(quota)) => writes.push(Write::new("cpu", "cpu.cfs_quota_us", quota)),
        (None, None) => {}
    }
    writes.extend(memory(view, r, fresh));
    if let Some(pids) = r.pids {
        writes.push(Write::new("pids", "pids.max", pids));
    }
    writes.extend(hugepages(view, r, "limit_in_bytes")?);
    Ok(writes)
}

/// Hugepage limits, for both versions. The kubelet sends a zero for every size that a pod does not ask for; where the node
/// lacks the controller such a zero is left out, as containerd does, anything else is refused.
pub(crate) fn hugepages(view: &View, r: &Resources, suffix: &str) -> Result<Vec<Write>> {
    let mut writes = Vec::new();
    for HugepageLimit { page_size, limit } in &r.hugepages {
        let file = format!("hugetlb.{page_size}.{suffix}");
        if view.group("hugetlb").is_some_and(|group| group.has(&file)) {
            writes.push(Write::new("hugetlb", file, limit));
            writes.push(Write::new("hugetlb", format!("hugetlb.{page_size}.rsvd.{suffix}"), limit).optional(true));
        } else if *limit > 0 {
            let problem = format!("this node cannot limit pages of {page_size}: no {file} (hugetlb controller)");
            return Err(Error::new(ErrorKind::FailedPrecondition, format!("hugepage_limits: {problem}")));
        }
    }
    Ok(writes)
}

/// The kernel keeps limit <= limit of memory plus swap at every moment, so the order depends on the present values.
fn memory(view: &View, r: &Resources, fresh: bool) -> Vec<Write> {
    let present = |file| view.number("memory", file);
    let has_swap = present(MEMSW).is_some();
    let swap = match (r.memory_limit, r.memory_swap_limit) {
        (_, Some(swap)) => Some(swap.max(-1)),
        (Some(limit), None) if limit < 0 => has_swap.then_some(-1),
        // A new limit alone means no swap; later it moves what was equal to it, and what would be below it.
        (Some(limit), None) => {
            let was_equal = present(MEMSW) == present(LIMIT);
            let too_small = present(MEMSW).is_some_and(|swap| swap < limit.unsigned_abs());
            (has_swap && (fresh || was_equal || too_small)).then_some(limit)
        }
        (None, None) => None,
    };
    let limit = r.memory_limit.map(|limit| Write::new("memory", LIMIT, limit.max(-1)));
    let memsw = swap.map(|swap| {
        // Without swap accounting "no swap beyond the limit" and "no limit" hold as well as they can.
        let trivial = swap < 0 || r.memory_limit == Some(swap);
        Write::new("memory", MEMSW, swap).optional(trivial)
    });
    let swap_first =
        swap.is_some_and(|swap| swap < 0 || present(LIMIT).is_some_and(|limit| swap.unsigned_abs() >= limit));
    if swap_first { memsw.into_iter().chain(limit).collect() } else { limit.into_iter().chain(memsw).collect() }
}

/// What the kernel has.
pub(crate) fn read_back(view: &View) -> Resources {
    let bytes =
        |file| view.number("memory", file).map(|n| if n >= UNLIMITED { -1 } else { i64::try_from(n).unwrap_or(-1) });
    Resources {
        cpu_period: view.number("cpu", "cpu.cfs_period_us"),
        cpu_quota: view.read("cpu", "cpu.cfs_quota_us").and_then(|text| text.parse().ok()),
        cpu_shares: view.number("cpu", "cpu.shares"),
        memory_limit: bytes(LIMIT),
        memory_swap_limit: bytes(MEMSW),
        oom_score_adj: None,
        cpuset_cpus: view.read("cpuset", "cpuset.cpus").unwrap_or_default(),
        cpuset_mems: view.read("cpuset", "cpuset.mems").unwrap_or_default(),
        hugepages: hugepage_limits(view, ".limit_in_bytes"),
        unified: std::collections::BTreeMap::new(),
        pids: view.number("pids", "pids.max"),
    }
}

/// The limits of all page sizes that have one.
pub(crate) fn hugepage_limits(view: &View, suffix: &str) -> Vec<HugepageLimit> {
    let entries = view.group("hugetlb").and_then(|group| group.entries().ok()).unwrap_or_default();
    let mut limits: Vec<HugepageLimit> = entries
        .iter()
        .filter_map(|(file, _)| {
            let page_size = file.strip_prefix("hugetlb.")?.strip_suffix(suffix)?;
            let limit = view.number("hugetlb", file).filter(|n| *n < UNLIMITED)?;
            (!page_size.ends_with(".rsvd")).then(|| HugepageLimit { page_size: page_size.to_owned(), limit })
        })
        .collect();
    limits.sort_by(|a, b| a.page_size.cmp(&b.page_size));
    limits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Layout;
    use crate::files::Tree;

    const NONE: &str = "9223372036854771712\n";

    fn view(files: &[(&str, &str)]) -> (tempfile::TempDir, View) {
        let dir = tempfile::tempdir().unwrap();
        for (name, value) in files {
            std::fs::write(dir.path().join(name), value).unwrap();
        }
        let group = Tree::open(dir.path()).unwrap().group("").unwrap();
        let controllers = ["memory", "cpu", "pids", "hugetlb", "cpuset"].map(str::to_owned).to_vec();
        (dir, View { layout: Layout::V1, v1: vec![(controllers, group)], v2: None })
    }

    fn memory_writes(limit: &str, memsw: &str, r: &Resources, fresh: bool) -> Vec<(String, String)> {
        let (_dir, view) = view(&[(LIMIT, limit), (MEMSW, memsw)]);
        plan(&view, r, fresh).unwrap().into_iter().map(|w| (w.file, w.value)).collect()
    }

    fn pair(first: (&str, i64), second: (&str, i64)) -> Vec<(String, String)> {
        [first, second].map(|(file, value)| (file.to_owned(), value.to_string())).to_vec()
    }

    #[test]
    fn memory_is_written_in_the_order_the_kernel_takes() {
        let both = |limit, swap| Resources {
            memory_limit: Some(limit),
            memory_swap_limit: Some(swap),
            ..Resources::default()
        };
        let alone = |limit| Resources { memory_limit: Some(limit), ..Resources::default() };
        // New: the limit first.
        assert_eq!(memory_writes(NONE, NONE, &both(100, 200), true), pair((LIMIT, 100), (MEMSW, 200)));
        assert_eq!(memory_writes(NONE, NONE, &alone(100), true), pair((LIMIT, 100), (MEMSW, 100)));
        // Grow: swap first. Shrink: limit first. Unlimited: swap first.
        assert_eq!(memory_writes("100", "100", &alone(300), false), pair((MEMSW, 300), (LIMIT, 300)));
        assert_eq!(memory_writes("300", "300", &alone(100), false), pair((LIMIT, 100), (MEMSW, 100)));
        assert_eq!(memory_writes("300", "400", &both(350, 500), false), pair((MEMSW, 500), (LIMIT, 350)));
        assert_eq!(memory_writes("300", "400", &alone(-1), false), pair((MEMSW, -1), (LIMIT, -1)));
        // Swap of its own stays.
        assert_eq!(memory_writes("300", "400", &alone(350), false), vec![(LIMIT.to_owned(), "350".to_owned())]);
    }

    #[test]
    fn hugepages_without_a_controller_are_refused_unless_zero() {
        let page = |limit| Resources {
            hugepages: vec![HugepageLimit { page_size: "2MB".into(), limit }],
            ..Resources::default()
        };
        let (_dir, without) = view(&[]);
        assert_eq!(plan(&without, &page(0), true).unwrap(), vec![]);
        assert_eq!(plan(&without, &page(1), true).unwrap_err().kind(), ErrorKind::FailedPrecondition);
        let (_dir, with) = view(&[("hugetlb.2MB.limit_in_bytes", NONE)]);
        assert_eq!(plan(&with, &page(0), true).unwrap().len(), 2);
        assert_eq!(read_back(&with).hugepages, vec![]);
    }

    #[test]
    fn unified_needs_v2() {
        let (_dir, view) = view(&[]);
        let r = Resources { unified: [("memory.high".to_owned(), "1".to_owned())].into(), ..Resources::default() };
        assert_eq!(plan(&view, &r, true).unwrap_err().kind(), ErrorKind::FailedPrecondition);
    }
}
