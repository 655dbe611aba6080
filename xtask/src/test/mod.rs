//! `cargo xtask test`: tiers, each a list of named steps. A failed step is told and counted, and the next one runs; nothing
//! is skipped in silence: what cannot run has failed. Tests that passed at their second try are named. The last line is
//! `N passed, N failed`, over every single test.
mod again;
mod ahead;
pub mod binaries;
mod cluster;
mod fuzz;
mod guest;
mod lanes;
mod node;
mod statics;
mod unit;

pub use ahead::main as made_ahead;
pub use cluster::{costs, program as cluster_program};
pub use guest::only as guest_only;

use crate::{Result, run};
use again::{Again, Choice, Outcome};
use lanes::Job;
use std::time::{Duration, Instant};

/// Tests that passed and failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Passed.
    pub passed: usize,
    /// Failed.
    pub failed: usize,
}

impl Count {
    /// A step that is one check.
    pub const ONE_PASSED: Self = Self { passed: 1, failed: 0 };

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// Runs and prints the steps of one tier, and counts.
#[derive(Default)]
pub struct Tier {
    count: Count,
    failures: Vec<String>,
    /// Tests that passed at their second try.
    again: Vec<String>,
    /// What those said that failed, at either try.
    words: Vec<String>,
}

impl Tier {
    /// A step that is one check: its error is one failed test.
    pub fn check(&mut self, name: &str, body: impl FnOnce() -> Result) {
        self.step(name, || body().map(|()| Count::ONE_PASSED));
    }

    /// A step that prepares what others need: it counts only when it fails, and then gives `None`.
    pub fn prepare<T>(&mut self, name: &str, body: impl FnOnce() -> Result<T>) -> Option<T> {
        let mut made = None;
        self.step(name, || {
            made = Some(body()?);
            Ok(Count::default())
        });
        made
    }

    /// A step of tests that may be tried again where only the machine may have been late; `again` says which.
    pub fn tests(&mut self, name: &str, again: Again, mut run: impl FnMut(Choice<'_>) -> Result<Outcome>) {
        let left = again::MOST.saturating_sub(self.again.len());
        let (mut passed, mut words) = (Vec::new(), Vec::new());
        self.step(name, || {
            let mut first = run(Choice::All)?;
            words.append(&mut first.words);
            let Some(choice) = first.second(left, again) else { return Ok(first.count) };
            println!("-- {name}: a second try: {}", first.failed.join(" "));
            let Ok(mut second) = run(choice) else { return Ok(first.count) };
            words.append(&mut second.words);
            let (count, mended) = first.mended(&second);
            passed = mended;
            Ok(count)
        });
        self.words.append(&mut words);
        self.again.extend(passed.into_iter().map(|test| format!("{name}: {test}")));
    }

    /// Test programs side by side, those whose names end with one of `longest` first; each that ends with one of `alone` by itself, when
    /// the others have ended.
    pub fn in_company(&mut self, mut jobs: Vec<Job<'_>>, longest: &[&str], alone: &[&str]) {
        let place = |name: &str, ends: &[&str]| ends.iter().position(|end| name.ends_with(end));
        jobs.sort_by_key(|job| place(&job.name, longest).unwrap_or(longest.len()));
        let (alone, together): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|job| place(&job.name, alone).is_some());
        self.side_by_side(&together);
        alone.chunks(1).for_each(|job| self.side_by_side(job));
    }

