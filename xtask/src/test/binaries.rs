//! Test programs of cargo: compiled in one go, listed, and run one by one, so that a tier chooses who runs them and where.
use super::again::{Choice, Outcome, Reader};
use crate::{Result, run, workspace};
use serde_json::Value;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Seconds after which a test program that still runs has failed.
const TIME_LIMIT: &str = "900";

/// One compiled test program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestBinary {
    /// `directory: target`, for people.
    pub name: String,
    /// The program.
    pub path: PathBuf,
    /// The directory of its package, where cargo would run it.
    pub dir: PathBuf,
}

/// Compiles the test programs that these arguments of `cargo test` choose. Each compile error is on standard error.
pub fn compile(choice: &[&str]) -> Result<Vec<TestBinary>> {
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--no-run", "--quiet", "--message-format=json-render-diagnostics"]).args(choice);
    Ok(run::captured(&mut cargo)?.lines().filter_map(parse).collect())
}

fn parse(line: &str) -> Option<TestBinary> {
    let message: Value = serde_json::from_str(line).ok()?;
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let manifest = PathBuf::from(message["manifest_path"].as_str()?);
    let dir = manifest.parent()?.to_owned();
    let package = dir.strip_prefix(workspace::root()).unwrap_or(&dir).display().to_string();
    let target = message["target"]["name"].as_str()?;
    Some(TestBinary { name: format!("{package}: {target}"), path: message["executable"].as_str()?.into(), dir })
}

/// Runs one of them under `wrapper` (a program and its arguments, or nothing) and counts its tests. A program that ends
/// badly without saying why is one failed test.
pub fn run_one(
    binary: &TestBinary,
    wrapper: &[String],
    args: &[&str],
    set: impl FnOnce(&mut Command),
) -> Result<Outcome> {
    let mut command = limited(binary, wrapper, args);
    set(&mut command);
    outcome(|line| run::watched(&mut command, line)).map_err(|e| format!("{}: {e}", binary.name))
}

fn limited(binary: &TestBinary, wrapper: &[String], args: &[&str]) -> Command {
    let mut words = vec!["timeout".to_owned(), "--kill-after=10".into(), TIME_LIMIT.into()];
    words.extend_from_slice(wrapper);
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).arg(&binary.path).args(args).current_dir(&binary.dir);
    command.env("CARGO_MANIFEST_DIR", &binary.dir);
    command
}

/// A test program that runs while others do. What it prints is shown when its turn comes.
pub struct Beside {
    name: String,
    child: Child,
    output: PathBuf,
}

impl Beside {
    /// Starts it.
    pub fn start(binary: &TestBinary, set: impl FnOnce(&mut Command)) -> Result<Self> {
        let output = workspace::target_dir().join("test-output-beside");
        let name = binary.name.clone();
        let at = |e: io::Error| format!("{name}: {e}");
        let file = File::create(&output).map_err(at)?;
        let mut command = limited(binary, &[], &[]);
        command.stdin(Stdio::null()).stdout(file.try_clone().map_err(at)?).stderr(file);
        set(&mut command);
        let child = command.spawn().map_err(at)?;
        Ok(Self { child, output, name })
    }

    /// Waits for its end, shows what it printed, and counts.
    pub fn outcome(mut self) -> Result<Outcome> {
        let at = |e: io::Error| format!("{}: {e}", self.name);
        let status = self.child.wait().map_err(at)?;
        let printed = fs::read(&self.output).map_err(at)?;
        let printed = String::from_utf8_lossy(&printed);
        print!("{printed}");
        let ended = if status.success() { Ok(()) } else { Err(format!("{}: {status}", self.name)) };
        outcome(|line| {
            printed.lines().for_each(line);
            ended
        })
    }
}

/// The arguments that choose these tests; `usual` chooses all that the tier runs.
pub fn chosen<'a>(choice: Choice<'a>, usual: &[&'a str]) -> Vec<&'a str> {
    match choice {
        Choice::All => usual.to_vec(),
        Choice::Named(names) => std::iter::once("--exact").chain(names.iter().map(String::as_str)).collect(),
    }
}

/// Reads the outcome off whatever prints what Rust test programs print.
pub fn outcome(watched: impl FnOnce(&mut dyn FnMut(&str)) -> Result) -> Result<Outcome> {
    let mut reader = Reader::default();
    let ended = watched(&mut |line| reader.line(line));
    reader.end(ended)
}

/// Every user's eyes: whether user and group 65534 can reach `path`.
pub fn nobody_reaches(path: &Path) -> bool {
    run::succeeds(
        Command::new("setpriv").args(["--reuid=65534", "--regid=65534", "--clear-groups", "test", "-x"]).arg(path),
    )
}

#[cfg(test)]
mod tests {
    use super::super::Count;
    use super::*;

    #[test]
    fn test_programs_are_told_from_libraries() {
        let line = |test: bool, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","package_id":"path+file:///src/crates/model#berth-model@0.1.0",
                "manifest_path":"/src/crates/model/Cargo.toml","target":{{"name":"berth_model"}},
                "profile":{{"test":{test}}},"executable":{executable}}}"#
            )
            .replace('\n', " ")
        };
        let binary = parse(&line(true, r#""/t/debug/deps/berth_model-1""#)).unwrap();
        assert_eq!(binary.path, Path::new("/t/debug/deps/berth_model-1"));
        assert_eq!(binary.dir, Path::new("/src/crates/model"));
        assert_eq!(parse(&line(false, "null")), None);
        assert_eq!(parse("Compiling"), None);
    }

    #[test]
    fn a_program_that_dies_in_silence_has_failed() {
        let line = "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
        let ran = |end: Result, lines: &[&str]| {
            outcome(|see| {
                lines.iter().for_each(|l| see(l));
                end
            })
        };
        let both = Count { passed: 4, failed: 0 };
        assert_eq!(ran(Ok(()), &[line, line]), Ok(Outcome { count: both, failed: Vec::new() }));
        assert!(ran(Ok(()), &[]).is_err());
        assert!(ran(Err("signal 9".into()), &[line]).is_err());
    }
}
