//! Test programs side by side: most of them wait more than they compute. So many lanes as there are cores take the next one from a common list.
//! Owns: who runs when, and that what each printed stays together. Must not: know what they test, or try a test a second time while
//! others run.
use super::again::{Again, Choice, Outcome};
use super::{Count, binaries};
use crate::{Result, run, workspace};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};

/// One test program, or the part of one that is run by itself.
pub struct Job<'a> {
    /// For people.
    pub name: String,
    /// Whom it counts.
    pub tests: Tests,
    /// What is tried again.
    pub again: Again,
    /// The command that runs these of its tests.
    pub command: Box<dyn Fn(Choice<'_>) -> Result<Command> + Send + Sync + 'a>,
}

/// How the tests in a program are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tests {
    /// It says so itself, as Rust's do.
    Told,
    /// It is one.
    One,
}

/// What came of a job.
pub struct Ended {
    /// Its place in the list.
    pub job: usize,
    /// What it printed.
    pub printed: String,
    /// What its tests said.
    pub outcome: Result<Outcome>,
    /// From its start to its end.
    pub time: Duration,
}

/// Where what they print is kept until they end.
pub fn output() -> PathBuf {
    workspace::target_dir().join("test-output")
}

/// Runs them all, so many at a time, and hands over each as it ends. `output` is a directory for what they print.
pub fn run(jobs: &[Job<'_>], lanes: usize, output: &Path, mut ended: impl FnMut(Ended)) {
    let next = AtomicUsize::new(0);
    let (said, heard) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..lanes.min(jobs.len()) {
            let (said, next) = (said.clone(), &next);
            scope.spawn(move || lane(jobs, next, output, &said));
        }
        drop(said);
        heard.iter().for_each(&mut ended);
    });
}

/// So many programs at a time: the cores that there are, and at most as many as the memory of such machines bears.
pub fn width() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().min(4))
}

fn lane(jobs: &[Job<'_>], next: &AtomicUsize, output: &Path, said: &Sender<Ended>) {
    loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        let Some(job) = jobs.get(index) else { return };
        let start = Instant::now();
        let output = output.join(index.to_string());
        let mut printed = String::new();
        let outcome = kept(job, &output, &mut printed).map_err(|e| format!("{}: {e}", job.name));
        let _ = said.send(Ended { job: index, printed, outcome, time: start.elapsed() });
    }
}

/// Runs all of a job with its output in a file, so that it stays whole beside others'.
fn kept(job: &Job<'_>, output: &Path, printed: &mut String) -> Result<Outcome> {
    let mut command = (job.command)(Choice::All)?;
    let at = |e: std::io::Error| format!("{}: {e}", output.display());
    fs::create_dir_all(output.parent().unwrap_or(output)).map_err(at)?;
    let file = File::create(output).map_err(at)?;
    command.stdin(Stdio::null()).stdout(file.try_clone().map_err(at)?).stderr(file);
    let status = command.status().map_err(|e| format!("{}: {e}", run::shown(&command)))?;
    *printed = String::from_utf8_lossy(&fs::read(output).map_err(at)?).into_owned();
    let ending = if status.success() { Ok(()) } else { Err(status.to_string()) };
    match job.tests {
        Tests::One => ending.map(|()| Outcome { count: Count::ONE_PASSED, ..Outcome::default() }),
        Tests::Told => binaries::outcome(|line| {
            printed.lines().for_each(line);
            ending
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job<'a>(name: &str, script: &'static str) -> Job<'a> {
        let command = move |_: Choice<'_>| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            Ok(command)
        };
        Job { name: name.to_owned(), tests: Tests::Told, again: Again::Alone, command: Box::new(command) }
    }

    #[test]
    fn each_job_runs_once_and_its_words_stay_together() {
        const GOOD: &str = "echo one; echo two >&2; echo 'test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured'";
        let jobs = [job("a", GOOD), job("b", "exit 3"), job("c", GOOD), job("d", GOOD)];
        let mut seen = Vec::new();
        let output = std::env::temp_dir().join(format!("berth-xtask-lanes-{}", std::process::id()));
        run(&jobs, 2, &output, |ended| seen.push((ended.job, ended.printed, ended.outcome.map(|o| o.count.passed))));
        fs::remove_dir_all(&output).unwrap();
        seen.sort();
        assert_eq!(seen.iter().map(|(job, ..)| *job).collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert!(seen[0].1.starts_with("one\ntwo\n") && seen[0].2 == Ok(2), "{seen:?}");
        assert!(seen[1].2.as_ref().is_err_and(|e| e.starts_with("b: exit status: 3")), "{seen:?}");
    }
}
