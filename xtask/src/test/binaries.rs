//! Test programs of cargo: compiled in one go, listed, and run one by one, so that a tier chooses who runs them and where.
use super::again::{Choice, Outcome, Reader};
use crate::{Result, programs, run, workspace};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

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

/// The test programs in what cargo says of its artifacts.
pub fn listed(messages: &str) -> Vec<TestBinary> {
    messages.lines().filter_map(parse).collect()
}

/// Those of a package (its directory in the checkout), of these names if there are any. Error: one is not there.
pub fn of_package(package: &str, names: &[&str]) -> Result<Vec<TestBinary>> {
    let mut list = programs::everything()?.tests;
    let wanted = |name: &str, binary: &TestBinary| binary.name == format!("{package}: {name}");
    if let Some(missing) = names.iter().find(|name| !list.iter().any(|binary| wanted(name, binary))) {
        return Err(format!("{package} has no test program {missing}"));
    }
    let dir = workspace::root().join(package);
    list.retain(|binary| binary.dir == dir && (names.is_empty() || names.iter().any(|name| wanted(name, binary))));
    Ok(list)
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

/// The part of a test program that is run by itself: the tests of one module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// `directory: module`, or the program's name for tests outside any module.
    pub name: String,
    /// The program.
    pub binary: TestBinary,
    /// Whole names of its tests.
    pub tests: Vec<String>,
}

impl Part {
    /// The arguments that run these of its tests.
    pub fn arguments<'a>(&'a self, choice: Choice<'a>) -> Vec<&'a str> {
        exactly(match choice {
            Choice::All => &self.tests,
            Choice::Named(names) => names,
        })
    }
}

/// The parts of these programs. Error: one cannot be asked, or has no test.
pub fn parts(list: Vec<TestBinary>) -> Result<Vec<Part>> {
    let mut all = Vec::new();
    for binary in list {
        let said = run::captured(Command::new(&binary.path).args(["--list", "--format=terse"]))?;
        let tests = said.lines().filter_map(|line| line.strip_suffix(": test"));
        let mut modules = BTreeMap::<&str, Vec<String>>::new();
        for test in tests {
            let module = test.split_once("::").map_or("", |(module, _)| module);
            modules.entry(module).or_default().push(test.to_owned());
        }
        if modules.is_empty() {
            return Err(format!("{}: no test", binary.name));
        }
        all.extend(modules.into_iter().map(|(module, tests)| part(&binary, module, tests)));
    }
    Ok(all)
}

fn part(binary: &TestBinary, module: &str, tests: Vec<String>) -> Part {
    let name = match binary.name.rsplit_once(": ") {
        Some((dir, _)) if !module.is_empty() => format!("{dir}: {module}"),
        _ => binary.name.clone(),
    };
    Part { name, binary: binary.clone(), tests }
}

/// The command that runs one of them under `wrapper` (a program and its arguments, or nothing).
pub fn limited(binary: &TestBinary, wrapper: &[String], args: &[&str]) -> Command {
    let mut words = vec!["timeout".to_owned(), "--kill-after=10".into(), TIME_LIMIT.into()];
    words.extend_from_slice(wrapper);
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).arg(&binary.path).args(args).current_dir(&binary.dir);
    command.env("CARGO_MANIFEST_DIR", &binary.dir);
    command
}

/// The arguments that choose these tests of a program.
pub fn chosen<'a>(choice: Choice<'a>) -> Vec<&'a str> {
    match choice {
        Choice::All => Vec::new(),
        Choice::Named(names) => exactly(names),
    }
}

fn exactly(names: &[String]) -> Vec<&str> {
    std::iter::once("--exact").chain(names.iter().map(String::as_str)).collect()
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
        assert_eq!(ran(Ok(()), &[line, line]), Ok(Outcome { count: both, ..Outcome::default() }));
        assert!(ran(Ok(()), &[]).is_err());
        assert!(ran(Err("signal 9".into()), &[line]).is_err());
    }
}
