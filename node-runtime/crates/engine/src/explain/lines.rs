//! Timelines to lines: every microsecond from the first operation's begin to the last one's end is in a line, and what no step
//! accounts for is a line too. Pure.
use super::{Line, LineKind};
use berth_model::{Phase, Timeline, UnixNanos};
use std::collections::HashMap;

/// A shorter stretch between two steps is the price of going from one to the next, and is not shown.
const GRAIN: u64 = 100;

/// One operation of a start.
pub(super) struct Operation {
    name: String,
    container: String,
    pub(super) timeline: Timeline,
}

impl Operation {
    pub(super) fn new(name: &str, container: &str, timeline: Timeline) -> Self {
        Self { name: name.to_owned(), container: container.to_owned(), timeline }
    }

    fn end(&self) -> i128 {
        i128::from(self.timeline.began) + i128::from(self.timeline.micros) * 1000
    }
}

/// Begin of the first operation, time to the end of the last in microseconds, lines in order.
pub(super) fn lines(mut operations: Vec<Operation>, usual: &HashMap<String, u64>) -> (UnixNanos, u64, Vec<Line>) {
    operations.sort_by_key(|o| o.timeline.began);
    let Some(origin) = operations.first().map(|o| o.timeline.began) else { return (0, 0, Vec::new()) };
    let since = |at: i128| u64::try_from((at - i128::from(origin)) / 1000).unwrap_or_default();
    let mut lines = Vec::new();
    let mut until = 0u64;
    for operation in &operations {
        let at = since(i128::from(operation.timeline.began));
        if at > until.saturating_add(GRAIN) && !lines.is_empty() {
            lines.push(Line {
                kind: LineKind::Between,
                name: "between".to_owned(),
                container: String::new(),
                depth: 0,
                at: until,
                micros: at - until,
                usual: None,
            });
        }
        until = until.max(since(operation.end()));
        one(operation, at, usual, &mut lines);
    }
    (origin, until, lines)
}

fn one(operation: &Operation, at: u64, usual: &HashMap<String, u64>, lines: &mut Vec<Line>) {
    let timeline = &operation.timeline;
    let line = |kind, name: &str, depth, from: u64, micros| Line {
        kind,
        name: name.to_owned(),
        container: operation.container.clone(),
        depth,
        at: at.saturating_add(from),
        micros,
        usual: usual.get(name).copied().filter(|_| kind == LineKind::Step),
    };
    lines.push(line(LineKind::Operation, &operation.name, 0, 0, timeline.micros));
    let mut walk = Walk { phases: &timeline.phases.0, out: Vec::new() };
    walk.level("", 1, 0, timeline.micros);
    lines.extend(walk.out.into_iter().map(|(kind, name, depth, from, micros)| line(kind, name, depth, from, micros)));
}

type Row<'a> = (LineKind, &'a str, u32, u64, u64);

/// Goes through the phases of one operation, which are sorted by their begin, a whole before its parts.
struct Walk<'a> {
    phases: &'a [Phase],
    out: Vec<Row<'a>>,
}

impl<'a> Walk<'a> {
    /// The phases right below `parent`, in the stretch from `from` to `to`, with the gaps between them.
    fn level(&mut self, parent: &str, depth: u32, from: u64, to: u64) {
        let phases = self.phases;
        let here: Vec<&'a Phase> = phases.iter().filter(|p| is_child(phases, p, parent)).collect();
        if here.is_empty() {
            return;
        }
        let mut until = from;
        for phase in here {
            self.gap(depth, until, phase.at);
            self.out.push((LineKind::Step, &phase.name, depth, phase.at, phase.micros));
            let end = phase.at.saturating_add(phase.micros);
            self.level(&phase.name, depth + 1, phase.at, end);
            // Parts may run side by side, as layers do.
            until = until.max(end);
        }
        self.gap(depth, until, to);
    }

    fn gap(&mut self, depth: u32, from: u64, to: u64) {
        if to > from.saturating_add(GRAIN) {
            self.out.push((LineKind::Unaccounted, "unaccounted", depth, from, to - from));
        }
    }
}

