//! `spec.runtime.storage.directory`: the image store at another place, while containers and images of the former one go on.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

use crate::daemon::{Node, eventually, host, pod, shell};
use berth_proto::cri::*;
use std::path::{Path, PathBuf};

const FILE: &str = "60-place.yaml";

fn document(node: &Node, directory: &Path) {
    let head = "apiVersion: berth.dev/v1alpha1\nkind: RuntimeConfig\nmetadata: {name: place}\nspec:\n";
    node.document(FILE, &format!("{head}  runtime: {{storage: {{directory: {}}}}}\n", directory.display()));
}

fn count(directory: &Path, what: &str) -> usize {
    std::fs::read_dir(directory.join(what)).map_or(0, Iterator::count)
}

async fn waits_for_a_restart(node: &Node) {
    eventually("the directory waits for a restart", async || {
        node.info().await.pending_restart.iter().any(|p| p.contains("spec.runtime.storage.directory")).then_some(())
    })
    .await;
}

async fn refused(node: &Node, words: &str) {
    eventually(words, async || node.info().await.refused_documents.contains(words).then_some(())).await;
}

async fn remove_image(node: &Node, image: &str) {
    let image = Some(ImageSpec { image: image.to_owned(), ..Default::default() });
    node.cri().images().remove_image(RemoveImageRequest { image }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_moves_while_its_containers_stay() {
    let mut node = Node::with_tools().await;
    let (below, store) = (node.root().join("lib/images"), node.base().join("store"));
    let (config, tools) = (pod(&node, "pod"), node.tools());
    let id = node.cri().run(&config).await;
    let old = node.cri().launch(&id, &shell(&node, "old", "echo kept >/mark; exec sleep 1000"), &config).await;
    document(&node, &store);
    waits_for_a_restart(&node).await;
    assert!(!store.exists(), "nothing before the restart");
    node.kill_and_start().await;

    // What was there is used from where it is; what is new is at the new place.
    let cri = node.cri();
    assert!(cri.image(&tools).await.is_some());
    assert_eq!(cri.sh(&old, "cat /mark").await, "kept");
    let new = cri.launch(&id, &shell(&node, "new", "exec sleep 1000"), &config).await;
    assert_eq!((count(&store, "rootfs"), count(&store, "snapshots"), count(&below, "rootfs")), (1, 0, 1));
    cri.sh(&new, "echo more >/mark").await;
    assert_eq!(std::fs::read_to_string(store.join("rootfs").join(&new).join("upper/mark")).unwrap(), "more\n");
    cri.pull(&node.web()).await;
    assert!(count(&store, "snapshots") > 0, "a pull unpacks at the new place");
    let mountpoint = cri.images().image_fs_info(ImageFsInfoRequest {}).await.unwrap().into_inner();
    let told = mountpoint.image_filesystems[0].fs_id.as_ref().unwrap().mountpoint.clone();
    assert_eq!(PathBuf::from(told), store);

    // Both containers and both images once more after another start, and an image removed at either place.
    node.kill_and_start().await;
    let cri = node.cri();
    assert_eq!((cri.sh(&old, "cat /mark").await, cri.sh(&new, "cat /mark").await), ("kept".into(), "more".into()));
    remove_image(&node, &node.web()).await;
    eventually("the new place is swept", async || (count(&store, "snapshots") == 0).then_some(())).await;
    for container in [&old, &new] {
        cri.try_stop(container, 0).await.unwrap();
        cri.try_remove(container).await.unwrap();
    }
    remove_image(&node, &tools).await;
    eventually("the former place is swept", async || (count(&below, "snapshots") == 0).then_some(())).await;
    assert_eq!((count(&store, "rootfs"), count(&below, "rootfs")), (0, 0));

    // The former place is empty now, so the next start gives it up; without the document the store comes back.
    node.kill_and_start().await;
    eventually("the former place is given up", async || (!below.exists()).then_some(())).await;
    node.cri().pull(&tools).await;
    node.remove_document(FILE);
    waits_for_a_restart(&node).await;
    node.kill_and_start().await;
    let again = node.cri().launch(&id, &shell(&node, "again", "exec sleep 1000"), &config).await;
    assert_eq!(node.cri().sh(&again, "echo runs").await, "runs");
    assert_eq!((count(&below, "rootfs"), count(&below, "snapshots")), (1, 0), "its layers are at the former place");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_that_will_not_do_is_refused_before_a_restart() {
    let mut node = Node::with_tools().await;
    let full = node.base().join("full");
    std::fs::create_dir_all(&full).unwrap();
    std::fs::write(full.join("file"), "x").unwrap();
    document(&node, &full);
    refused(&node, "is not empty").await;
    document(&node, &node.base().join("none/store"));
    refused(&node, "mount the disk").await;
    document(&node, &node.root().join("lib/store"));
    refused(&node, "lie within one another").await;
    // No overlay has its writable layer on an overlay.
    let overlay = node.base().join("overlay");
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| {
        let path = node.base().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path.display().to_string()
    });
    std::fs::create_dir_all(&overlay).unwrap();
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    host("mount", &["-t", "overlay", "overlay", "-o", &options, &overlay.display().to_string()]);
    document(&node, &overlay.join("store"));
    refused(&node, "cannot have containers' writable layers").await;
    host("umount", &[&overlay.display().to_string()]);
    assert_eq!(count(&node.base().join("upper"), "."), 0, "the probe left nothing");

    // A disk that is not mounted: the daemon says so, and starts nothing somewhere else.
    let store = node.base().join("store");
    document(&node, &store);
    waits_for_a_restart(&node).await;
    node.kill_and_start().await;
    node.cri().pull(&node.web()).await;
    node.kill();
    std::fs::rename(&store, node.base().join("unmounted")).unwrap();
    std::fs::create_dir(&store).unwrap();
    let root = node.root().display().to_string();
    let mut berth = tokio::process::Command::new(berth_node_tests::programs().join("berth"));
    let output = berth.args(["serve", "--root", &root]).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && said.contains("mount its disk"), "{said}");
    assert_eq!(count(&store, "."), 0);
    std::fs::remove_dir(&store).unwrap();
    std::fs::rename(node.base().join("unmounted"), &store).unwrap();
    node.start().await;
    assert!(node.cri().image(&node.web()).await.is_some());
    node.finish().await;
}
