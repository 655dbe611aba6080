//! Limits on cgroup v2: what is written, and what the kernel has. Planning is pure but for reading present values.
//! (Documentation/admin-guide/cgroup-v2.rst)
use crate::convert::{shares_to_weight, weight_to_shares};
use crate::v1::{hugepage_limits, hugepages};
use crate::view::View;
use crate::writes::{Write, below_usage};
use berth_model::{Error, ErrorKind, Resources, Result};
use std::collections::BTreeMap;

/// The kernel's default CFS period in microseconds.
const PERIOD: u64 = 100_000;
/// Files of [`Resources::unified`] that are read back, with the value that means "not set".
const UNIFIED: [(&str, &str); 4] =
    [("memory.min", "0"), ("memory.low", "0"), ("memory.high", "max"), ("memory.oom.group", "0")];

/// The writes for these limits. `fresh`: the group was just made.
pub(crate) fn plan(view: &View, r: &Resources, fresh: bool) -> Result<Vec<Write>> {
    let mut writes = Vec::new();
    for (file, list) in [("cpuset.cpus", &r.cpuset_cpus), ("cpuset.mems", &r.cpuset_mems)] {
        if !list.is_empty() {
            writes.push(Write::new("cpuset", file, list));
        }
    }
    if let Some(shares) = r.cpu_shares {
        writes.push(Write::new("cpu", "cpu.weight", shares_to_weight(shares)));
    }
    if r.cpu_period.is_some() || r.cpu_quota.is_some() {
        let (quota, period) = cpu_max(view);
        let quota = r.cpu_quota.or(quota).filter(|quota| *quota >= 0);
        let quota = quota.map_or("max".to_owned(), |quota| quota.to_string());
        writes.push(Write::new("cpu", "cpu.max", format!("{quota} {}", r.cpu_period.unwrap_or(period))));
    }
    writes.extend(memory(view, r, fresh)?);
    if let Some(pids) = r.pids {
        writes.push(Write::new("pids", "pids.max", pids));
    }
    writes.extend(hugepages(view, r, "max")?);
    for (file, value) in &r.unified {
        let controller = file.split_once('.').map_or(file.as_str(), |(controller, _)| controller);
        writes.push(Write::new(controller, file, value));
    }
    Ok(writes)
}

/// Quota (none: unlimited) and period now.
fn cpu_max(view: &View) -> (Option<i64>, u64) {
    let text = view.read("cpu", "cpu.max").unwrap_or_default();
    let (quota, period) = text.split_once(' ').unwrap_or((&text, ""));
    (quota.parse().ok(), period.parse().unwrap_or(PERIOD))
}

fn memory(view: &View, r: &Resources, fresh: bool) -> Result<Vec<Write>> {
    let max = |bytes: i64| if bytes < 0 { "max".to_owned() } else { bytes.to_string() };
    let mut writes = Vec::new();
    if let Some(limit) = r.memory_limit {
        writes.push(Write::new("memory", "memory.max", max(limit)));
    }
    let swap = match (r.memory_swap_limit, r.memory_limit) {
        (Some(swap), _) if swap < 0 => Some(-1),
        (Some(both), limit) => {
            let present = || view.number("memory", "memory.max").and_then(|n| i64::try_from(n).ok());
            let limit = limit.or_else(present).filter(|limit| *limit >= 0 && *limit <= both);
            let Some(limit) = limit else {
                return Err(Error::invalid(
                    "memory_swap_limit_in_bytes",
                    format!("{both} counts memory and swap together and needs a memory limit not above it"),
                ));
            };
            Some(both - limit)
        }
        // A memory limit alone means no swap; on update the swap limit is one of its own.
        (None, Some(limit)) if fresh && limit >= 0 => Some(0),
        (None, _) => None,
    };
    if let Some(swap) = swap {
        writes.push(Write::new("memory", "memory.swap.max", max(swap)).optional(swap <= 0));
    }
    Ok(writes)
}

