//! What the command line does with running containers: signals, restarts, limits, readings, events, logs.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // A test fails by panicking.

use crate::daemon::cli::{command, on_terminal, run, try_run};
use crate::daemon::{Node, eventually};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

async fn with_web() -> Node {
    let node = Node::with_tools().await;
    let script = "echo begun; trap 'echo hup' HUP; while true; do sleep 0.1; done";
    run(&node, &["run", "-d", "--name", "web", &node.tools(), "sh", "-c", script]);
    node
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_are_signalled_restarted_and_removed() {
    let node = with_web().await;
    eventually("it writes", async || (run(&node, &["logs", "web"]) == "begun").then_some(())).await;
    assert_eq!(run(&node, &["kill", "-s", "HUP", "web"]), "web/web");
    eventually("the signal came", async || run(&node, &["logs", "web"]).contains("hup").then_some(())).await;
    let first = run(&node, &["ps", "-q"]);
    assert_eq!(run(&node, &["restart", "-t", "0", "web"]), "web/web");
    let second = run(&node, &["ps", "-q"]);
    assert_ne!(first, second);
    assert_eq!(run(&node, &["ps", "--format", "{{.Attempt}}"]), "1");
    assert!(run(&node, &["logs", "--previous", "web"]).starts_with("begun\nhup"));
    run(&node, &["kill", "web"]);
    assert_eq!(run(&node, &["wait", "web/web"]), "137");
    assert_eq!(run(&node, &["start", "web/web"]), "web/web");
    assert_eq!(run(&node, &["ps", "--format", "{{.Attempt}} {{.State}}"]), "2 Running");
    assert_eq!(run(&node, &["ps", "-a", "-q"]).lines().count(), 2, "one attempt before this one is kept");
    assert_eq!(run(&node, &["stop", "--timeout", "0", "web"]), "web");
    assert_eq!(run(&node, &["rm", "-v", "web"]), "web");
    assert_eq!(run(&node, &["pods", "-a", "-q"]), "");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_and_readings_agree() {
    let node = with_web().await;
    assert_eq!(run(&node, &["update", "-m", "64m", "--cpus", "0.5", "web"]), "web/web");
    let json = run(&node, &["stats", "--no-stream", "-i", "500ms", "-o", "json"]);
    let stats: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((stats[0]["name"].as_str(), stats[0]["memoryLimitBytes"].as_u64()), (Some("web"), Some(64 << 20)));
    assert!(stats[0]["pids"].as_u64().unwrap() >= 1 && stats[0]["memoryBytes"].as_u64().unwrap() > 0, "{stats}");
    let table = run(&node, &["stats", "--no-stream", "-i", "200ms", "web"]);
    assert!(table.starts_with("POD") && table.contains('%') && table.contains("67.1 MB"), "{table}");
    // Live: in a pipe one table after the other, without a byte that drives a terminal.
    let mut live = command(&node, &["stats", "-i", "200ms"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(live.stdout.take().unwrap()).lines().take(4).map(Result::unwrap).collect::<Vec<_>>();
    assert!(
        lines.iter().filter(|l| l.starts_with("POD")).count() == 2 && !lines.concat().contains('\u{1b}'),
        "{lines:?}"
    );
    drop(live.kill());
    drop(live.wait());
    let drawn = on_terminal(&node, &["stats", "--no-stream", "-i", "200ms"], b"");
    assert!(drawn.out.contains("CPU %"), "{drawn:?}");
    let top = run(&node, &["top", "web"]);
    assert!(top.lines().next().unwrap().starts_with("CONTAINER   PID") && top.contains("sh -c"), "{top}");
    assert_eq!(run(&node, &["top", "-o", "json", "web/web"]).matches("\"nsPid\": 1,").count(), 1);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_told_and_kept() {
    let node = Node::with_tools().await;
    // However long it takes to be there: what came before is told too.
    let mut live = command(
        &node,
        &["events", "--since", "1h", "-f", "type=container", "--format", "{{.Action}} {{.Name}} {{.ExitCode}}"],
    )
    .stdout(Stdio::piped())
    .spawn()
    .unwrap();
    let said = try_run(&node, &["run", "--rm", "--name", "job", &node.tools(), "sh", "-c", "exit 3"]);
    assert_eq!(said.code, 3);
    let lines = BufReader::new(live.stdout.take().unwrap()).lines().take(4).map(Result::unwrap).collect::<Vec<_>>();
    assert_eq!(lines, ["create job ", "start job ", "die job 3", "destroy job "]);
    drop(live.kill());
    drop(live.wait());
    let past = run(&node, &["events", "--since", "1h", "--until", "0s", "--format", "json"]);
    let past: Vec<Value> = past.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<String> = past.iter().map(|e| format!("{} {}", e["Type"], e["Action"]).replace('"', "")).collect();
    for wanted in ["image pull", "pod create", "pod start", "container die", "pod destroy"] {
        assert!(told.contains(&wanted.to_owned()), "{wanted}: {told:?}");
    }
    let line = run(&node, &["events", "--since", "1h", "--until", "0s", "-f", "event=die"]);
    assert!(line.contains(" container die ") && line.contains("exitCode=3, "), "{line}");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_have_a_beginning_and_an_end() {
    let node = Node::with_tools().await;
    try_run(&node, &["run", "--name", "job", &node.tools(), "sh", "-c", "seq 1 5; sleep 1.2; echo late"]);
    assert_eq!(run(&node, &["logs", "-n", "2", "job"]), "5\nlate");
    assert_eq!(run(&node, &["logs", "--tail", "all", "job"]).lines().count(), 6);
    let stamped = run(&node, &["logs", "-t", "job"]);
    let stamps: Vec<&str> = stamped.lines().map(|l| l.split(' ').next().unwrap()).collect();
    assert_eq!(run(&node, &["logs", "--until", stamps[4], "job"]), "1\n2\n3\n4\n5");
    assert_eq!(run(&node, &["logs", "--since", stamps[5], "job"]), "late");
    node.finish().await;
}
