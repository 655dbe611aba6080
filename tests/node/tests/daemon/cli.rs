//! The command line, driven as a person drives it: in a pipe, and under a terminal by script(1).
use super::Node;
use berth_node_tests::programs;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

/// What a call said, and how it ended.
#[derive(Debug)]
pub struct Said {
    pub out: String,
    pub err: String,
    pub code: i32,
}

/// `berth --root ROOT ARGS`, without a terminal.
pub fn command(node: &Node, args: &[&str]) -> Command {
    let mut command = Command::new(programs().join("berth"));
    command.arg("--root").arg(node.root()).args(args).env_remove("NO_COLOR").env("TERM", "xterm");
    command
}

/// Runs it with this input.
pub fn with_input(node: &Node, args: &[&str], input: &[u8]) -> Said {
    finish(command(node, args), input)
}

/// Runs it.
pub fn try_run(node: &Node, args: &[&str]) -> Said {
    with_input(node, args, b"")
}

/// Runs it; it must succeed. Gives its output without the last line break.
#[track_caller]
pub fn run(node: &Node, args: &[&str]) -> String {
    let said = try_run(node, args);
    assert_eq!(said.code, 0, "berth {args:?}: {}{}", said.out, said.err);
    said.out.trim_end_matches('\n').to_owned()
}

/// The sentence of a refusal, and the exit code.
#[track_caller]
pub fn refused(node: &Node, args: &[&str]) -> (String, i32) {
    let said = try_run(node, args);
    assert_ne!(said.code, 0, "berth {args:?} was not refused: {}", said.out);
    (said.err.trim_end().to_owned(), said.code)
}

/// Under a terminal, with this typed. `err` is empty: a terminal has one output.
pub fn on_terminal(node: &Node, args: &[&str], typed: &[u8]) -> Said {
    finish(terminal(node, args), typed)
}

/// The same, typed only after it has said `ready`: keys that come before a terminal is raw are its line discipline's.
pub fn on_terminal_after(node: &Node, args: &[&str], ready: &str, typed: &[u8]) -> Said {
    let mut script = terminal(node, args);
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut out, mut piece) = (Vec::new(), [0; 4096]);
    let mut stdout = child.stdout.take().unwrap();
    let mut stdin = child.stdin.take();
    loop {
        let read = stdout.read(&mut piece).unwrap();
        if read == 0 {
            break;
        }
        out.extend_from_slice(&piece[..read]);
        if String::from_utf8_lossy(&out).contains(ready)
            && let Some(mut stdin) = stdin.take()
        {
            stdin.write_all(typed).unwrap();
        }
    }
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { out: text(&out), err: text(&output.stderr), code: output.status.code().unwrap_or(-1) }
}

/// `script` gives the program a terminal of its own.
fn terminal(node: &Node, args: &[&str]) -> Command {
    let quote = |word: &str| format!("'{}'", word.replace('\'', r"'\''"));
    let root = node.root();
    let words =
        [programs().join("berth").to_string_lossy().into_owned(), "--root".into(), root.to_string_lossy().into_owned()];
    let line: Vec<String> = words.iter().map(String::as_str).chain(args.iter().copied()).map(quote).collect();
    let mut script = Command::new("script");
    script.args(["-q", "-e", "-c", &line.join(" "), "/dev/null"]).env_remove("NO_COLOR").env("TERM", "xterm");
    script
}

fn finish(mut command: Command, input: &[u8]) -> Said {
    let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
    let mut child = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    if let Some(mut stdin) = child.stdin.take() {
        // Who ends early does not read all.
        let _ = stdin.write_all(input);
    }
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { out: text(&output.stdout), err: text(&output.stderr), code: output.status.code().unwrap_or(-1) }
}
