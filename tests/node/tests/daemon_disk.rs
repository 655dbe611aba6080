//! A disk without a free block, and one without a free inode: what runs goes on, what is removed is removed, and nothing is torn.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

use crate::daemon::{Node, eventually, host, images, pod, shell};
use berth_proto::cri::{ContainerState, PodSandboxState};
use berth_test_registry::{Compression, ImageBuilder, Layer};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// An ext4 of this many MiB and inodes as the daemon's `lib`.
async fn on_ext4(megabytes: u64, inodes: u32) -> Node {
    Node::on(|root| {
        let image = root.join("disk.img");
        File::create(&image).unwrap().set_len(megabytes << 20).unwrap();
        let image = image.to_str().unwrap().to_owned();
        host("mkfs.ext4", &["-q", "-F", "-m", "0", "-N", &inodes.to_string(), &image]);
        let lib = root.join("lib");
        std::fs::create_dir(&lib).unwrap();
        host("mount", &["-o", "loop", &image, lib.to_str().unwrap()]);
        vec![lib]
    })
    .await
}

/// Takes every block that is left, large pieces first.
fn fill_blocks(lib: &Path) -> Vec<PathBuf> {
    let place = lib.join("filler");
    let mut file = File::create(&place).unwrap();
    for size in [1 << 20, 64 << 10, 4096, 1] {
        let piece = vec![b'x'; size];
        while file.write_all(&piece).is_ok() {}
    }
    let _ = file.sync_all();
    assert!(File::create(lib.join("probe")).and_then(|mut f| f.write_all(b"x").and_then(|()| f.sync_all())).is_err());
    let _ = std::fs::remove_file(lib.join("probe"));
    vec![place]
}

/// Takes every inode that is left.
fn fill_inodes(lib: &Path) -> Vec<PathBuf> {
    let directory = lib.join("filler");
    std::fs::create_dir(&directory).unwrap();
    let mut all: Vec<PathBuf> = Vec::new();
    loop {
        let path = directory.join(all.len().to_string());
        if File::create(&path).is_err() {
            break;
        }
        all.push(path);
    }
    assert!(all.len() > 100, "{} files filled it", all.len());
    all.push(directory);
    all
}

fn empty(places: &[PathBuf]) {
    for place in places {
        let _ = std::fs::remove_file(place).or_else(|_| std::fs::remove_dir(place));
    }
}

