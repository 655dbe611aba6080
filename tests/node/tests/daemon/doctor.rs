//! `berth doctor` as people run it, against the node of a test.
use super::Node;
use berth_node_tests::programs;
use serde_json::Value;
use std::process::Command;

/// What it found.
#[derive(Debug)]
pub struct Report {
    pub code: Option<i32>,
    pub findings: Vec<Value>,
}

/// It, about to run these checks.
pub fn command(node: &Node, args: &[&str]) -> Command {
    let mut command = Command::new(programs().join("berth"));
    command.arg("--root").arg(node.root()).args(["doctor", "-o", "json"]).args(args);
    command
}

/// Runs these checks.
pub fn doctor(node: &Node, args: &[&str]) -> Report {
    report(command(node, args))
}

/// Runs a prepared doctor; it must not fail itself.
pub fn report(mut command: Command) -> Report {
    let output = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(matches!(output.status.code(), Some(0 | 1)), "the doctor failed: {:?}: {out}{err}", output.status);
    let value: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
    Report { code: output.status.code(), findings: value["findings"].as_array().unwrap().clone() }
}

impl Report {
    /// Names of the findings.
    pub fn ids(&self) -> Vec<&str> {
        self.findings.iter().map(|f| f["id"].as_str().unwrap()).collect()
    }

    /// The first finding of this kind, with all of these words in what is wrong.
    #[track_caller]
    pub fn finding(&self, id: &str, words: &[&str]) -> &Value {
        let found = self.findings.iter().filter(|f| f["id"] == id);
        let with_words = |f: &&Value| words.iter().all(|w| f["what"].as_str().unwrap().contains(w));
        let found =
            found.clone().find(with_words).unwrap_or_else(|| panic!("no {id} with {words:?} in {:#?}", self.findings));
        assert!(!found["fix"].as_str().unwrap().is_empty() && !found["why"].as_str().unwrap().is_empty());
        if found["severity"] != "info" {
            assert_eq!(self.code, Some(1), "findings end with 1");
        }
        found
    }
}
