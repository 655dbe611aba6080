//! The real crictl, as people and scripts run it.
use super::Node;
use berth_node_tests::path_from_env;
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;

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
