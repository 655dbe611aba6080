//! Full disks, crashes and collection. Needs root.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test that cannot go on must stop")]

use crate::images::{Bench, names, noise};
use berth_images::RootfsPlan;
use berth_model::{ContainerId, ErrorKind};
use berth_test_registry::{Compression, Entry, Fault, ImageBuilder, Layer, When};
use nix::mount::{MsFlags, mount, umount};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A small tmpfs that ends with its test.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path, megabytes: u32) -> Self {
        std::fs::create_dir(at).unwrap();
        let options = format!("size={megabytes}m");
        mount(Some("berth-test"), at, Some("tmpfs"), MsFlags::empty(), Some(options.as_str())).unwrap();
        Self(at.to_owned())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        umount(&self.0).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_fails_the_pull_and_nothing_else() {
    // Declared before what is mounted in it, so removed after that is gone.
    let outer = tempfile::tempdir().unwrap();
    let small = Small::mount(&outer.path().join("small"), 8);
    let root = small.0.join("images");
    {
        let bench = Bench::at(tempfile::tempdir().unwrap(), root, |config| config.limits.min_free = 0).await;
        let fits = ImageBuilder::new("fits", "v1").layer(Layer::new().file("f", 0o644, noise(1 << 20)));
        let kept = bench.push_and_pull(&fits, "fits:v1").await;
        let before = bench.tree();
        let large = Layer::with_compression(Compression::Plain).entry(Entry::file("large", noise(12 << 20)));
        bench
            .registry
            .push_image(&ImageBuilder::new("large", "v1").layer(Layer::new().file("g", 0o644, "g")).layer(large))
            .unwrap();
        let error = bench.pull("large:v1").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error}");
        assert!(error.message().contains("large") && error.message().contains("space"), "{error}");
        assert_eq!(bench.tree(), before, "the failed pull left something");
        assert_eq!(bench.images.list(), std::slice::from_ref(&kept));
        bench
            .images
            .prepare_rootfs(&ContainerId::from_random([1; 32]), RootfsPlan::new(kept.id.clone()))
            .await
            .unwrap();
        let next = ImageBuilder::new("next", "v1").layer(Layer::new().file("n", 0o644, noise(1 << 20)));
        bench.push_and_pull(&next, "next:v1").await;
    }
    drop(small);
    outer.close().unwrap();
}

/// An ext4 of its own that ends with its test.
struct Ext4(PathBuf);

impl Ext4 {
    fn mount(directory: &Path) -> Self {
        let (image, at) = (directory.join("disk.img"), directory.join("disk"));
        std::fs::File::create(&image).unwrap().set_len(256 << 20).unwrap();
        std::fs::create_dir(&at).unwrap();
        host(&["mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal", "-N", "60000", image.to_str().unwrap()]);
        host(&["mount", "-o", "loop", image.to_str().unwrap(), at.to_str().unwrap()]);
        Self(at)
    }
}

impl Drop for Ext4 {
    fn drop(&mut self) {
        host(&["umount", self.0.to_str().unwrap()]);
    }
}

