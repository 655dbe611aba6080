//! Images by the command line and by documents: names, archives, pushes, pins, limits, and image policy over what comes in by an archive.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

use crate::daemon::{Node, eventually, images, pod, shell};
use berth_node_tests::programs;
use berth_test_registry::{ImageBuilder, Layer};
use serde_json::Value;
use std::process::{Command, Output, Stdio};

fn run(node: &Node, args: &[&str]) -> Output {
    Command::new(programs().join("berth"))
        .arg("--root")
        .arg(node.root())
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// What a command says; it must succeed.
fn berth(node: &Node, args: &[&str]) -> String {
    let output = run(node, args);
    assert!(output.status.success(), "berth {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Why a command fails.
fn fails(node: &Node, args: &[&str]) -> String {
    let output = run(node, args);
    assert!(!output.status.success(), "berth {args:?} succeeds");
    String::from_utf8(output.stderr).unwrap()
}

fn config(rest: &str) -> String {
    format!("apiVersion: berth.dev/v1alpha1\nkind: RuntimeConfig\nmetadata: {{name: more}}\nspec: {rest}\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_archives_and_pushes_by_the_command_line() {
    let node = Node::with_tools().await;
    let cri = node.cri();
    let (tools, host) = (node.tools(), node.registry().host());
    let id = cri.image(&tools).await.unwrap().id;
    let copy = format!("{host}/copy/tools:v2");
    berth(&node, &["tag", &tools, &copy]);
    assert_eq!(cri.image(&copy).await.unwrap().id, id);
    let pushed = berth(&node, &["push", &copy]);
    let digest = node.registry().tag("copy/tools", "v2").unwrap();
    assert!(pushed.starts_with(&format!("{copy} {digest} ")), "{pushed}");
    assert_eq!(Some(&digest), node.registry().tag("tools", "v1").as_ref(), "the same manifest, byte for byte");
    // An id is no place: it would be read as a repository of the default registry.
    for place in [id.as_str(), &id["sha256:".len()..], &id["sha256:".len()..][..12]] {
        assert!(fails(&node, &["push", place]).contains("say where to push it"), "{place}");
    }

    let archive = node.base().join("tools.tar");
    let file = archive.to_str().unwrap();
    berth(&node, &["image", "export", "-o", file, &copy]);
    let bytes = std::fs::read(&archive).unwrap();
    let piped = run(&node, &["save", &copy]);
    assert!(piped.stdout == bytes, "to a pipe the same");
    let removed = berth(&node, &["rmi", &copy]);
    assert!(removed.contains(&format!("Untagged: {copy}")) && !removed.contains("Deleted"), "{removed}");
    let removed = berth(&node, &["rmi", &tools]);
    assert!(removed.contains(&format!("Deleted: {id}")), "{removed}");
    assert!(fails(&node, &["rmi", &tools]).contains("does not exist"));
    let imported = berth(&node, &["load", "-i", file]);
    assert!(imported.starts_with(&format!("{copy} {id} ")), "{imported}");

    // It runs, and while it does it stays.
    let sandbox = pod(&node, "from-archive");
    let pod_id = cri.run(&sandbox).await;
    let mut container = shell(&node, "main", "sleep 1000");
    container.image.as_mut().unwrap().image = copy.clone();
    let container = cri.launch(&pod_id, &container, &sandbox).await;
    assert_eq!(cri.sh(&container, "echo it runs").await, "it runs");
    assert!(fails(&node, &["rmi", &copy]).contains("is used by 1 containers"));
    let history = berth(&node, &["history", "--format", "{{.CreatedBy}}", &copy]);
    assert_eq!(history.trim(), "berth-test-registry");
    let df: Value = serde_json::from_str(&berth(&node, &["df", "-o", "json"])).unwrap();
    assert_eq!((df["images"][0]["id"].as_str(), df["images"][0]["containers"].as_u64()), (Some(id.as_str()), Some(1)));
    assert!(df["containers"][0]["sizeBytes"].as_u64().is_some_and(|n| n > 0), "{df}");
    assert_eq!(df["reclaimableBytes"], 0);
    assert!(berth(&node, &["df", "-v"]).contains("1 layers, 0 of them shared"));
    assert!(berth(&node, &["df"]).lines().any(|l| l.starts_with("Images")));
    assert!(fails(&node, &["prune"]).contains("-f"), "nobody can be asked");
    assert!(berth(&node, &["prune", "-a", "-f"]).contains("Total reclaimed space: 0 B"));

    // What cannot be read is told as that, not as what the daemon saw of it.
    let unreadable = fails(&node, &["load", "-i", node.base().to_str().unwrap()]);
    assert!(unreadable.contains("cannot be read") && unreadable.contains("irectory"), "{unreadable}");
    // An archive that lies is refused with words, and nothing is left of it.
    std::fs::write(&archive, &bytes[..bytes.len() / 2]).unwrap();
    assert!(fails(&node, &["image", "import", file]).contains("image archive"));
    node.nothing_but(&[&pod_id], &[&container]);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policy_decides_about_what_an_archive_brings() {
    let node = Node::with_tools().await;
    let archive = node.base().join("a.tar");
    let file = archive.to_str().unwrap();
    let tools = node.tools();
    berth(&node, &["image", "export", "-o", file, &tools]);
    berth(&node, &["rmi", &tools]);
    let policy = "apiVersion: berth.dev/v1alpha1\nkind: ImagePolicy\nmetadata: {name: only-good}\nspec:\n  mode: Enforce\n  \
                  registries: {allow: ['good.example']}\n";
    node.document("60-policy.yaml", policy);
    let what = "the policy is in force";
    eventually(what, async || node.info().await.documents.iter().any(|d| d.contains("only-good")).then_some(())).await;
    assert!(fails(&node, &["image", "import", file]).contains("only-good"));
    assert_eq!(node.cri().image(&tools).await, None);
    // By another name it comes in; without one it comes in and nothing may be made of it.
    berth(&node, &["image", "import", "--name", "good.example/tools:1", file]);
    let id = node.cri().image("good.example/tools:1").await.unwrap().id;
    let sandbox = pod(&node, "p");
    let pod_id = node.cri().run(&sandbox).await;
    let mut container = shell(&node, "c", "sleep 1000");
    container.image.as_mut().unwrap().image = id;
    let error = node.cri().try_create(&pod_id, &container, &sandbox).await.unwrap_err();
    assert!(error.message().contains("no recorded source"), "an archive is no registry: {error}");
    container.image.as_mut().unwrap().image = "good.example/tools:1".into();
    node.cri().launch(&pod_id, &container, &sandbox).await;
    node.finish().await;
}

/// This machine's disk has no project quota.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_of_writable_layers_that_nothing_enforces_is_refused_with_its_document() {
    let mut node = Node::with_tools().await;
    node.document("60-limit.yaml", &config("{runtime: {storage: {writableLayerLimit: 1Gi}}}"));
    let told = async |node: &Node| {
        let refused = node.info().await.refused_documents;
        (refused.contains("writableLayerLimit") && refused.contains("prjquota")).then_some(())
    };
    eventually("the document is refused", async || told(&node).await).await;
    // What was in force is: containers are made.
    let sandbox = pod(&node, "p");
    let pod_id = node.cri().run(&sandbox).await;
    let mut container = shell(&node, "c", "sleep 1000");
    node.cri().launch(&pod_id, &container, &sandbox).await;
    // One that asks for a limit itself is told so.
    container.metadata.as_mut().unwrap().name = "limited".into();
    container.annotations.insert("berth.dev/writable-layer-limit".into(), "1Gi".into());
    let error = node.cri().try_create(&pod_id, &container, &sandbox).await.unwrap_err();
    assert!(
        error.message().contains("berth.dev/writable-layer-limit") && error.message().contains("prjquota"),
        "{error}"
    );
    // Nothing keeps the node from starting with it.
    node.kill();
    node.start().await;
    eventually("the document is refused still", async || told(&node).await).await;
    node.remove_document("60-limit.yaml");
    eventually("nothing is refused", async || node.info().await.refused_documents.is_empty().then_some(())).await;
    container.annotations.clear();
    node.cri().launch(&pod_id, &container, &sandbox).await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pins_and_limits_follow_the_documents() {
    let node = Node::with_tools().await;
    let cri = node.cri();
    node.registry().push_image(&images::web("other", "v1")).unwrap();
    let other = node.registry().reference("other:v1");
    cri.pull(&other).await;
    assert!(!cri.image(&node.tools()).await.unwrap().pinned);
    node.document("60-pins.yaml", &config(&format!("{{images: {{pinned: ['{}']}}}}", node.tools())));
    let pinned = async || cri.image(&node.tools()).await.unwrap().pinned.then_some(());
    eventually("the image is pinned", pinned).await;
    // One MiB is less than either takes.
    let limit = "runtime: {storage: {imageFsQuota: 1Mi, gc: {minAge: 0s}}}";
    node.document("60-pins.yaml", &config(&format!("{{images: {{pinned: ['{}']}}, {limit}}}", node.tools())));
    eventually("what is not pinned goes", async || cri.image(&other).await.is_none().then_some(())).await;
    assert!(cri.image(&node.tools()).await.is_some());
    node.remove_document("60-pins.yaml");
    eventually("it is not pinned any more", async || (!cri.image(&node.tools()).await?.pinned).then_some(())).await;
    node.finish().await;
}

/// Memory of a process that is in no file, in KiB.
fn anonymous(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_of_pulls_is_given_back() {
    let node = Node::with_tools().await;
    let bytes: Vec<u8> = (0_u32..1 << 18).map(|at| (at.wrapping_mul(at >> 7) >> 5) as u8).collect();
    for name in ["one", "two"] {
        let mut image = ImageBuilder::new(name, "v1");
        for layer in 0..4 {
            let file = format!("{name}{layer}");
            image = image.layer(Layer::new().file(&file, 0o644, bytes.repeat(64)));
        }
        node.registry().push_image(&image).unwrap();
        berth(&node, &["pull", &format!("{}/{name}:v1", node.registry().host())]);
    }
    println!("memory in no file: {} KiB", anonymous(node.pid()));
    eventually("it is given back", async || (anonymous(node.pid()) < 12 << 10).then_some(())).await;
    node.finish().await;
}
