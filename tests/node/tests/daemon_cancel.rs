//! Clients that go away in the middle of a pull: a kubelet that cancels, and Ctrl-C at the command line.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

use crate::daemon::{Node, eventually, signal};
use berth_node_tests::programs;
use berth_test_registry::{Fault, ImageBuilder, Layer, When};
use nix::sys::signal::Signal;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

/// An image whose one layer takes minutes.
fn slow_image(node: &Node) -> When {
    let noise: Vec<u8> = (0..400_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let image = ImageBuilder::new("slow", "v1").layer(Layer::new().file("f", 0o644, noise));
    let blob = When::blob(&image.build().unwrap().layers[0].digest);
    node.registry().push_image(&image).unwrap();
    node.registry().inject(blob.clone(), Fault::Delay { per_chunk: Duration::from_millis(50), chunk: 100 });
    blob
}

fn entries(node: &Node, directory: &str) -> usize {
    std::fs::read_dir(node.root().join("lib/images").join(directory)).unwrap().count()
}

/// The transfer has ended and its directory is gone.
async fn ended(node: &Node, cancelled: f64) {
    eventually("what was half-done is gone", async || (entries(node, "ingest") == 0).then_some(())).await;
    eventually("the pull is counted", async || {
        (node.figure("berth_pulls_total{result=\"cancelled\"}") == cancelled).then_some(())
    })
    .await;
    // The registry notices at one of its next pieces, of which there are many a second.
    eventually("nothing is fetched any more", async || {
        let served = node.registry().bytes_served();
        tokio::time::sleep(Duration::from_millis(500)).await;
        (node.registry().bytes_served() == served).then_some(())
    })
    .await;
    assert_eq!(entries(node, "snapshots"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_ends_when_nobody_waits_for_it() {
    let node = Node::new().await;
    let cri = node.cri();
    let blob = slow_image(&node);
    let reference = node.registry().reference("slow:v1");
    let pull = || {
        tokio::spawn({
            let (cri, reference) = (cri.clone(), reference.clone());
            async move { cri.try_pull(&reference, "default").await }
        })
    };
    let arrives = |count: usize| {
        let (node, blob) = (&node, &blob);
        eventually("the layer arrives", async move || {
            (node.registry().count(blob) == count && entries(node, "ingest") > 0).then_some(())
        })
    };
    // A kubelet's cancel.
    let cancelled = pull();
    arrives(1).await;
    cancelled.abort();
    ended(&node, 1.0).await;

    // Ctrl-C at the command line, while a kubelet waits for the same image.
    let waiting = pull();
    arrives(2).await;
    let mut cli = Command::new(programs().join("berth"))
        .arg("--root")
        .arg(node.root())
        .args(["pull", &reference])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = i32::try_from(cli.id()).unwrap();
    // It has joined when it is told how far the layer is: that comes from the pull under way.
    let mut told = BufReader::new(cli.stderr.take().unwrap()).lines();
    assert!(told.any(|line| line.unwrap().contains(": downloading")), "it has ended");
    signal(pid, Signal::SIGINT);
    assert!(!cli.wait().unwrap().success());
    let served = node.registry().bytes_served();
    eventually("the pull goes on for the kubelet", async || {
        (node.registry().bytes_served() > served + 500).then_some(())
    })
    .await;
    waiting.abort();
    ended(&node, 3.0).await;

    // Ctrl-C alone.
    let mut cli = Command::new(programs().join("berth"))
        .arg("--root")
        .arg(node.root())
        .args(["pull", &reference])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    arrives(3).await;
    signal(i32::try_from(cli.id()).unwrap(), Signal::SIGINT);
    assert!(!cli.wait().unwrap().success());
    ended(&node, 4.0).await;

    // And the registry being itself again, the image comes.
    node.registry().clear_faults();
    cri.pull(&reference).await;
    node.finish().await;
}