fn host(command: &[&str]) {
    let output = std::process::Command::new(command[0]).args(&command[1..]).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Where not even the trash has room for a name, a tree goes where it is. Lists and statuses do not wait for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_collection_on_a_full_disk_holds_nobody_up() {
    let outer = tempfile::tempdir().unwrap();
    let disk = Ext4::mount(outer.path());
    let root = disk.0.join("images");
    {
        let bench = Bench::at(tempfile::tempdir().unwrap(), root.clone(), |config| config.limits.min_free = 0).await;
        let files = (0..20_000).map(|n| Entry::file(format!("d{}/f{n}", n / 500), "x"));
        let dirs = (0..40).map(|n| Entry::dir(format!("d{n}")));
        let image = ImageBuilder::new("many", "v1")
            .layer(Layer::with_compression(Compression::Gzip).entries(dirs.chain(files)));
        let image = bench.push_and_pull(&image, "many:v1").await;
        bench
            .push_and_pull(&ImageBuilder::new("kept", "v1").layer(Layer::new().file("k", 0o644, "k")), "kept:v1")
            .await;
        let owner = ContainerId::from_random([7; 32]);
        bench.images.prepare_rootfs(&owner, RootfsPlan::new(image.id.clone())).await.unwrap();
        bench.images.remove(image.id.as_str()).await.unwrap();
        bench.images.collect().await.unwrap();
        // The disk is full, and so is the one block of the trash's directory.
        let filler = disk.0.join("filler");
        let mut file = std::fs::File::create(&filler).unwrap();
        while std::io::Write::write_all(&mut file, &[7; 4096]).is_ok() {}
        for n in 0.. {
            let name = format!("{n:0>250}");
            if std::fs::hard_link(&filler, root.join("trash").join(name)).is_err() {
                break;
            }
        }
        let removing = {
            let images = bench.images.clone();
            tokio::spawn(async move {
                let begun = std::time::Instant::now();
                images.remove_rootfs(&owner).await.unwrap();
                images.collect().await.unwrap();
                begun.elapsed()
            })
        };
        let mut longest = Duration::ZERO;
        while !removing.is_finished() {
            let begun = std::time::Instant::now();
            assert_eq!(bench.images.list().len(), 1);
            bench.images.fs_usage().unwrap();
            longest = longest.max(begun.elapsed());
            std::thread::sleep(Duration::from_millis(1));
        }
        let took = removing.await.unwrap();
        assert!(took > Duration::from_millis(100), "{took:?} say nothing of who waits");
        assert!(longest < took / 2, "a list waited {longest:?} of the {took:?} that a collection took");
        assert_eq!(names(&root.join("snapshots")).len(), 1, "and it is gone");
    }
    drop(disk);
    outer.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn some_disk_is_left_for_others() {
    let bench = Bench::with(|config| config.limits.min_free = u64::MAX).await;
    bench.registry.push_image(&ImageBuilder::new("app", "v1").layer(Layer::new().file("f", 0o644, "f"))).unwrap();
    let before = bench.tree();
    let error = bench.pull("app:v1").await.unwrap_err();
    assert!(error.kind() == ErrorKind::ResourceExhausted && error.message().contains("min_free"), "{error}");
    assert_eq!(bench.tree(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_leaves_only_what_the_next_start_removes() {
    let mut bench = Bench::new().await;
    let layer = |text: &str| Layer::new().file("f", 0o644, text);
    let image = bench.push_and_pull(&ImageBuilder::new("app", "v1").layer(layer("one")), "app:v1").await;
    let owner = ContainerId::from_random([3; 32]);
    bench.images.prepare_rootfs(&owner, RootfsPlan::new(image.id.clone())).await.unwrap();
    let sound = bench.tree();
    // What a process killed at any point of a pull or a removal can leave.
    let plant = |path: &str| {
        std::fs::create_dir_all(bench.root.join(path).join("fs/deep")).unwrap();
        std::fs::write(bench.root.join(path).join("fs/deep/file"), "x").unwrap();
    };
    let chain = "ab".repeat(32);
    plant("ingest/1-1");
    plant("trash/1-2");
    plant(&format!("snapshots/{chain}"));
    plant("snapshots/no-digest");
    std::fs::write(bench.root.join("blobs/sha256").join(&chain), "unnamed").unwrap();
    std::fs::write(bench.root.join("ingest/1-3"), "half a blob").unwrap();
    bench.reopen();
    bench.images.collect().await.unwrap();
    assert_eq!(bench.tree(), sound);
    assert_eq!(bench.images.list(), std::slice::from_ref(&image));
    assert_eq!(bench.images.rootfs_owners(), std::slice::from_ref(&owner));
    // A layer that is gone: the image is not shown, and a pull brings it back.
    bench.images.remove_rootfs(&owner).await.unwrap();
    bench.images.collect().await.unwrap();
    std::fs::remove_dir_all(bench.root.join("snapshots").join(image.layers[0].chain_id.hex())).unwrap();
    bench.reopen();
    assert!(bench.images.list().is_empty());
    let again = bench.pull("app:v1").await.unwrap();
    assert_eq!(again.id, image.id);
    assert_eq!(bench.images.config_document(&image.id).await.unwrap().len() as u64 + image.layers[0].size, image.size);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_takes_nothing_from_a_running_pull() {
    let bench = Bench::new().await;
    let image = ImageBuilder::new("app", "v1")
        .layer(Layer::new().file("fast", 0o644, "fast"))
        .layer(Layer::new().file("slow", 0o644, noise(100_000)));
    let built = image.build().unwrap();
    bench.registry.push_image(&image).unwrap();
    let slow = Fault::Delay { per_chunk: Duration::from_millis(100), chunk: 10_000 };
    bench.registry.inject(When::blob(&built.layers[1].digest), slow);
    let request = bench.request("app:v1").await.unwrap();
    let images = bench.images.clone();
    let pull = tokio::spawn(async move { images.fetch(request).await });
    let mut rounds = 0;
    while !pull.is_finished() {
        bench.images.collect().await.unwrap();
        rounds += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(rounds > 5, "the pull was too fast to be disturbed");
    let pulled = pull.await.unwrap().unwrap();
    assert!(bench.images.layers(&pulled.id).unwrap().iter().all(|l| l.is_dir()));
    assert_eq!(bench.registry.count(&When::blob(&built.layers[0].digest)), 1);
    assert_eq!(names(&bench.root.join("ingest")), Vec::<String>::new());
}
