//! The real crictl, as people and scripts run it.
use super::Node;
use berth_node_tests::path_from_env;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

/// How a run of crictl ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// It, about to run against the node's socket.
pub fn command(node: &Node, args: &[&str]) -> Command {
    let endpoint = format!("unix://{}", node.socket().display());
    let mut command = Command::new(path_from_env("BERTH_CRICTL"));
    command.args(["--timeout=30s", "--runtime-endpoint", &endpoint, "--image-endpoint", &endpoint]).args(args);
    command
}

/// Runs it against the node's socket.
pub fn try_run(node: &Node, args: &[&str]) -> Ran {
    ended(command(node, args).output().unwrap())
}

/// How it ended.
pub fn ended(output: std::process::Output) -> Ran {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// The same; it must succeed. Its stdout without the last newline.
#[track_caller]
pub fn run(node: &Node, args: &[&str]) -> String {
    let ran = try_run(node, args);
    assert_eq!(ran.code, Some(0), "crictl {args:?}: {}{}", ran.out, ran.err);
    ran.out.trim_end().to_owned()
}

/// The same, for commands with `-o json`.
#[track_caller]
pub fn json(node: &Node, args: &[&str]) -> Value {
    let out = run(node, args);
    serde_json::from_str(&out).unwrap_or_else(|e| panic!("crictl {args:?}: {e}: {out}"))
}

/// Writes a request to a file, as crictl wants it. The names are those of the protocol's JSON form.
pub fn file(node: &Node, name: &str, content: &Value) -> PathBuf {
    let path = node.base().join(name);
    std::fs::write(&path, content.to_string()).unwrap();
    path
}

/// What a session runs. It counts in a variable: another shell in its place would begin anew.
const ANSWERS: &str = "n=0; while read w; do n=$((n + 1)); echo heard-$n-$w; [ $w = end ] && exit 3; done";

/// An exec session that reads words and answers, until the word `end`.
pub struct Session {
    child: Child,
    heard: BufReader<ChildStdout>,
    /// Words so far.
    said: u32,
}

impl Session {
    /// What the session runs: `command` is a crictl with its options, up to `exec -i`.
    pub fn start(mut command: Command, container: &str) -> Self {
        command.args([container, "sh", "-c", ANSWERS]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let heard = BufReader::new(child.stdout.take().unwrap());
        Self { child, heard, said: 0 }
    }

    /// A word goes, and its answer comes, of the same shell that has answered so far.
    pub fn say(&mut self, word: &str) {
        self.said += 1;
        writeln!(self.child.stdin.as_mut().unwrap(), "{word}").unwrap();
        let mut line = String::new();
        self.heard.read_line(&mut line).unwrap();
        assert_eq!(line, format!("heard-{}-{word}\n", self.said));
    }

    /// It ends with its own exit code.
    pub fn end(mut self) {
        self.say("end");
        let ran = ended(self.child.wait_with_output().unwrap());
        assert!(ran.err.contains("exit code 3"), "{ran:?}");
    }
}