    /// Test programs side by side; what fails is tried again when all have ended, alone.
    pub fn side_by_side(&mut self, jobs: &[Job<'_>]) {
        let mut late = Vec::new();
        lanes::run(jobs, lanes::width(), &lanes::output(), |ended| {
            let job = &jobs[ended.job];
            print!("-- {}\n{}", job.name, ended.printed);
            match ended.outcome {
                // Counted once it is known what a second try says.
                Ok(first) if first.second(again::MOST, job.again).is_some() => {
                    println!("-- {}: {} failed, {}", job.name, first.count.failed, run::human(ended.time));
                    late.push((job, first));
                }
                outcome => {
                    let counted = outcome.map(|mut outcome| {
                        self.words.append(&mut outcome.words);
                        outcome.count
                    });
                    self.ended(&job.name, counted, ended.time);
                }
            }
        });
        for (job, first) in late {
            let mut first = Some(first);
            self.tests(&job.name, job.again, |choice| match first.take() {
                Some(first) => Ok(first),
                None => {
                    let mut command = (job.command)(choice)?;
                    binaries::outcome(|line| run::watched(&mut command, line))
                }
            });
        }
    }

    /// A step that counts its tests itself.
    pub fn step(&mut self, name: &str, body: impl FnOnce() -> Result<Count>) {
        println!("-- {name}");
        let start = Instant::now();
        let outcome = body();
        self.ended(name, outcome, start.elapsed());
    }

    /// Tells and counts what a step came to.
    fn ended(&mut self, name: &str, outcome: Result<Count>, time: Duration) {
        let count = outcome.clone().unwrap_or(Count { passed: 0, failed: 1 });
        let verdict = if count.failed == 0 { "ok" } else { "FAILED" };
        println!("-- {name}: {verdict}, {} passed, {} failed, {}", count.passed, count.failed, run::human(time));
        if let Err(message) = outcome {
            println!("   {message}");
            self.failures.push(format!("{name}: {message}"));
        } else if count.failed > 0 {
            self.failures.push(format!("{name}: {} failed", count.failed));
        }
        self.count.add(count);
    }
}

type Run = fn(&mut Tier);
const TIERS: [(&str, Run); 6] = [
    ("static", statics::tier),
    ("unit", unit::tier),
    ("node", node::tier),
    ("guest", guest::tier),
    ("cluster", cluster::tier),
    (BY_NAME, cluster::full),
];
/// What is slow and needed seldom: run where it is named, and told where it is not.
const BY_NAME: &str = "full";

/// Whether a tier is asked for.
fn wanted(name: &str, names: &[String]) -> bool {
    if names.is_empty() { name != BY_NAME } else { names.iter().any(|n| n == name) }
}

/// Runs the named tiers, or all but `full`. The error is empty: what failed has been told.
pub fn main(names: &[String]) -> Result {
    let known = TIERS.map(|(name, _)| name).join(" ");
    if let Some(unknown) = names.iter().find(|n| !TIERS.iter().any(|(name, _)| name == *n)) {
        return Err(format!("no tier {unknown:?}; there are: {known}"));
    }
    let mut summary: Vec<(&str, Tier, Duration)> = Vec::new();
    let tiers: Vec<_> = TIERS.into_iter().filter(|(name, _)| wanted(name, names)).collect();
    let _ahead = ahead::start(&tiers.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    for (name, tier) in tiers {
        println!("== tier {name}");
        let start = Instant::now();
        let mut state = Tier::default();
        tier(&mut state);
        let time = start.elapsed();
        println!(
            "== tier {name}: {} passed, {} failed, {}\n",
            state.count.passed,
            state.count.failed,
            run::human(time)
        );
        summary.push((name, state, time));
    }
    let mut total = Count::default();
    for (name, state, time) in &summary {
        println!("{name:8} {:5} passed {:3} failed  {}", state.count.passed, state.count.failed, run::human(*time));
        for failure in &state.failures {
            println!("         {failure}");
        }
        for test in &state.again {
            println!("         passed at the second try: {test}");
        }
        for line in &state.words {
            println!("         | {line}");
        }
        total.add(state.count);
    }
    if names.is_empty() {
        println!(
            "not run: tier {BY_NAME} (the way from install to uninstall under Helm 3, kills at random moments): cargo xtask test {BY_NAME}"
        );
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    if total.failed == 0 { Ok(()) } else { Err(String::new()) }
}

/// Reads the closing line of one Rust test program. An ignored test counts as failed: nothing is skipped.
/// `test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out; finished in 0.01s`
pub fn result_line(line: &str) -> Option<Count> {
    let rest = line.trim_start().strip_prefix("test result: ")?;
    let number = |word: &str| -> Option<usize> {
        let before = rest.split(';').find_map(|part| part.trim().strip_suffix(word))?;
        before.trim().rsplit([' ', '.']).next()?.parse().ok()
    };
    Some(Count { passed: number("passed")?, failed: number("failed")? + number("ignored")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_counted_and_ignored_tests_fail() {
        let ok = "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out; finished in 0.01s";
        assert_eq!(result_line(ok), Some(Count { passed: 12, failed: 0 }));
        let bad = "test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out";
        assert_eq!(result_line(bad), Some(Count { passed: 3, failed: 3 }));
        assert_eq!(result_line("test result of mine: ok. 1 passed; 0 failed; 0 ignored"), None);
        assert_eq!(result_line("test result: nonsense"), None);
    }

    #[test]
    fn a_second_try_counts_once_and_is_named() {
        let mut tier = Tier::default();
        let outcome = |failed: usize, names: &[&str]| Outcome {
            count: Count { passed: 2 - failed, failed },
            failed: names.iter().map(|name| (*name).to_owned()).collect(),
            words: names.iter().map(|name| format!("{name} panicked")).collect(),
        };
        let mut tries = 0;
        tier.tests("late", Again::Alone, |choice| {
            tries += 1;
            assert_eq!(choice == Choice::All, tries == 1);
            Ok(if tries == 1 { outcome(1, &["a"]) } else { outcome(0, &[]) })
        });
        tier.tests("broken", Again::Alone, |_| Ok(outcome(1, &["b"])));
        assert_eq!((tries, tier.count), (2, Count { passed: 3, failed: 1 }));
        assert_eq!((tier.again, tier.failures), (vec!["late: a".to_owned()], vec!["broken: 1 failed".to_owned()]));
        assert_eq!(tier.words, ["a panicked", "b panicked", "b panicked"]);
    }

    #[test]
    fn what_is_slow_runs_by_name_alone() {
        let names = [BY_NAME.to_owned()];
        assert!(wanted("cluster", &[]) && !wanted(BY_NAME, &[]));
        assert!(wanted(BY_NAME, &names) && !wanted("cluster", &names));
    }

    #[test]
    fn a_failed_step_counts_and_the_next_one_runs() {
        let mut tier = Tier::default();
        tier.check("bad", || Err("broken".into()));
        assert_eq!(tier.prepare("setup", || Ok(7)), Some(7));
        assert_eq!(tier.prepare("no setup", || Err::<u8, _>("gone".into())), None);
        tier.step("some", || Ok(Count { passed: 3, failed: 1 }));
        tier.check("good", || Ok(()));
        assert_eq!(tier.count, Count { passed: 4, failed: 3 });
        assert_eq!(tier.failures.len(), 3);
    }
}
