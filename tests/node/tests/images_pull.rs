//! Pulls from a real registry protocol into a store, seen through real overlay mounts. Needs root.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test that cannot go on must stop")]

use crate::images::{Bench, Overlay, names};
use berth_images::RootfsPlan;
use berth_model::{ContainerId, ErrorKind};
use berth_registry::Auth;
use berth_test_registry::{Compression, Entry, Fault, ImageBuilder, Layer, When};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

fn container(n: u8) -> ContainerId {
    ContainerId::from_random([n; 32])
}

/// Three layers in three compressions that add, hide and replace.
fn layered() -> ImageBuilder {
    let base = Layer::with_compression(Compression::Gzip)
        .entry(Entry::dir("etc").mode(0o750).owner(7, 8))
        .entry(Entry::file("etc/gone", "1"))
        .entry(Entry::file("etc/kept", "1").owner(1000, 2000).mode(0o640))
        .entry(Entry::dir("data"))
        .entry(Entry::file("data/old", "1"))
        .entry(Entry::dir("swap"))
        .entry(Entry::file("swap/inner", "1"))
        .entry(Entry::file("bin/tool", "run").mode(0o4755).xattr("security.capability", CAP_NET_RAW));
    let middle = Layer::with_compression(Compression::Zstd)
        .entry(Entry::whiteout("etc/gone"))
        .entry(Entry::opaque("data"))
        .entry(Entry::file("data/new", "2"))
        .entry(Entry::file("swap", "now a file"));
    let top = Layer::with_compression(Compression::Plain).entries([
        Entry::file("first", "3"),
        Entry::hard_link("second", "first"),
        Entry::file("etc/added", "3"),
    ]);
    ImageBuilder::new("app", "v1")
        .layer(base)
        .layer(middle)
        .layer(top)
        .entrypoint(["/bin/tool"])
        .env(["A=b"])
        .user("1000")
}

