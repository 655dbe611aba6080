//! `berth explain start`: every stretch of a start, also of a slow one, and what the bookkeeping costs.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

use crate::daemon::{Node, container, pod};
use berth_node_tests::programs;
use serde_json::Value;
use std::process::Command;
use std::time::Duration;

fn explain(node: &Node, name: &str) -> Value {
    let mut command = Command::new(programs().join("berth"));
    let output =
        command.arg("--root").arg(node.root()).args(["explain", "start", name, "-o", "json"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&text).unwrap()
}

fn lines<'a>(report: &'a Value, kind: &str) -> Vec<&'a Value> {
    report["lines"].as_array().unwrap().iter().filter(|l| l["kind"] == kind).collect()
}

fn micros(line: &Value) -> u64 {
    line["micros"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_stretch_of_a_start_is_shown() {
    let mut node = Node::new().await;
    let cri = node.cri();
    let sandbox = pod(&node, "web");
    let id = cri.run(&sandbox).await;
    // As a kubelet does: the image is pulled between run and create.
    cri.pull(&node.tools()).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let app = cri.launch(&id, &container(&node, "app", &["sleep", "1000"]), &sandbox).await;
    let pulled = format!("pull {}", node.tools());
    let check = |report: &Value| {
        let operations: Vec<&str> = lines(report, "operation").iter().map(|l| l["name"].as_str().unwrap()).collect();
        assert_eq!(operations, ["run", &pulled, "create", "start"], "{report:#}");
        let steps: Vec<&str> = lines(report, "step").iter().map(|l| l["name"].as_str().unwrap()).collect();
        for step in
            ["run/network", "pull/resolve", "pull/fetch/commit", "create/rootfs", "start/setup/mounts", "start/exec"]
        {
            assert!(steps.contains(&step), "{step} is not in {steps:?}");
        }
        // The pause before the create is nobody's step; the report says so, and that it dominated or not.
        assert!(lines(report, "between").iter().any(|l| micros(l) >= 250_000), "{report:#}");
        // Every line lies in the whole, and what is at the top adds up to it.
        let total = report["totalMicros"].as_u64().unwrap();
        let all = report["lines"].as_array().unwrap();
        assert!(all.iter().all(|l| l["offsetMicros"].as_u64().unwrap() + micros(l) <= total + 1000), "{report:#}");
        let top: u64 = all.iter().filter(|l| l["depth"] == 0).map(micros).sum();
        assert!(top <= total + 1000 && total - top.min(total) < 1000, "{top} of {total}: {report:#}");
        // What an operation did, and what nobody accounts for, is all of it.
        for (at, operation) in all.iter().enumerate().filter(|(_, l)| l["kind"] == "operation") {
            let depth = operation["depth"].as_u64().unwrap();
            let inside = all[at + 1..].iter().take_while(|l| l["depth"].as_u64().unwrap() > depth);
            let parts: u64 = inside.filter(|l| l["depth"].as_u64().unwrap() == depth + 1).map(micros).sum();
            let whole = micros(operation);
            assert!(parts.abs_diff(whole) <= 1000, "{parts} of {whole} of {}: {report:#}", operation["name"]);
        }
        assert!(!report["advice"].as_array().unwrap().is_empty());
    };
    check(&explain(&node, "web"));
    check(&explain(&node, &app[..12]));
    // It is part of the record, and survives the daemon.
    node.kill_and_start().await;
    check(&explain(&node, "default/web"));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_step_is_named_and_compared() {
    let mut node = Node::with_tools().await;
    let cri = node.cri();
    let sandbox = pod(&node, "usual");
    let id = cri.run(&sandbox).await;
    for n in 0..5 {
        cri.launch(&id, &container(&node, &format!("c{n}"), &["sleep", "1000"]), &sandbox).await;
    }
    // What is usual is learned from the records by the next daemon. Its start is held inside a step.
    node.hold_at("start/spawn/enter");
    node.kill_and_start().await;
    let cri = node.cri();
    let slow = cri.create(&id, &container(&node, "slow", &["sleep", "1000"]), &sandbox).await;
    node.arm();
    let (held, ()) = tokio::join!(cri.try_start(&slow), async {
        node.held().await;
        // Longer than anything else, also on a busy machine.
        tokio::time::sleep(Duration::from_secs(8)).await;
        node.release();
    });
    held.unwrap();
    let report = explain(&node, "slow");
    // The hold lies before the step: no step accounts for it, and the report does not hide that.
    let gap = lines(&report, "unaccounted").into_iter().map(micros).max().unwrap();
    assert!(gap >= 7_900_000, "{report:#}");
    let advice = report["advice"][0].as_str().unwrap();
    assert!(advice.contains("no step accounts for") && advice.contains("(container slow)"), "{advice}");
    let usual = lines(&report, "step").into_iter().filter(|l| l["usualMicros"].is_u64()).count();
    assert!(usual >= 8, "the former starts are known: {report:#}");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starts_that_failed_are_explained_and_unknown_names_are_not() {
    let node = Node::with_tools().await;
    let cri = node.cri();
    let sandbox = pod(&node, "fails");
    let id = cri.run(&sandbox).await;
    let broken = cri.create(&id, &container(&node, "broken", &["/no/such/program"]), &sandbox).await;
    cri.try_start(&broken).await.unwrap_err();
    let report = explain(&node, "broken");
    let operations: Vec<&str> = lines(&report, "operation").iter().map(|l| l["name"].as_str().unwrap()).collect();
    let pulled = format!("pull {}", node.tools());
    assert_eq!(operations, [&pulled, "run", "create", "start (failed)"], "{report:#}");
    let mut unknown = Command::new(programs().join("berth"));
    let output = unknown.arg("--root").arg(node.root()).args(["explain", "start", "nobody"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("nobody"));
    node.finish().await;
}
