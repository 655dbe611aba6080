//! CNI plugins that hang, crash, lie, flood and leave things: pods fail with a sentence that says why, retries succeed, what was
//! attached is deleted in the end, and nothing is left over.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

use crate::cni::{CniNode, DEBIAN};
use crate::daemon;
use crate::daemon::{eventually, is_alive, pod};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

/// A network whose second plugin misbehaves: what the first one did must be undone.
async fn hostile_node() -> CniNode {
    let node = CniNode::new(Path::new(DEBIAN)).await;
    let hostile = node.hostile();
    node.network("1.0.0", &[node.bridge(), hostile]);
    node.becomes_ready().await;
    node
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_plugin_does_the_pod_fails_clearly_and_the_retry_succeeds() {
    let node = hostile_node().await;
    node.settings(Path::new(DEBIAN), "3s");
    let at = "CNI network pods: plugin hostile (2 of 2): ADD: ";
    let cases = [
        (
            "error",
            "vlan 12 does not exist: ask the network team (CNI error code 7); it wrote: the switch does not answer",
        ),
        ("hang", "did not end in time (spec.network.cni.timeout) and was killed"),
        ("crash", "was ended by SIGSEGV (11)"),
        ("garbage", "the result is not JSON"),
        ("nothing", "it printed no result"),
        ("flood", "printed more than 1024 KiB and was killed"),
        ("exit", "ended with exit code 3 without an error in CNI's form; it wrote: a last word"),
    ];
    for (how, message) in cases {
        let sandbox = pod(&node.node, how);
        node.behave("ADD", how);
        let begun = Instant::now();
        let error = node.cri().try_run(&sandbox).await.unwrap_err();
        assert!(error.message().contains(&format!("{at}{message}")), "{how}: {error}");
        assert!(begun.elapsed() < Duration::from_secs(30), "{how} took {:?}", begun.elapsed());
        assert_eq!(node.cri().pods().await, [], "{how}");
        node.clean().await;
        for pid in node.left() {
            eventually("the plugin's children are gone", async || (!is_alive(pid)).then_some(())).await;
        }
        node.behave("ADD", "");
        let id = node.cri().try_run(&sandbox).await.unwrap_or_else(|e| panic!("the retry after {how}: {e}"));
        node.cri().try_remove_pod(&id).await.unwrap();
    }
    // A plugin that is killed at once leaves none.
    assert!(node.left().len() >= 2, "children were left: {:?}", node.left());
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_leaves_children_keeps_nobody_waiting() {
    let node = hostile_node().await;
    node.behave("ADD", "children");
    let begun = Instant::now();
    node.cri().run(&pod(&node.node, "children")).await;
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    eventually("the child has told its number, and is ended", async || match node.left()[..] {
        [pid] => (!is_alive(pid)).then_some(()),
        _ => None,
    })
    .await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_del_that_fails_stops_nobody_and_is_tried_until_it_succeeds() {
    let node = hostile_node().await;
    node.behave("DEL", "fail-3");
    let id = node.cri().run(&pod(&node.node, "first")).await;
    node.cri().try_remove_pod(&id).await.unwrap();
    assert_eq!(node.cri().pods().await, []);
    assert_eq!(node.leases().len(), 2, "the addresses stay taken until DEL succeeds");
    node.clean().await;
    assert_eq!(node.count("DEL"), 4, "{:?}", node.calls());
    // In an ADD that failed too.
    node.behave("ADD", "error");
    node.behave("DEL", "fail-2");
    let sandbox = pod(&node.node, "second");
    node.cri().try_run(&sandbox).await.unwrap_err();
    node.behave("ADD", "");
    let id = node.cri().run(&sandbox).await;
    node.cri().try_remove_pod(&id).await.unwrap();
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_del_survives_the_daemon_the_plugin_and_the_configuration() {
    let mut node = hostile_node().await;
    let id = node.cri().run(&pod(&node.node, "first")).await;
    std::fs::remove_file(node.configurations().join("10-pods.conflist")).unwrap();
    node.becomes_unready("no CNI configuration").await;
    node.remove_hostile();
    node.cri().try_remove_pod(&id).await.unwrap();
    assert_eq!((node.leases().len(), node.records().len()), (2, 1));
    node.node.kill_and_start().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!((node.leases().len(), node.records().len()), (2, 1), "nothing is forgotten");
    let log = std::fs::read_to_string(node.node.log()).unwrap();
    assert!(log.contains("plugin hostile (2 of 2) is not in"), "{}", node.node.log_tail());
    node.hostile();
    node.clean().await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_killed_within_add_or_del_leaves_nothing() {
    let mut node = hostile_node().await;
    for verb in ["ADD", "DEL"] {
        let sandbox = pod(&node.node, &format!("in-{}", verb.to_lowercase()));
        let before = node.count(verb);
        node.behave(verb, "hang");
        let cri = node.cri();
        let call = tokio::spawn({
            let sandbox = sandbox.clone();
            async move {
                let id = cri.try_run(&sandbox).await?;
                cri.try_remove_pod(&id).await
            }
        });
        let children = node.left().len();
        eventually("the plugin hangs", async || {
            (node.count(verb) > before && node.left().len() >= children + 2).then_some(())
        })
        .await;
        node.node.kill();
        call.await.unwrap().unwrap_err();
        node.behave(verb, "");
        node.node.start().await;
        for pid in node.left() {
            eventually("what the plugin started is gone", async || (!is_alive(pid)).then_some(())).await;
        }
        if verb == "ADD" {
            assert_eq!(node.cri().pods().await, []);
        }
        node.node.remove_pods().await;
        node.clean().await;
        node.becomes_ready().await;
        let id = node.cri().run(&sandbox).await;
        node.cri().try_remove_pod(&id).await.unwrap();
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_of_a_configuration_is_told_to_its_plugin_alone() {
    const PLANTED: &str = "planted-Zq81xv";
    let node = CniNode::new(Path::new(DEBIAN)).await;
    let mut hostile = node.hostile();
    hostile["policy"] = json!({ "k8s_auth_token": PLANTED });
    node.network("1.0.0", &[hostile]);
    node.becomes_ready().await;
    node.behave("ADD", "echo");
    let error = node.cri().try_run(&pod(&node.node, "leaky")).await.unwrap_err();
    assert!(error.message().contains("k8s_auth_token:<hidden>"), "{error}");
    assert!(!error.message().contains(PLANTED), "{error}");
    assert_eq!(node.told("ADD")["policy"]["k8s_auth_token"], PLANTED);
    node.behave("ADD", "");
    node.behave("DEL", "echo");
    let id = node.cri().run(&pod(&node.node, "quiet")).await;
    let shown = daemon::crictl::run(&node.node, &["inspectp", &id]);
    assert!(!shown.contains(PLANTED), "{shown}");
    node.cri().try_remove_pod(&id).await.unwrap();
    node.behave("DEL", "");
    node.clean().await;
    let log = std::fs::read_to_string(node.node.log()).unwrap();
    assert!(!log.contains(PLANTED), "the log has it");
    let figures = node.netns.run(|| node.node.figures());
    assert!(figures.keys().all(|k| !k.contains(PLANTED)));
    assert!(figures["berth_events_total{event=\"cni_delete_failed\"}"] >= 1.0);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_long_message_the_end_is_told_without_a_secret_of_several_lines() {
    let node = CniNode::new(Path::new(DEBIAN)).await;
    let mut hostile = node.hostile();
    hostile["client_secret"] = json!("planted-Ab12\nplanted-\"Cd34\"\n");
    node.network("1.0.0", &[hostile]);
    node.becomes_ready().await;
    node.behave("ADD", "leak");
    let error = node.cri().try_run(&pod(&node.node, "leaky")).await.unwrap_err();
    for part in ["ended with exit code 3", "<hidden>", "the last word"] {
        assert!(error.message().contains(part), "{part}: {error}");
    }
    assert!(!error.message().contains("planted-"), "{error}");
    assert_eq!(node.told("ADD")["client_secret"], "planted-Ab12\nplanted-\"Cd34\"\n");
    node.clean().await;
    assert!(!std::fs::read_to_string(node.node.log()).unwrap().contains("planted-"), "the log has it");
    node.finish().await;
}