/// `vfs_cap_data` revision 2 with CAP_NET_RAW permitted and effective (include/uapi/linux/capability.h).
const CAP_NET_RAW: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[tokio::test(flavor = "multi_thread")]
async fn layers_stack_as_the_image_says() {
    let bench = Bench::new().await;
    let image = bench.push_and_pull(&layered(), "app:v1").await;
    assert_eq!(image.config.entrypoint, ["/bin/tool"]);
    assert_eq!(image.layers.len(), 3);
    assert!(image.size > 0 && image.pulled_at > 0);
    let dirs = bench.images.prepare_rootfs(&container(1), RootfsPlan::new(image.id.clone())).await.unwrap();
    assert_eq!(dirs.lower.len(), 3);
    {
        let overlay = Overlay::mount(&dirs.lower, Some((&dirs.upper, &dirs.work)), &dirs.mountpoint);
        let at = |name: &str| overlay.0.join(name);
        assert_eq!(names(&overlay.0), ["bin", "data", "etc", "first", "second", "swap"]);
        assert_eq!(names(&at("etc")), ["added", "kept"]);
        assert_eq!(names(&at("data")), ["new"]);
        assert_eq!(std::fs::read(at("swap")).unwrap(), b"now a file");
        let etc = at("etc").metadata().unwrap();
        assert_eq!(
            (etc.mode() & 0o7777, etc.uid(), etc.gid()),
            (0o750, 7, 8),
            "an implied directory must not change it"
        );
        let kept = at("etc/kept").metadata().unwrap();
        assert_eq!((kept.mode() & 0o7777, kept.uid(), kept.gid(), kept.mtime()), (0o640, 1000, 2000, 1_704_067_200));
        let tool = at("bin/tool").metadata().unwrap();
        assert_eq!(tool.mode() & 0o7777, 0o4755);
        let mut capability = [0; 64];
        let length = rustix::fs::getxattr(at("bin/tool"), "security.capability", &mut capability).unwrap();
        assert_eq!(&capability[..length], CAP_NET_RAW);
        assert_eq!(at("first").metadata().unwrap().nlink(), 2);
        std::fs::write(at("etc/written"), "x").unwrap();
    }
    let usage = bench.images.rootfs_usage(&container(1), Duration::ZERO).await.unwrap();
    assert_eq!(usage.usage.inodes, 3, "root, etc, written");
    bench.images.remove_rootfs(&container(1)).await.unwrap();
    bench.images.remove_rootfs(&container(1)).await.unwrap();
    bench.images.collect().await.unwrap();
    assert!(names(&bench.root.join("rootfs")).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_namespace_gets_its_root() {
    let bench = Bench::new().await;
    let image = bench.push_and_pull(&layered(), "app:v1").await;
    let plan = RootfsPlan { mapped_root: Some((100_000, 200_000)), ..RootfsPlan::new(image.id.clone()) };
    let dirs = bench.images.prepare_rootfs(&container(1), plan).await.unwrap();
    let upper = dirs.upper.metadata().unwrap();
    assert_eq!((upper.uid(), upper.gid()), (100_000, 200_000));
    assert_eq!(
        bench.images.prepare_rootfs(&container(1), RootfsPlan::new(image.id.clone())).await.unwrap(),
        dirs,
        "asking again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_pulls_join_and_others_credentials_do_not() {
    let bench = Bench::new().await;
    let big = Layer::new().entry(Entry::file("big", vec![7; 3_000_000]));
    let built = ImageBuilder::new("app", "v1").layer(big);
    bench.registry.push_image(&built).unwrap();
    let layer = built.build().unwrap().layers[0].digest.clone();
    bench.registry.inject(When::blob(&layer), Fault::DelayHeaders(Duration::from_millis(500)));
    let request = bench.request("app:v1").await.unwrap();
    let pulls = (0..8).map(|_| {
        let (images, request) = (bench.images.clone(), request.clone());
        tokio::spawn(async move { images.fetch(request).await })
    });
    let pulls: Vec<_> = pulls.collect();
    // A list answers while the pull runs.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(bench.images.list().is_empty());
    pulls[0].abort();
    for pull in pulls.into_iter().skip(1) {
        assert_eq!(pull.await.unwrap().unwrap().repo_tags.len(), 1);
    }
    assert_eq!(bench.registry.count(&When::blob(&layer)), 1);
    let other = Auth::Basic { username: "a".into(), password: "b".into() };
    let manifests = |bench: &Bench| bench.registry.count(&When::path("/manifests/"));
    let before = manifests(&bench);
    bench.images.fetch(bench.request_as("app:v1", other).await.unwrap()).await.unwrap();
    assert!(manifests(&bench) > before, "the registry was asked with the other credentials");
    assert_eq!(bench.registry.count(&When::blob(&layer)), 1, "what is here is not fetched again");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_follow_their_pulls() {
    let bench = Bench::new().await;
    let image =
        |repo: &str, tag: &str, text: &str| ImageBuilder::new(repo, tag).layer(Layer::new().file("f", 0o644, text));
    let first = bench.push_and_pull(&image("app", "v1", "one"), "app:v1").await;
    let same = bench.push_and_pull(&image("other/app", "x", "one"), "other/app:x").await;
    assert_eq!(first.id, same.id);
    assert_eq!((same.repo_tags.len(), same.repo_digests.len()), (2, 2));
    assert_eq!(same.evidence.sources.len(), 2);
    assert_eq!(bench.images.list().len(), 1);
    // The tag moves on the registry.
    let moved = bench.push_and_pull(&image("app", "v1", "two"), "app:v1").await;
    assert_ne!(moved.id, first.id);
    let former = bench.images.find(first.id.as_str()).unwrap().unwrap();
    assert_eq!(former.repo_tags, [bench.reference("other/app:x")]);
    assert_eq!(former.repo_digests.len(), 2);
    // By digest: no tag.
    let third = image("third", "t", "three");
    let digest = bench.registry.push_image(&third).unwrap();
    let by_digest = bench.pull(&format!("third@{digest}")).await.unwrap();
    assert!(by_digest.repo_tags.is_empty());
    assert_eq!(by_digest.repo_digests, [bench.reference(&format!("third@{digest}"))]);
    // A repository that does not have it is asked all the same, and lends it no name.
    let e = bench.pull(&format!("fourth@{digest}")).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound, "{e}");
    let here = bench.images.find(by_digest.id.as_str()).unwrap().unwrap();
    assert_eq!((here.repo_digests.len(), here.evidence.sources.len()), (1, 1));
    // Removal takes all names.
    bench.images.remove(&bench.reference("other/app:x").to_string()).await.unwrap();
    for name in [first.id.as_str(), &bench.registry.reference("other/app:x"), &former.repo_digests[0].to_string()] {
        assert!(bench.images.find(name).unwrap().is_none(), "{name}");
        bench.images.remove(name).await.unwrap();
    }
    assert_eq!(bench.images.list().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_gives_this_platform() {
    let bench = Bench::new().await;
    let layer = |text: &str| Layer::new().file("f", 0o644, text);
    let foreign = ImageBuilder::new("app", "").layer(layer("s390x")).platform("linux", "s390x", None);
    let ours = ImageBuilder::new("app", "").layer(layer("ours"));
    let index = bench.registry.push_index("app", "multi", &[foreign.clone(), ours.clone()]).unwrap();
    let image = bench.pull("app:multi").await.unwrap();
    assert_eq!(image.id, ours.build().unwrap().config_digest);
    assert_eq!(image.repo_digests[0].digest(), Some(&index), "the name is the index's");
    bench.registry.push_index("app", "foreign", &[foreign]).unwrap();
    let error = bench.pull("app:foreign").await.unwrap_err();
    assert!(error.message().contains("s390x"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_are_shared_and_stay_while_they_are_used() {
    let bench = Bench::new().await;
    let shared = || Layer::new().file("shared", 0o644, "s".repeat(10_000));
    let one = ImageBuilder::new("one", "t").layer(shared()).layer(Layer::new().file("a", 0o644, "a"));
    let two = ImageBuilder::new("two", "t").layer(shared()).layer(Layer::new().file("b", 0o644, "b"));
    let (empty_store, own) = (bench.tree(), bench.images.fs_usage().unwrap().images);
    let one = bench.push_and_pull(&one, "one:t").await;
    let two = bench.push_and_pull(&two, "two:t").await;
    assert_eq!(one.layers[0].chain_id, two.layers[0].chain_id);
    assert_eq!(bench.registry.count(&When::blob(&one.layers[0].digest)), 1);
    assert_eq!(names(&bench.root.join("snapshots")).len(), 3);
    let before = bench.images.fs_usage().unwrap();
    assert!(before.images.bytes > 10_000 && before.mountpoint == bench.root);
    let dirs = bench.images.prepare_rootfs(&container(2), RootfsPlan::new(two.id.clone())).await.unwrap();
    bench.images.remove(two.id.as_str()).await.unwrap();
    bench.images.collect().await.unwrap();
    assert!(dirs.lower.iter().all(|d| d.exists()), "a container stands on them");
    bench.images.remove(one.id.as_str()).await.unwrap();
    bench.images.collect().await.unwrap();
    assert_eq!(names(&bench.root.join("snapshots")).len(), 2);
    bench.images.remove_rootfs(&container(2)).await.unwrap();
    bench.images.collect().await.unwrap();
    assert_eq!(bench.tree(), empty_store, "nothing is left");
    assert_eq!(bench.images.fs_usage().unwrap().images.inodes, own.inodes);
}
