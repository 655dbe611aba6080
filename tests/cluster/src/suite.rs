//! A runner of cases that share one node: side by side, then those that need the node for themselves, then the node's end, which is a
//! case too: it fails where something is left over. Speaks like Rust's own test programs, with each case's seconds.
//!
//! Must not: skip a case that was not filtered out by the command line.
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// How many cases run at once, unless `--test-threads` says otherwise. Most of them wait most of the time.
const THREADS: usize = 4;

/// One case.
pub struct Case<T> {
    /// Its name.
    pub name: &'static str,
    /// Whether it must have the node for itself, as when it kills the runtime.
    pub alone: bool,
    /// What it does. It fails by panicking.
    pub run: fn(&T),
}

impl<T> Case<T> {
    /// A case that runs beside others.
    pub const fn new(name: &'static str, run: fn(&T)) -> Self {
        Self { name, alone: false, run }
    }

    /// A case that has the node for itself.
    pub const fn alone(name: &'static str, run: fn(&T)) -> Self {
        Self { name, alone: true, run }
    }
}

/// What the command line asks for.
#[derive(Debug, Default)]
struct Arguments {
    list: bool,
    exact: bool,
    threads: Option<usize>,
    filters: Vec<String>,
    skip: Vec<String>,
}

impl Arguments {
    fn read() -> Self {
        let mut found = Self::default();
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--list" => found.list = true,
                "--exact" => found.exact = true,
                "--test-threads" => found.threads = words.next().and_then(|n| n.parse().ok()),
                "--skip" => found.skip.extend(words.next()),
                // What else cargo and people pass to test programs changes only how those print.
                word if word.starts_with('-') => {}
                _ => found.filters.push(word),
            }
        }
        found
    }

    fn wants(&self, name: &str) -> bool {
        let fits = |filter: &String| if self.exact { name == filter } else { name.contains(filter.as_str()) };
        (self.filters.is_empty() || self.filters.iter().any(fits)) && !self.skip.iter().any(fits)
    }
}

/// Runs the cases that the command line chooses on what `start` makes, ends it by `finish`, and exits the process.
pub fn main<T: Sync>(cases: &[Case<T>], start: impl FnOnce() -> T, finish: impl FnOnce(T)) -> ! {
    run(cases, start, finish, false)
}

/// The same for cases that have the node for themselves and go on where the one before ended: after one that failed, the next ones would
/// only wait in vain. They are named, and not run.
pub fn chain<T: Sync>(cases: &[Case<T>], start: impl FnOnce() -> T, finish: impl FnOnce(T)) -> ! {
    run(cases, start, finish, true)
}

fn run<T: Sync>(cases: &[Case<T>], start: impl FnOnce() -> T, finish: impl FnOnce(T), chain: bool) -> ! {
    let arguments = Arguments::read();
    let chosen: Vec<&Case<T>> = cases.iter().filter(|case| arguments.wants(case.name)).collect();
    if arguments.list {
        chosen.iter().for_each(|case| println!("{}: test", case.name));
        std::process::exit(0);
    }
    let began = Instant::now();
    let mut failed = Vec::new();
    let mut passed = 0;
    if !chosen.is_empty() {
        println!("\nrunning {} tests", chosen.len() + 2);
        let mut node = None;
        let mut judge = |name: &str, ended: Outcome| {
            if ended.is_ok() { passed += 1 } else { failed.push(name.to_owned()) }
        };
        judge("the_node_starts", timed("the_node_starts", || node = Some(start())));
        if let Some(node) = node {
            let (alone, together): (Vec<_>, Vec<_>) = chosen.iter().partition(|case| case.alone);
            for (case, outcome) in side_by_side(&node, &together, arguments.threads.unwrap_or(THREADS)) {
                judge(case, outcome);
            }
            let mut broken = false;
            for case in alone {
                if chain && broken {
                    println!("test {} ... not run: it goes on where one ends that failed", case.name);
                    continue;
                }
                let ended = timed(case.name, || (case.run)(&node));
                broken |= ended.is_err();
                judge(case.name, ended);
            }
            judge("nothing_is_left_over", timed("nothing_is_left_over", || finish(node)));
        } else {
            // They could not even begin.
            chosen.iter().for_each(|case| judge(case.name, Err(())));
        }
    }
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    if !failed.is_empty() {
        println!("\nfailures:\n    {}", failed.join("\n    "));
    }
    println!(
        "\ntest result: {verdict}. {passed} passed; {} failed; 0 ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
        failed.len(),
        cases.len() - chosen.len(),
        began.elapsed().as_secs_f64()
    );
    std::process::exit(i32::from(!failed.is_empty()) * 101);
}

type Outcome = Result<(), ()>;

/// Runs it, and says at once how it ended and how long it took.
fn timed(name: &str, body: impl FnOnce()) -> Outcome {
    let began = Instant::now();
    // The panic's words were printed by the hook.
    let ended = catch_unwind(AssertUnwindSafe(body)).map_err(drop);
    let word = if ended.is_ok() { "ok" } else { "FAILED" };
    println!("test {name} ... {word} ({:.2} s)", began.elapsed().as_secs_f64());
    ended
}

fn side_by_side<T: Sync>(node: &T, cases: &[&&Case<T>], threads: usize) -> Vec<(&'static str, Outcome)> {
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, cases.len().max(1)) {
            let worker = || {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = timed(case.name, || (case.run)(node));
                    outcomes.lock().unwrap().push((case.name, outcome));
                }
            };
            // The thread's name stands in the words of a panic.
            std::thread::Builder::new().name("case".into()).spawn_scoped(scope, worker).unwrap();
        }
    });
    outcomes.into_inner().unwrap()
}
