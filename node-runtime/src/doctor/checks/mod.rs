//! Facts to findings. Pure: the same facts give the same findings, and none of these reads anything.
mod cgroups;
mod daemon;
mod documents;
mod exhaustion;
mod kernel;
mod kubelet;
mod network;
mod pulls;
mod starts;

use super::facts::Facts;
use super::finding::Finding;

/// One check.
type Check = fn(&Facts, &mut Vec<Finding>);

/// All checks, by the names of `finding::KINDS`.
const ALL: [(&str, Check); 14] = [
    ("daemon", daemon::daemon),
    ("documents", documents::documents),
    ("image-pulls", pulls::pulls),
    ("starts", starts::starts),
    ("disk", exhaustion::disk),
    ("memory", exhaustion::memory),
    ("pids", exhaustion::pids),
    ("files", exhaustion::files),
    ("addresses", exhaustion::addresses),
    ("network", network::network),
    ("kernel", kernel::kernel),
    ("cgroups", cgroups::cgroups),
    ("kubelet", kubelet::kubelet),
    ("leftovers", daemon::leftovers),
];

/// Runs the checks that are wanted (all, if none is named), the worst findings first.
pub fn run(facts: &Facts, wanted: &[String]) -> Vec<Finding> {
    let mut found = Vec::new();
    for (name, check) in ALL {
        if wanted.is_empty() || wanted.iter().any(|w| w == name) {
            check(facts, &mut found);
        }
    }
    found.sort_by_key(|f| std::cmp::Reverse(f.severity));
    found
}

/// Share of a limit that is used, in percent; 0 where there is no limit.
fn percent(used: u64, limit: u64) -> u64 {
    if limit == 0 { 0 } else { u64::try_from(u128::from(used) * 100 / u128::from(limit)).unwrap_or(u64::MAX) }
}

#[cfg(test)]
mod tests {
    use super::super::finding::{Severity, checks};
    use super::*;

    #[test]
    fn every_check_of_the_table_is_run() {
        let mut names: Vec<&str> = ALL.iter().map(|(name, _)| *name).collect();
        let mut listed = checks();
        names.sort_unstable();
        listed.sort_unstable();
        assert_eq!(names, listed);
    }

    #[test]
    fn only_what_is_wanted_is_looked_at_and_the_worst_comes_first() {
        let facts = Facts { leftovers: vec!["x".into()], ..Facts::default() };
        let all = run(&facts, &[]);
        assert!(all.windows(2).all(|w| w[0].severity >= w[1].severity));
        assert_eq!(all[0].severity, Severity::Error, "no daemon answers");
        let some = run(&facts, &["leftovers".to_owned()]);
        assert_eq!(some.iter().map(|f| f.id).collect::<Vec<_>>(), ["leftover"]);
    }

    #[test]
    fn shares_do_not_overflow() {
        assert_eq!((percent(u64::MAX, u64::MAX), percent(1, 0), percent(1, 3)), (100, 0, 33));
    }
}