/// Before an update: a limit below what is in use would have the kernel kill, so what can be freed is freed first
/// (`memory.reclaim`, from 5.19 on), and if that is not enough the update is refused.
pub(crate) fn make_room(view: &View, r: &Resources) -> Result<()> {
    let Some(limit) = r.memory_limit.and_then(|limit| u64::try_from(limit).ok()) else { return Ok(()) };
    let usage = || view.number("memory", "memory.current").unwrap_or_default();
    let excess = usage().saturating_sub(limit);
    if excess == 0 {
        return Ok(());
    }
    if let Some(group) = view.group("memory") {
        // EAGAIN: freed less than asked for. The count below decides.
        let _ = group.write("memory.reclaim", &excess.to_string());
    }
    let usage = usage();
    if usage <= limit {
        return Ok(());
    }
    let what = format!("cannot set memory.max of {} to {limit}", view.name("memory"));
    Err(below_usage(&what, usage, view.number("memory", "memory.peak")))
}

/// What the kernel has. Shares are those of [`weight_to_shares`].
pub(crate) fn read_back(view: &View) -> Resources {
    let bytes = |file| match view.read("memory", file)?.as_str() {
        "max" => Some(-1),
        text => text.parse::<i64>().ok(),
    };
    let limit = bytes("memory.max");
    let swap = match (limit, bytes("memory.swap.max")) {
        (Some(limit), Some(swap)) if limit >= 0 && swap >= 0 => Some(limit.saturating_add(swap)),
        (Some(_), Some(_)) => Some(-1),
        _ => None,
    };
    let cpu = view.read("cpu", "cpu.max").map(|_| cpu_max(view));
    let unified: BTreeMap<String, String> = UNIFIED
        .iter()
        .filter_map(|(file, unset)| {
            let value = view.read("memory", file)?;
            (value != *unset).then(|| ((*file).to_owned(), value))
        })
        .collect();
    Resources {
        cpu_period: cpu.map(|(_, period)| period),
        cpu_quota: cpu.map(|(quota, _)| quota.unwrap_or(-1)),
        cpu_shares: view.number("cpu", "cpu.weight").map(weight_to_shares),
        memory_limit: limit,
        memory_swap_limit: swap,
        oom_score_adj: None,
        cpuset_cpus: view.read("cpuset", "cpuset.cpus").unwrap_or_default(),
        cpuset_mems: view.read("cpuset", "cpuset.mems").unwrap_or_default(),
        hugepages: hugepage_limits(view, ".max"),
        unified,
        pids: view.number("pids", "pids.max"),
    }
}

/// The controllers whose limits or readings we use.
const USED: [&str; 6] = ["cpu", "cpuset", "memory", "pids", "io", "hugetlb"];

/// Turns those on for the children of a group, jointly, or one by one where that fails. The result is what could not
/// be turned on, with the reason.
pub(crate) fn enable_controllers(group: &crate::files::Group) -> Vec<(String, std::io::Error)> {
    let list = |file| group.read(file).unwrap_or_default();
    let (available, enabled) = (list("cgroup.controllers"), list("cgroup.subtree_control"));
    let enabled: Vec<&str> = enabled.split_whitespace().collect();
    let missing: Vec<&str> =
        available.split_whitespace().filter(|c| USED.contains(c) && !enabled.contains(c)).collect();
    if missing.is_empty() {
        return Vec::new();
    }
    let all: Vec<String> = missing.iter().map(|c| format!("+{c}")).collect();
    if group.write("cgroup.subtree_control", &all.join(" ")).is_ok() {
        return Vec::new();
    }
    let one = |c: &&str| group.write("cgroup.subtree_control", &format!("+{c}")).err().map(|e| ((*c).to_owned(), e));
    missing.iter().filter_map(one).collect()
}