/// Whether `parent` (empty: the operation) is the closest whole of a phase.
fn is_child(all: &[Phase], phase: &Phase, parent: &str) -> bool {
    let mut whole = "";
    for other in all {
        if other.name.len() > whole.len() && within(&phase.name, &other.name) {
            whole = &other.name;
        }
    }
    whole == parent
}

fn within(name: &str, whole: &str) -> bool {
    name.strip_prefix(whole).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use LineKind::{Between, Operation as Whole, Step, Unaccounted};

    fn timeline(began: i64, micros: u64, phases: &[(&str, u64, u64)]) -> Timeline {
        let phase = |(name, at, micros): &(&str, u64, u64)| Phase { name: (*name).into(), at: *at, micros: *micros };
        let phases = berth_model::Phases(phases.iter().map(phase).collect());
        Timeline { began, micros, phases }
    }

    fn shown(lines: &[Line]) -> Vec<(LineKind, &str, u32, u64, u64)> {
        lines.iter().map(|l| (l.kind, l.name.as_str(), l.depth, l.at, l.micros)).collect()
    }

    #[test]
    fn every_stretch_is_shown() {
        let start = timeline(
            20_000_000,
            10_000,
            &[("start/record", 0, 50), ("start/setup", 60, 9_000), ("start/setup/mounts", 3_000, 1_000)],
        );
        let run = timeline(10_000_000, 2_000, &[("run/record", 0, 1_000), ("run/network", 1_000, 1_000)]);
        let operations = vec![Operation::new("start", "app", start), Operation::new("run", "", run)];
        let usual = HashMap::from([("start/setup".to_owned(), 700)]);
        let (began, micros, lines) = lines(operations, &usual);
        assert_eq!((began, micros), (10_000_000, 20_000));
        let expected = [
            (Whole, "run", 0, 0, 2_000),
            (Step, "run/record", 1, 0, 1_000),
            (Step, "run/network", 1, 1_000, 1_000),
            (Between, "between", 0, 2_000, 8_000),
            (Whole, "start", 0, 10_000, 10_000),
            (Step, "start/record", 1, 10_000, 50),
            (Step, "start/setup", 1, 10_060, 9_000),
            (Unaccounted, "unaccounted", 2, 10_060, 2_940),
            (Step, "start/setup/mounts", 2, 13_000, 1_000),
            (Unaccounted, "unaccounted", 2, 14_000, 5_060),
            (Unaccounted, "unaccounted", 1, 19_060, 940),
        ];
        assert_eq!(shown(&lines), expected);
        assert_eq!(lines[6].usual, Some(700));
        assert_eq!((lines[6].container.as_str(), lines[1].container.as_str()), ("app", ""));
        // What is not broken down further adds up to the whole.
        let leaf = |i: usize| lines.get(i + 1).is_none_or(|next| next.depth <= lines[i].depth);
        let sum: u64 = (0..lines.len()).filter(|i| leaf(*i)).map(|i| lines[i].micros).sum();
        assert!(sum <= micros && micros - sum < 2 * GRAIN, "{sum} of {micros}");
    }

    #[test]
    fn parts_that_run_side_by_side_are_no_gaps() {
        let pull = timeline(
            1,
            1_000_000,
            &[("pull/fetch", 0, 1_000_000), ("pull/fetch/a", 0, 900_000), ("pull/fetch/b", 10, 999_990)],
        );
        let (_, _, lines) = lines(vec![Operation::new("pull", "app", pull)], &HashMap::new());
        assert!(lines.iter().all(|l| l.kind != Unaccounted), "{lines:?}");
        assert_eq!(lines.iter().map(|l| l.depth).collect::<Vec<_>>(), [0, 1, 2, 2]);
    }

    #[test]
    fn nothing_gives_nothing() {
        assert_eq!(lines(Vec::new(), &HashMap::new()), (0, 0, Vec::new()));
    }
}
