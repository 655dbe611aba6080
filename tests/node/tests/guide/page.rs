//! The commands of a page: its blocks of the language `console`.
//!
//! In such a block a line that begins with `# ` is a command, typed by root; lines that begin with `> ` go on with it; what follows
//! is its answer. The last command of a block ```` ```console fails ```` must fail. Blocks of other languages are no commands.

/// One command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Line of the page, from 1.
    pub line: usize,
    /// As it is typed, lines and all.
    pub command: String,
    /// The answer that the page shows; empty where it shows none.
    pub expected: Vec<String>,
    /// How it must end.
    pub outcome: Outcome,
}

/// How a command must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With 0.
    Succeeds,
    /// With anything else.
    Fails,
}

/// All commands in their order. Errors: a block that does not end, or that begins with an answer.
pub fn steps(page: &str) -> Result<Vec<Step>, String> {
    let mut steps: Vec<Step> = Vec::new();
    let mut block: Option<(usize, bool)> = None;
    let mut first = 0;
    for (number, text) in page.lines().enumerate().map(|(n, text)| (n + 1, text)) {
        let Some((began, fails)) = block else {
            if let Some(info) = text.strip_prefix("```console") {
                block = Some((number, info.trim() == "fails"));
                first = steps.len();
            }
            continue;
        };
        if text.starts_with("```") {
            let last = steps[first..].last_mut().ok_or_else(|| format!("line {began}: a block without a command"))?;
            last.outcome = if fails { Outcome::Fails } else { Outcome::Succeeds };
            block = None;
        } else if let Some(command) = text.strip_prefix("# ") {
            let (command, expected) = (command.to_owned(), Vec::new());
            steps.push(Step { line: number, command, expected, outcome: Outcome::Succeeds });
        } else {
            let last =
                steps[first..].last_mut().ok_or_else(|| format!("line {number}: an answer without a command"))?;
            match text.strip_prefix('>') {
                Some(more) if last.expected.is_empty() => {
                    last.command.push('\n');
                    last.command.push_str(more.strip_prefix(' ').unwrap_or(more));
                }
                _ => last.expected.push(text.to_owned()),
            }
        }
    }
    block.map_or(Ok(steps), |(began, _)| Err(format!("line {began}: the block does not end")))
}

#[test]
fn commands_go_on_and_answers_follow() {
    let page = "text\n```console\n# one\na\n\n# two <<'EOF'\n> x\n>   y\n> EOF\n```\n```sh\n# no command\n```\n\
        ```console fails\n# three\n# four\nno\n```\n";
    let steps = steps(page).unwrap();
    let seen: Vec<_> = steps.iter().map(|s| (s.line, s.command.as_str(), s.expected.len(), s.outcome)).collect();
    assert_eq!(
        seen,
        [
            (3, "one", 2, Outcome::Succeeds),
            (6, "two <<'EOF'\nx\n  y\nEOF", 0, Outcome::Succeeds),
            (15, "three", 0, Outcome::Succeeds),
            (16, "four", 1, Outcome::Fails),
        ]
    );
    assert!(self::steps("```console\nanswer\n```\n").is_err());
    assert!(self::steps("```console\n# x\n").is_err());
}