/// Errors: `FailedPrecondition` if the kernel marks the group as unusable (a threaded neighbourhood).
pub(crate) fn check_type(group: &crate::files::Group) -> Result<()> {
    let kind = group.read("cgroup.type").unwrap_or_default();
    if kind.trim() == "domain invalid" {
        let problem = format!("{} is of type \"domain invalid\": a group above it is threaded", group.path().display());
        return Err(Error::new(ErrorKind::FailedPrecondition, problem));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Layout;
    use crate::files::Tree;
    use crate::writes::apply;
    use berth_model::HugepageLimit;

    const NEW: [(&str, &str); 9] = [
        ("cpu.max", "max 100000\n"),
        ("cpu.weight", "100\n"),
        ("memory.max", "max\n"),
        ("memory.swap.max", "max\n"),
        ("memory.high", "max\n"),
        ("pids.max", "max\n"),
        ("cpuset.cpus", "\n"),
        ("cpuset.mems", "\n"),
        ("hugetlb.2MB.max", "max\n"),
    ];

    fn view(files: &[(&str, &str)]) -> (tempfile::TempDir, View) {
        let dir = tempfile::tempdir().unwrap();
        for (name, value) in files {
            std::fs::write(dir.path().join(name), value).unwrap();
        }
        let group = Tree::open(dir.path()).unwrap().group("").unwrap();
        (dir, View { layout: Layout::V2, v1: Vec::new(), v2: Some(group) })
    }

    #[test]
    fn a_new_group_gets_its_limits_and_they_read_back() {
        let (_dir, view) = view(&NEW);
        let r = Resources {
            cpu_quota: Some(50_000),
            cpu_shares: Some(1024),
            memory_limit: Some(1 << 27),
            memory_swap_limit: Some((1 << 27) + 4096),
            cpuset_cpus: "0-1".into(),
            hugepages: vec![HugepageLimit { page_size: "2MB".into(), limit: 0 }],
            unified: [("memory.high".to_owned(), "100000000".to_owned())].into(),
            pids: Some(10),
            ..Resources::default()
        };
        apply(&view, &plan(&view, &r, true).unwrap()).unwrap();
        assert_eq!(view.read("cpu", "cpu.max").unwrap(), "50000 100000");
        assert_eq!(view.read("cpu", "cpu.weight").unwrap(), "100");
        assert_eq!(view.read("memory", "memory.swap.max").unwrap(), "4096");
        let back = read_back(&view);
        assert_eq!(back, Resources { cpu_period: Some(100_000), ..r });
    }

    #[test]
    fn swap_is_what_exceeds_the_limit() {
        let (_dir, view) = view(&NEW);
        let swap = |limit, both, fresh| {
            let r = Resources { memory_limit: limit, memory_swap_limit: both, ..Resources::default() };
            let writes = plan(&view, &r, fresh)?;
            Ok::<_, Error>(writes.into_iter().find(|w| w.file == "memory.swap.max").map(|w| w.value))
        };
        assert_eq!(swap(Some(100), Some(100), false).unwrap().as_deref(), Some("0"));
        assert_eq!(swap(Some(100), None, true).unwrap().as_deref(), Some("0"));
        assert_eq!(swap(Some(100), None, false).unwrap(), None);
        assert_eq!(swap(Some(100), Some(-1), true).unwrap().as_deref(), Some("max"));
        assert!(swap(None, Some(100), false).is_err(), "a sum without its other part");
    }

    #[test]
    fn a_quota_or_a_period_alone_keeps_the_other() {
        let (dir, view) = view(&NEW);
        std::fs::write(dir.path().join("cpu.max"), "20000 50000\n").unwrap();
        let max = |r: Resources| plan(&view, &r, false).unwrap()[0].value.clone();
        assert_eq!(max(Resources { cpu_quota: Some(30_000), ..Resources::default() }), "30000 50000");
        assert_eq!(max(Resources { cpu_period: Some(70_000), ..Resources::default() }), "20000 70000");
        assert_eq!(max(Resources { cpu_quota: Some(-1), ..Resources::default() }), "max 50000");
    }

    #[test]
    fn a_limit_below_usage_is_refused_with_the_usage() {
        let (_dir, view) = view(&[("memory.current", "5000\n"), ("memory.peak", "6000\n")]);
        let limit = |n| Resources { memory_limit: Some(n), ..Resources::default() };
        make_room(&view, &limit(5000)).unwrap();
        make_room(&view, &limit(-1)).unwrap();
        let e = make_room(&view, &limit(4999)).unwrap_err();
        assert!(e.message().contains("5000 bytes, peak 6000"), "{e}");
        // Before 5.19 there is neither a peak to tell nor a way to have memory freed.
        let (dir, view) = self::view(&[("memory.current", "5000\n")]);
        let e = make_room(&view, &limit(4999)).unwrap_err();
        assert!(e.message().contains("(5000 bytes)"), "{e}");
        assert!(!dir.path().join("memory.reclaim").exists(), "a file of that name is the kernel's to make");
    }
}
