//! `cargo xtask tidy`: the rules of CONTRIBUTING.md that no compiler checks. Each file here is one kind of rule: a pure
//! function from what was read to problems, one line each.
mod edges;
mod formats;
mod fuzzing;
mod metrics;
mod sources;

use crate::{Result, workspace};

/// Checks everything; problems go to standard error. The error says how many there are.
pub fn main() -> Result {
    let packages = workspace::packages()?;
    let files: Vec<(String, String)> = workspace::files()?.into_iter().filter_map(read).collect();
    let mut problems = edges::check(&packages);
    problems.extend(sources::check(&files));
    problems.extend(sources::check_unsafe(&packages, &files));
    problems.extend(formats::check(&files));
    problems.extend(fuzzing::check(&files));
    problems.extend(metrics::check(&files));
    for warning in sources::warnings(&files) {
        println!("   warning: {warning}");
    }
    for problem in &problems {
        eprintln!("   {problem}");
    }
    match problems.len() {
        0 => Ok(()),
        n => Err(format!("{n} problems")),
    }
}

/// Path and text; files that are not text are nobody's to check.
fn read(path: String) -> Option<(String, String)> {
    let text = std::fs::read_to_string(workspace::root().join(&path)).ok()?;
    Some((path, text))
}
