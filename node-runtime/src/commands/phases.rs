//! Where the time of a start went, in few words. Pure.
use super::listing::PhaseView;
use super::time;

/// Of the phases of a start, this many are shown in a table: the longest.
const SHOWN_PHASES: usize = 3;

/// Sum of the phases that are no part of another one: `start/setup` contains `start/setup/mounts`.
pub fn total(phases: &[PhaseView]) -> String {
    if phases.is_empty() {
        return String::new();
    }
    let whole = phases.iter().filter(|p| !phases.iter().any(|other| within(p, other)));
    time::micros(whole.map(|p| p.micros).sum())
}

fn within(part: &PhaseView, whole: &PhaseView) -> bool {
    part.name.strip_prefix(&whole.name).is_some_and(|rest| rest.starts_with('/'))
}

/// The longest ones; a phase that is told in parts is told by them.
pub fn longest(phases: &[PhaseView]) -> String {
    let mut all: Vec<&PhaseView> = phases.iter().filter(|p| !phases.iter().any(|other| within(other, p))).collect();
    all.sort_by_key(|p| std::cmp::Reverse(p.micros));
    let shown = all.iter().take(SHOWN_PHASES).map(|p| format!("{} {}", p.name, time::micros(p.micros)));
    shown.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_count_once() {
        let phase = |name: &str, micros| PhaseView { name: name.into(), micros };
        let phases = [phase("start/setup", 9000), phase("start/setup/mounts", 8000), phase("start/setups", 1000)];
        assert_eq!(total(&phases), "10.0ms");
        assert_eq!(longest(&phases), "start/setup/mounts 8.0ms, start/setups 1.0ms");
        assert_eq!((total(&[]), longest(&[])), (String::new(), String::new()));
    }
}
