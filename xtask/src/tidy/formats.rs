//! Everything that is written to disk has a page in `docs/formats`, and the module that owns the format names the page in
//! its header (a `//!` line with `docs/formats/<name>.md`). Pages without an owner, and owners without a page, are told.
use std::collections::BTreeSet;

const DIR: &str = "docs/formats/";

/// Pages and owners must match.
pub fn check(files: &[(String, String)]) -> Vec<String> {
    let pages: BTreeSet<&str> = files.iter().map(|(path, _)| path.as_str()).filter(|p| is_page(p)).collect();
    let mut owned = BTreeSet::new();
    let mut problems = Vec::new();
    for (path, text) in files.iter().filter(|(path, _)| path.ends_with(".rs") && !path.starts_with("xtask/")) {
        for page in text.lines().filter(|l| l.starts_with("//!")).filter_map(named) {
            if !pages.contains(page) {
                problems.push(format!("{path}: owns {page}, which does not exist"));
            }
            owned.insert(page);
        }
    }
    problems.extend(pages.difference(&owned).map(|page| format!("{page}: no module names it in its header")));
    problems
}

/// The page that a line names.
fn named(line: &str) -> Option<&str> {
    let page = &line[line.find(DIR)?..];
    let page = &page[..page.find(".md")? + ".md".len()];
    is_page(page).then_some(page)
}

fn is_page(path: &str) -> bool {
    path.strip_prefix(DIR)
        .is_some_and(|name| name.ends_with(".md") && !name.contains(char::is_whitespace) && name != "README.md")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_and_owners_must_match() {
        let file = |path: &str, text: String| (path.to_owned(), text);
        let files = [
            file("docs/formats/README.md", String::new()),
            file("docs/formats/pod.md", String::new()),
            file("docs/formats/orphan.md", String::new()),
            file("a.rs", "//! Pods.\n//! Format: `docs/formats/pod.md`.\n".to_owned()),
            file("b.rs", "//! Images, as in docs/formats/image.md\n".to_owned()),
        ];
        let problems = check(&files);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].contains("image.md") && problems[1].contains("orphan.md"));
    }
}
