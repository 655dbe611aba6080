//! Checks of resource limits before anything is written. Pure: what depends on the machine (page sizes, controllers) is
//! checked where it is written.
use crate::convert::SHARES;
use berth_model::{Error, Resources, Result};

/// The kernel's smallest quota and period and largest period, in microseconds (kernel/sched/core.c).
const QUOTA_MIN: i64 = 1_000;
const PERIOD: std::ops::RangeInclusive<u64> = 1_000..=1_000_000;
/// Highest CPU or memory node number (NR_CPUS of the largest configurations).
const MAX_CPU: u32 = 8_191;
const MAX_LIST: usize = 4_096;
const MAX_UNIFIED: usize = 64;

impl crate::Cgroups {
    /// Checks limits as `create` and `update` would, and writes nothing. Errors: `InvalidArgument` naming the field.
    pub fn check(&self, resources: &Resources) -> Result<()> {
        checked(resources).map(drop)
    }
}

/// The same limits with zeros, which the CRI uses for "not given", turned into `None`, and shares put into the kernel's range.
/// Errors: `InvalidArgument` naming the field.
pub(crate) fn checked(resources: &Resources) -> Result<Resources> {
    let mut r = resources.clone();
    r.cpu_period = r.cpu_period.filter(|v| *v != 0);
    r.cpu_quota = r.cpu_quota.filter(|v| *v != 0);
    r.cpu_shares = r.cpu_shares.filter(|v| *v != 0).map(|v| v.clamp(*SHARES.start(), *SHARES.end()));
    r.memory_limit = r.memory_limit.filter(|v| *v != 0);
    r.memory_swap_limit = r.memory_swap_limit.filter(|v| *v != 0);
    if let Some(period) = r.cpu_period
        && !PERIOD.contains(&period)
    {
        return Err(Error::invalid("cpu_period", format!("{period} is not within 1000 to 1000000 microseconds")));
    }
    if let Some(quota) = r.cpu_quota
        && (0..QUOTA_MIN).contains(&quota)
    {
        return Err(Error::invalid("cpu_quota", format!("{quota} is below 1000 microseconds; -1 means no limit")));
    }
    if let (Some(limit), Some(swap)) = (r.memory_limit, r.memory_swap_limit)
        && swap >= 0
        && (limit < 0 || swap < limit)
    {
        let limit = if limit < 0 { "unlimited".to_owned() } else { limit.to_string() };
        return Err(Error::invalid(
            "memory_swap_limit_in_bytes",
            format!("{swap} is below the memory limit ({limit}); it counts memory and swap together"),
        ));
    }
    if r.pids == Some(0) {
        return Err(Error::invalid("pids limit", "0 would let nothing start; leave it out for no limit"));
    }
    check_list("cpuset_cpus", &r.cpuset_cpus)?;
    check_list("cpuset_mems", &r.cpuset_mems)?;
    for page in &r.hugepages {
        let digits = page.page_size.trim_end_matches(['K', 'M', 'G', 'B']);
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) || !page.page_size.ends_with('B') {
            return Err(Error::invalid(
                "hugepage_limits",
                format!("page size {:?} is not one like 2MB or 1GB", page.page_size),
            ));
        }
    }
    check_unified(&r)?;
    Ok(r)
}

fn check_unified(r: &Resources) -> Result<()> {
    if r.unified.len() > MAX_UNIFIED {
        return Err(Error::invalid("unified", format!("more than {MAX_UNIFIED} entries")));
    }
    for (key, value) in &r.unified {
        let bare = key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        let controller = key.split_once('.').map_or("", |(controller, _)| controller);
        // cgroup.* are the core's own (procs, kill, type, subtree_control): none of them is a limit.
        if !bare || controller.is_empty() || controller == "cgroup" || key.len() > 128 {
            return Err(Error::invalid("unified", format!("{key:?} is not the name of a controller's file")));
        }
        if value.len() > MAX_LIST || value.bytes().any(|b| b == 0) {
            return Err(Error::invalid(
                "unified",
                format!("the value of {key} is longer than {MAX_LIST} bytes or has a NUL"),
            ));
        }
    }
    Ok(())
}

/// The list format of cpuset(7): `0-3,7`. Empty is allowed.
fn check_list(field: &str, list: &str) -> Result<()> {
    let number = |text: &str| text.parse::<u32>().ok().filter(|n| *n <= MAX_CPU && !text.starts_with('+'));
    let range = |part: &str| match part.split_once('-') {
        Some((first, last)) => matches!((number(first), number(last)), (Some(a), Some(b)) if a <= b),
        None => number(part).is_some(),
    };
    if list.is_empty() || (list.len() <= MAX_LIST && list.split(',').all(|part| range(part.trim()))) {
        Ok(())
    } else {
        Err(Error::invalid(field, format!("{list:?} is not a list such as 0-3,7")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_model::HugepageLimit;

    #[test]
    fn zeros_are_left_out_and_shares_clamped() {
        let r = Resources { cpu_quota: Some(0), memory_limit: Some(0), cpu_shares: Some(1), ..Resources::default() };
        let r = checked(&r).unwrap();
        assert_eq!((r.cpu_quota, r.memory_limit, r.cpu_shares), (None, None, Some(2)));
    }

    #[test]
    fn wrong_limits_are_refused_by_name() {
        let unified = |k: &str| Resources { unified: [(k.to_owned(), "1".to_owned())].into(), ..Resources::default() };
        let page = |s: &str| Resources {
            hugepages: vec![HugepageLimit { page_size: s.into(), limit: 0 }],
            ..Resources::default()
        };
        let cases = [
            ("cpu_quota", Resources { cpu_quota: Some(999), ..Resources::default() }),
            ("cpu_period", Resources { cpu_period: Some(1_000_001), ..Resources::default() }),
            ("memory_swap", Resources { memory_limit: Some(100), memory_swap_limit: Some(99), ..Resources::default() }),
            ("pids", Resources { pids: Some(0), ..Resources::default() }),
            ("cpuset_cpus", Resources { cpuset_cpus: "3-1".into(), ..Resources::default() }),
            ("cpuset_mems", Resources { cpuset_mems: "0,".into(), ..Resources::default() }),
            ("cpuset_cpus", Resources { cpuset_cpus: "+1".into(), ..Resources::default() }),
            ("unified", unified("../cgroup.procs")),
            ("unified", unified("memory/high")),
            ("unified", unified("cgroup.procs")),
            ("unified", unified("high")),
            ("hugepage", page("2MB/../x")),
            ("hugepage", page("MB")),
        ];
        for (field, resources) in cases {
            let e = checked(&resources).unwrap_err();
            assert!(e.message().contains(field), "{e} does not name {field}");
        }
        for good in ["0", "0-3,7", "1,2, 5"] {
            checked(&Resources { cpuset_cpus: good.into(), ..Resources::default() }).unwrap();
        }
        checked(&unified("memory.high")).unwrap();
        checked(&Resources { cpu_quota: Some(-1), memory_limit: Some(-1), ..page("2MB") }).unwrap();
    }
}