/// What is asked of a node whose disk is full, in either way.
async fn lives_through_it(mut node: Node, fill: fn(&Path) -> Vec<PathBuf>) {
    let lib = node.root().join("lib");
    let cri = node.cri();
    for name in ["next", "spare"] {
        let layer = Layer::with_compression(Compression::Plain).file("f", 0o644, vec![name.as_bytes()[0]; 300_000]);
        node.registry().push_image(&ImageBuilder::new(name, "v1").layer(layer)).unwrap();
    }
    cri.pull(&node.tools()).await;
    let spare = cri.pull(&node.registry().reference("spare:v1")).await;
    let config = pod(&node, "stays");
    let stays = cri.run(&config).await;
    let ticks = "while true; do echo tick; sleep 0.1; done";
    let ticker = cri.launch(&stays, &shell(&node, "ticker", ticks), &config).await;
    let going = pod(&node, "goes");
    let goes = cri.run(&going).await;
    let gone = cri.launch(&goes, &shell(&node, "gone", "sleep 1000"), &going).await;
    let filler = fill(&lib);

    // A pull fails with words, and leaves nothing.
    let error = cri.try_pull(&node.registry().reference("next:v1"), "default").await.unwrap_err();
    assert!(error.message().contains("space") || error.message().contains("min_free"), "{error}");
    assert!(std::fs::read_dir(lib.join("images/ingest")).unwrap().next().is_none());
    let fresh = pod(&node, "fresh");
    let error = cri.try_run(&fresh).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::ResourceExhausted, "{error}");
    node.nothing_but(&[&stays, &goes], &[&ticker, &gone]);

    // What runs goes on, and writes its log (which lies on another disk here).
    assert_eq!(cri.sh(&ticker, "echo here").await, "here");
    let log = config.log_directory.clone() + "/ticker.log";
    let length = || std::fs::metadata(&log).unwrap().len();
    let before = length();
    eventually("the log grows", async || (length() > before).then_some(())).await;

    // What is to go goes, without a block or an inode to be had.
    cri.try_stop(&gone, 0).await.unwrap();
    assert_eq!(cri.status(&gone).await.unwrap().state, ContainerState::ContainerExited as i32);
    cri.try_remove(&gone).await.unwrap();
    cri.try_stop_pod(&goes).await.unwrap();

    // A new daemon on the full disk finds all of it.
    node.kill_and_start().await;
    let cri = node.cri();
    let state = |id: &str, pods: &[berth_proto::cri::PodSandbox]| pods.iter().find(|p| p.id == id).unwrap().state;
    let pods = cri.pods().await;
    assert_eq!(state(&stays, &pods), PodSandboxState::SandboxReady as i32);
    assert_eq!(state(&goes, &pods), PodSandboxState::SandboxNotready as i32);
    assert_eq!(cri.sh(&ticker, "echo still").await, "still");
    assert!(!node.log_tail().contains("cannot be read"), "{}", node.log_tail());
    cri.try_remove_pod(&goes).await.unwrap();

    // Removing images is what makes room.
    let used = || rustix::fs::statvfs(&lib).unwrap().f_bfree;
    let free = used();
    let mut service = cri.images();
    let image = Some(berth_proto::cri::ImageSpec { image: spare.clone(), ..Default::default() });
    service.remove_image(berth_proto::cri::RemoveImageRequest { image }).await.unwrap();
    assert_eq!(cri.image(&spare).await, None);
    eventually("its blocks are free", async || (used() > free).then_some(())).await;
    let berth = berth_node_tests::programs().join("berth");
    let root = node.root();
    host(berth.to_str().unwrap(), &["--root", root.to_str().unwrap(), "prune", "-a", "-f"]);
    assert!(cri.image(&node.tools()).await.is_some(), "a container stands on it");

    // With space everything goes on as before.
    empty(&filler);
    cri.pull(&node.registry().reference("next:v1")).await;
    let again = cri.run(&fresh).await;
    let container = cri.launch(&again, &shell(&node, "again", "sleep 1000"), &fresh).await;
    assert_eq!(cri.sh(&container, "echo again").await, "again");
    node.kill_and_start().await;
    assert!(node.cri().image(&spare).await.is_none(), "what was removed on the full disk stays removed");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_without_a_block() {
    lives_through_it(on_ext4(200, 20_000).await, fill_blocks).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_without_an_inode() {
    lives_through_it(on_ext4(200, 2000).await, fill_inodes).await;
}

/// A log on a full disk: the container is not held up, and the log goes on when there is space.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_on_a_full_disk_goes_on_later() {
    let node = Node::on(|root| {
        let logs = root.parent().unwrap().join("logs");
        std::fs::create_dir(&logs).unwrap();
        host("mount", &["-t", "tmpfs", "-o", "size=64k", "berth-test", logs.to_str().unwrap()]);
        vec![logs]
    })
    .await;
    node.registry().push_image(&images::web("other", "v1")).unwrap();
    let cri = node.cri();
    cri.pull(&node.tools()).await;
    let config = pod(&node, "talks");
    let sandbox = cri.run(&config).await;
    let filler = node.base().join("logs/filler");
    let script = "n=0; while true; do n=$((n+1)); echo line-$n; echo $n > /count; sleep 0.02; done";
    let talker = cri.launch(&sandbox, &shell(&node, "talker", script), &config).await;
    let log = config.log_directory.clone() + "/talker.log";
    eventually("it has written", async || std::fs::read_to_string(&log).ok()?.contains("line-3").then_some(())).await;
    let mut file = File::create(&filler).unwrap();
    while file.write_all(&[b'x'; 512]).is_ok() {}
    let count = async || cri.sh(&talker, "cat /count").await.trim().parse::<u64>().unwrap_or(0);
    let then = count().await;
    eventually("it is not held up", async || (count().await > then + 50).then_some(())).await;
    std::fs::remove_file(&filler).unwrap();
    drop(file);
    let now = count().await;
    let later = format!("line-{}", now + 20);
    eventually("the log goes on", async || std::fs::read_to_string(&log).ok()?.contains(&later).then_some(())).await;
    let text = std::fs::read_to_string(&log).unwrap();
    let whole = |line: &&str| {
        let parts: Vec<&str> = line.splitn(4, ' ').collect();
        matches!(parts.as_slice(), [_, "stdout" | "stderr", "P" | "F", _])
    };
    let torn: Vec<&str> = text.lines().filter(|l| !whole(l)).collect();
    assert!(torn.is_empty(), "records are whole: {torn:?}");
    node.finish().await;
}
