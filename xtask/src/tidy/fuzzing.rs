//! Fuzz targets: each file in `node-runtime/fuzz/targets` is a program of its manifest, and the other way round; and a
//! target that a module promises (`Fuzz target: NAME`, or `Fuzz targets: A, B`, in backquotes) exists.
use std::collections::BTreeSet;

const DIR: &str = "node-runtime/fuzz/";
const MARKS: [&str; 2] = ["Fuzz target: ", "Fuzz targets: "];

/// Files, manifest and promises must match.
pub fn check(files: &[(String, String)]) -> Vec<String> {
    let targets: BTreeSet<&str> = files
        .iter()
        .filter_map(|(path, _)| path.strip_prefix(DIR)?.strip_prefix("targets/")?.strip_suffix(".rs"))
        .collect();
    let manifest = files.iter().find(|(path, _)| *path == format!("{DIR}Cargo.toml")).map(|(_, text)| text.as_str());
    let programs: BTreeSet<&str> = manifest.unwrap_or_default().lines().filter_map(program).collect();
    let mut problems = Vec::new();
    for name in targets.symmetric_difference(&programs) {
        problems.push(format!("{DIR}: {name} must be both targets/{name}.rs and a [[bin]] of Cargo.toml"));
    }
    for (path, text) in files.iter().filter(|(path, _)| path.ends_with(".rs") && !path.starts_with("xtask/")) {
        for name in text.lines().filter(|l| l.starts_with("//!")).flat_map(promised) {
            if !targets.contains(name) {
                problems.push(format!("{path}: promises a fuzz target {name}, which does not exist"));
            }
        }
    }
    problems
}

/// `path = "targets/NAME.rs"`.
fn program(line: &str) -> Option<&str> {
    line.trim().strip_prefix("path = \"targets/")?.strip_suffix(".rs\"")
}

/// The names in backquotes after the mark.
fn promised(line: &str) -> impl Iterator<Item = &str> {
    let list = MARKS.iter().find_map(|mark| line.split_once(mark)).map_or("", |(_, list)| list);
    list.split('`').skip(1).step_by(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_manifest_and_promises_must_match() {
        let file = |path: &str, text: &str| (path.to_owned(), text.to_owned());
        let files = [
            file(
                "node-runtime/fuzz/Cargo.toml",
                "[[bin]]\npath = \"targets/tar.rs\"\n[[bin]]\npath = \"targets/lost.rs\"\n",
            ),
            file("node-runtime/fuzz/targets/tar.rs", "//! Tar.\n"),
            file("node-runtime/fuzz/targets/extra.rs", "//! Extra.\n"),
            file("a.rs", "//! Codec. Fuzz targets: `tar`, `frame`.\n"),
        ];
        let problems = check(&files).join("\n");
        assert_eq!(problems.lines().count(), 3, "{problems}");
        for name in ["lost", "extra", "frame"] {
            assert!(problems.contains(name), "{name} is missing in {problems}");
        }
    }
}
