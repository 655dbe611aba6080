//! Rules for single source files: the opening `//!`, size, unsafe code, and words that have no place in a repository.
use crate::workspace::{self, Package};
use std::path::Path;

const LINES_MAX: usize = 600;
const LINES_WARN: usize = 400;

/// The crates that may have `unsafe`.
const UNSAFE: [&str; 3] = ["berth-sys", "berth-monitor", "berth-init"];

/// What does not belong into committed text. Written in two halves, so that this file may be checked too.
const WORDS: [(&str, &str); 5] = [
    (concat!("/wo", "rk/"), "a path of one machine"),
    (concat!("FIX", "ME"), "unfinished work: an issue is its place"),
    (concat!("XX", "X:"), "unfinished work: an issue is its place"),
    (concat!("to", "do!("), "unfinished work: an issue is its place"),
    (concat!("sub", "agent"), "who wrote it is git's to tell"),
];

/// Rules for one file.
pub fn check(files: &[(String, String)]) -> Vec<String> {
    let mut problems = Vec::new();
    for (path, text) in files {
        for (number, line) in text.lines().enumerate() {
            for (word, why) in WORDS.iter().filter(|(word, _)| line.contains(word)) {
                problems.push(format!("{path}:{}: has {word:?}: {why}", number + 1));
            }
        }
        if !path.ends_with(".rs") {
            continue;
        }
        if !text.starts_with("//!") {
            problems.push(format!("{path}:1: must open with //! saying what it owns and must not do"));
        }
        if text.lines().count() > LINES_MAX {
            problems.push(format!("{path}: {} lines, more than {LINES_MAX}: split it", text.lines().count()));
        }
    }
    problems
}

/// Files that grow too long.
pub fn warnings(files: &[(String, String)]) -> Vec<String> {
    let lines = |text: &str| text.lines().count();
    let long = files.iter().filter(|(path, text)| path.ends_with(".rs") && lines(text) > LINES_WARN);
    long.map(|(path, text)| format!("{path}: {} lines, aim for {LINES_WARN}", lines(text))).collect()
}

/// `forbid(unsafe_code)` in every crate root but those that may have it.
pub fn check_unsafe(packages: &[Package], files: &[(String, String)]) -> Vec<String> {
    let mut problems = Vec::new();
    for package in packages.iter().filter(|p| !UNSAFE.contains(&p.name.as_str())) {
        let dir = package.dir.strip_prefix(workspace::root()).unwrap_or(&package.dir);
        for root in ["src/lib.rs", "src/main.rs"] {
            let path = dir.join(root);
            let text = files.iter().find(|(p, _)| Path::new(p) == path).map(|(_, text)| text);
            if text.is_some_and(|t| !t.contains("#![forbid(unsafe_code)]")) {
                problems.push(format!("{}: needs #![forbid(unsafe_code)]", path.display()));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> (String, String) {
        (path.into(), text.into())
    }

    #[test]
    fn headers_sizes_and_words_are_checked() {
        let long = format!("//! Long.\n{}", "\n".repeat(LINES_MAX));
        let files = [
            file("a.rs", "//! Fine.\n"),
            file("b.rs", "fn main() {}\n"),
            file("c.rs", &long),
            file("d.md", concat!("see /wo", "rk/x\n")),
        ];
        let problems = check(&files);
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(
            problems[0].starts_with("b.rs:1:")
                && problems[1].starts_with("c.rs:")
                && problems[2].starts_with("d.md:1:")
        );
        assert_eq!(warnings(&files).len(), 1);
    }

    #[test]
    fn only_three_crates_may_leave_unsafe_open() {
        let package =
            |name: &str| Package { name: name.into(), dir: workspace::root().join(name), dependencies: Vec::new() };
        let packages = [package("berth-sys"), package("berth-engine"), package("berth-model")];
        let open = "//! Open.\n";
        let files = [
            file("berth-sys/src/lib.rs", open),
            file("berth-engine/src/lib.rs", open),
            file("berth-model/src/lib.rs", "//! Shut.\n#![forbid(unsafe_code)]\n"),
        ];
        assert_eq!(check_unsafe(&packages, &files), ["berth-engine/src/lib.rs: needs #![forbid(unsafe_code)]"]);
    }
}
