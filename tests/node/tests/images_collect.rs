//! What takes the disk and what gives it back: figures against the kernel's, limits, pins, and a collection that disturbs nobody. Needs
//! root.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test that cannot go on must stop")]

use crate::images::{Bench, Overlay, names, noise};
use berth_images::{ImportRequest, Prune, PushRequest, RootfsPlan, StoreLimits};
use berth_model::{ContainerId, ErrorKind, Reference};
use berth_registry::{Auth, Platform};
use berth_test_registry::{Compression, Entry, ImageBuilder, Layer};
use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Bytes and inodes below a directory, as du(1) counts them.
fn du(path: &Path, except: &str) -> (u64, u64) {
    let count = |flags: &[&str]| {
        let mut command = std::process::Command::new("du");
        command.args(flags).arg("-s").arg(format!("--exclude={except}")).arg(path);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    (count(&["-B1"]), count(&["--inodes"]))
}

fn within_a_hundredth(ours: u64, kernels: u64, what: &str) {
    assert!(ours.abs_diff(kernels) * 100 <= kernels, "{what}: {ours} here, {kernels} by du");
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_are_those_of_the_kernel() {
    let bench = Bench::new().await;
    let many = (0..300).map(|n| Entry::file(format!("dir{}/file{n}", n % 7), vec![b'x'; n * 37 % 9000]));
    let base = Layer::with_compression(Compression::Gzip)
        .entries(many)
        .entry(Entry::hard_link("second", "dir1/file1"))
        .entry(Entry::symlink("short", "second"))
        .entry(Entry::symlink("long", "t".repeat(200)))
        .entry(Entry::file("tagged", "x").xattr("user.note", vec![b'n'; 3000]))
        .entry(Entry::zeros("zeros", 3 << 20));
    let top =
        Layer::with_compression(Compression::Plain).file("big", 0o644, noise(2 << 20)).entry(Entry::whiteout("second"));
    let one = ImageBuilder::new("one", "v1").layer(base.clone()).layer(top);
    let two = ImageBuilder::new("two", "v1").layer(base).layer(Layer::new().file("own", 0o644, noise(500_000)));
    let one = bench.push_and_pull(&one, "one:v1").await;
    let two = bench.push_and_pull(&two, "two:v1").await;
    let owner = ContainerId::from_random([1; 32]);
    let dirs = bench.images.prepare_rootfs(&owner, RootfsPlan::new(one.id.clone())).await.unwrap();
    let usage = bench.images.store_usage().unwrap();
    let (bytes, inodes) = du(&bench.root, "rootfs");
    within_a_hundredth(usage.fs.images.bytes, bytes, "bytes of images");
    assert_eq!(usage.fs.images.inodes, inodes, "inodes of images");
    // What a container writes is its own: sparse files take what they have, hard links count once.
    std::fs::write(dirs.upper.join("written"), noise(300_000)).unwrap();
    std::fs::hard_link(dirs.upper.join("written"), dirs.upper.join("again")).unwrap();
    let sparse = std::fs::File::create(dirs.upper.join("sparse")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    std::os::unix::fs::FileExt::write_at(&sparse, b"x", 1 << 39).unwrap();
    sparse.sync_all().unwrap();
    let written = bench.images.rootfs_usage(&owner, Duration::ZERO).await.unwrap().usage;
    let (bytes, inodes) = du(&dirs.upper, "none");
    assert_eq!((written.bytes, written.inodes), (bytes, inodes), "by du");
    let usage = bench.images.store_usage().unwrap();
    assert_eq!(usage.fs.containers.bytes, written.bytes);
    // The base is shared, the rest is each one's own; the sums are the whole.
    let of = |id| usage.images.iter().find(|u| u.image.id == id).unwrap();
    let (one, two) = (of(one.id.clone()), of(two.id.clone()));
    assert_eq!(one.shared, two.shared);
    let base = one.image.layers[0].usage.bytes;
    assert!(one.shared >= base && one.shared < base * 2, "{} of {base}", one.shared);
    assert_eq!((one.containers, two.containers), (1, 0));
    let sum = one.size + two.size - one.shared;
    within_a_hundredth(sum, usage.fs.images.bytes, "sizes, what is shared once");
    assert_eq!(usage.reclaimable, two.size - two.shared, "what the other stands on stays");
    let pruned = bench.images.prune(&Prune { all: true, ..Prune::default() }).await.unwrap();
    assert_eq!(pruned.bytes, usage.reclaimable, "and that is what a prune gives back");
    let (bytes, _) = du(&bench.root, "rootfs");
    within_a_hundredth(bench.images.fs_usage().unwrap().images.bytes, bytes, "after a prune");
    assert!(usage.layers == 3 && usage.shared_layers == 1 && usage.kept_blobs.bytes > 0);
}

async fn small(bench: &Bench, name: &str) -> Arc<berth_images::ImageRecord> {
    let image = ImageBuilder::new(name, "v1").layer(Layer::new().file(name, 0o644, noise(1 << 20))).label("name", name);
    bench.push_and_pull(&image, &format!("{name}:v1")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_takes_what_nobody_uses_and_nothing_else() {
    let bench = Bench::new().await;
    let (used, pinned, plain, untagged) = (
        small(&bench, "used").await,
        small(&bench, "pinned").await,
        small(&bench, "plain").await,
        small(&bench, "bare").await,
    );
    let owner = ContainerId::from_random([2; 32]);
    bench.images.prepare_rootfs(&owner, RootfsPlan::new(used.id.clone())).await.unwrap();
    bench.images.set_pinned(&[bench.reference("pinned:v1")]);
    assert!(bench.images.find(pinned.id.as_str()).unwrap().unwrap().pinned);
    // As people write them: with a tag and a digest, which pins what has that digest.
    let both = format!("{}@{}", bench.reference("pinned:v1"), pinned.manifest_digest);
    bench.images.set_pinned(&[Reference::parse(&both).unwrap()]);
    assert!(bench.images.find(pinned.id.as_str()).unwrap().unwrap().pinned, "{both}");
    // Another image takes the name over.
    bench.images.tag(plain.id.as_str(), &bench.reference("bare:v1")).await.unwrap();
    let ids = |pruned: &berth_images::Pruned| pruned.deleted.clone();
    let pruned = bench.images.prune(&Prune::default()).await.unwrap();
    assert_eq!(ids(&pruned), std::slice::from_ref(&untagged.id));
    assert!(pruned.bytes > 2 << 20, "layer and blob: {}", pruned.bytes);
    // Built in 2024, as all of the test registry's images.
    let until = |until| Prune { all: true, until: Some(until), ..Prune::default() };
    assert!(ids(&bench.images.prune(&until(1_600_000_000_000_000_000)).await.unwrap()).is_empty());
    let label =
        |value: &str| Prune { all: true, labels: vec![("name".into(), Some(value.into()))], ..Prune::default() };
    assert!(ids(&bench.images.prune(&label("other")).await.unwrap()).is_empty());
    let spared = Prune { all: true, without_labels: vec![("name".into(), None)], ..Prune::default() };
    assert!(ids(&bench.images.prune(&spared).await.unwrap()).is_empty());
    assert_eq!(ids(&bench.images.prune(&label("plain")).await.unwrap()), std::slice::from_ref(&plain.id));
    assert!(ids(&bench.images.prune(&until(1_900_000_000_000_000_000)).await.unwrap()).is_empty());
    assert_eq!(bench.images.list().len(), 2);
    // By name: what is used or pinned stays, unless it is forced.
    for (image, words) in [(&used, "is used by 1 containers"), (&pinned, "pinned")] {
        let error = bench.images.untag(image.id.as_str(), false).await.unwrap_err();
        assert!(error.kind() == ErrorKind::FailedPrecondition && error.message().contains(words), "{error}");
    }
    bench.images.set_pinned(&[]);
    bench.images.untag(pinned.id.as_str(), false).await.unwrap();
    let removed = bench.images.untag(used.id.as_str(), true).await.unwrap();
    assert_eq!(removed.deleted, std::slice::from_ref(&used.id));
    assert!(bench.images.rootfs(&owner).unwrap().lower[0].join("used").exists(), "the container keeps its layers");
    bench.images.remove_rootfs(&owner).await.unwrap();
    bench.images.collect().await.unwrap();
    assert!(names(&bench.root.join("snapshots")).is_empty() && names(&bench.root.join("blobs/sha256")).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_goes_and_the_image_with_its_last() {
    let bench = Bench::new().await;
    let image = small(&bench, "app").await;
    let (own, other) = (bench.reference("app:v1"), Reference::parse("r.io/app:v2").unwrap());
    bench.images.tag(&own.to_string(), &other).await.unwrap();
    let error = bench.images.untag(image.id.as_str(), false).await.unwrap_err();
    assert!(error.message().contains("2 repositories"), "{error}");
    // A digest is a name: it goes alone, and the tags of its repository stay.
    let by_digest = own.with_digest_only(image.manifest_digest.clone());
    let removed = bench.images.untag(&by_digest.to_string(), false).await.unwrap();
    assert!(removed.deleted.is_empty() && removed.untagged == [by_digest.to_string()], "{removed:?}");
    let left = bench.images.find(&own.to_string()).unwrap().unwrap();
    assert_eq!((left.repo_tags.len(), left.repo_digests.len()), (2, 0));
    assert_eq!(bench.images.untag(&by_digest.to_string(), false).await.unwrap_err().kind(), ErrorKind::NotFound);
    bench.pull("app:v1").await.unwrap();
    let removed = bench.images.untag(&own.to_string(), false).await.unwrap();
    assert!(removed.deleted.is_empty() && removed.untagged.contains(&own.to_string()), "{removed:?}");
    let left = bench.images.find(&other.to_string()).unwrap().unwrap();
    assert_eq!((left.repo_tags.as_slice(), left.repo_digests.len()), (&[other.clone()][..], 0));
    let error = bench.images.untag(&own.to_string(), false).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let removed = bench.images.untag(&other.to_string(), false).await.unwrap();
    assert_eq!(
        (removed.deleted.as_slice(), removed.untagged.as_slice()),
        (&[image.id.clone()][..], &[other.to_string()][..])
    );
    assert!(bench.images.list().is_empty());
    // With nothing else that names it the image goes with its digest.
    let request = bench.request(&format!("app@{}", image.manifest_digest)).await.unwrap();
    bench.images.fetch(request).await.unwrap();
    let removed = bench.images.untag(&by_digest.to_string(), false).await.unwrap();
    assert_eq!(removed.deleted, std::slice::from_ref(&image.id));
    assert!(bench.images.list().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_take_the_image_that_was_of_no_use_for_longest() {
    let bench = Bench::new().await;
    let mut ids = Vec::new();
    for name in ["first", "second", "third", "fourth"] {
        ids.push(small(&bench, name).await.id.clone());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The first is used now, as a volume, then the second and the third were of no use for longest.
    let owner = ContainerId::from_random([3; 32]);
    let plan = RootfsPlan { image_volumes: vec![ids[0].clone()], ..RootfsPlan::new(ids[3].clone()) };
    bench.images.prepare_rootfs(&owner, plan).await.unwrap();
    bench.images.remove_rootfs(&owner).await.unwrap();
    let all = bench.images.fs_usage().unwrap().images.bytes;
    let each = bench.images.store_usage().unwrap().images[0].size;
    let limits = |max_bytes, min_age| StoreLimits { max_bytes: Some(max_bytes), min_age, ..StoreLimits::default() };
    let young = bench.images.keep_within(&limits(each, Duration::from_secs(3600))).await.unwrap();
    assert!(young.deleted.is_empty(), "too young to go");
    assert!(young.over > 0 && young.over < all, "and it is said by how much: {}", young.over);
    let enough = bench.images.keep_within(&limits(all, Duration::ZERO)).await.unwrap();
    assert!(enough.deleted.is_empty(), "within the limit");
    let pruned = bench.images.keep_within(&limits(all - each - each / 2, Duration::ZERO)).await.unwrap();
    assert_eq!((pruned.deleted, pruned.over), (ids[1..3].to_vec(), 0));
    assert!(bench.images.fs_usage().unwrap().images.bytes <= all - each - each / 2);
    // By how full the disk is: one percent is always in use.
    let full = StoreLimits { high: Some(0), low: 0, ..StoreLimits::default() };
    bench.images.set_pinned(&[bench.reference("fourth:v1")]);
    let pruned = bench.images.keep_within(&full).await.unwrap();
    assert_eq!(pruned.deleted, [ids[0].clone()], "what is pinned stays, whatever the disk");
    let empty = StoreLimits { high: Some(100), low: 95, ..StoreLimits::default() };
    bench.images.set_pinned(&[]);
    assert!(bench.images.keep_within(&empty).await.unwrap().deleted.is_empty());
}

/// Pushes an image, exports it and takes the archive in again. It may go meanwhile, and what has begun is whole all the same.
async fn hand_on(bench: &Bench, name: &str) {
    let image = bench.reference(name).to_string();
    let target = bench.reference(&format!("copy/{name}"));
    let request = PushRequest { image: image.clone(), target, auth: Auth::Anonymous, progress: None };
    match bench.images.push(request).await {
        Ok(pushed) => assert_eq!(pushed.blobs.iter().sum::<usize>(), 4),
        Err(e) => assert_eq!(e.kind(), ErrorKind::NotFound, "{e}"),
    }
    let mut chunks = match bench.images.export(&[image]).await {
        Ok(chunks) => chunks,
        Err(e) => return assert_eq!(e.kind(), ErrorKind::NotFound, "{e}"),
    };
    let mut archive = Vec::new();
    while let Some(chunk) = chunks.recv().await {
        archive.push(chunk);
    }
    assert!(archive.iter().all(Result::is_ok), "an export that has begun ends: {:?}", archive.last());
    let (sender, archive_bytes) = tokio::sync::mpsc::channel(archive.len());
    archive.into_iter().for_each(|chunk| sender.try_send(chunk).unwrap());
    drop(sender);
    let approve = Box::new(|_: &Reference| Ok(Vec::new()));
    let request =
        ImportRequest { archive: archive_bytes, name: None, platform: Platform::host(), approve, progress: None };
    bench.images.import(request).await.unwrap();
}

/// Pulls, pushes, exports, imports, removals, containers and collections at the same time; then everything that should be there is whole, and nothing else is.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn collections_disturb_nobody() {
    let bench = Arc::new(Bench::new().await);
    // Six images that share layers with one another, each layer with its own content.
    let layer =
        |n: usize| Layer::with_compression(Compression::Gzip).file(&format!("layer{n}"), 0o644, noise(20_000 + n));
    for n in 0..6 {
        let image = ImageBuilder::new(&format!("app{n}"), "v1")
            .layer(layer(n / 3))
            .layer(layer(10 + n / 2))
            .layer(layer(20 + n));
        bench.registry.push_image(&image).unwrap();
    }
    let over = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for worker in 0..4_usize {
        let (bench, over) = (bench.clone(), over.clone());
        tasks.push(tokio::spawn(async move {
            let mut round = worker;
            while !over.load(Ordering::Relaxed) {
                round += 1;
                let name = format!("app{}:v1", (round * 5 + worker) % 6);
                let image = bench.pull(&name).await.unwrap();
                let owner = ContainerId::from_random([u8::try_from(worker * 50 + round % 50).unwrap(); 32]);
                match bench.images.prepare_rootfs(&owner, RootfsPlan::new(image.id.clone())).await {
                    Ok(dirs) => {
                        for (n, lower) in dirs.lower.iter().enumerate() {
                            assert_eq!(
                                names(lower).len(),
                                1,
                                "layer {n} of {name} is whole while a container stands on it"
                            );
                        }
                        bench.images.remove_rootfs(&owner).await.unwrap();
                    }
                    // Removed by another worker between the pull and this.
                    Err(e) => assert_eq!(e.kind(), ErrorKind::NotFound, "{e}"),
                }
                if round % 3 == worker % 3 {
                    hand_on(&bench, &name).await;
                }
                if round % 2 == 0 {
                    bench.images.remove(&bench.reference(&name).to_string()).await.unwrap();
                }
                if round % 5 == 0 {
                    // A pull that nobody waits for to its end.
                    let request = bench.request(&name).await.unwrap();
                    let _ = tokio::time::timeout(Duration::from_millis(2), bench.images.fetch(request)).await;
                }
            }
            round - worker
        }));
    }
    let collector = {
        let (bench, over) = (bench.clone(), over.clone());
        tokio::spawn(async move {
            let mut rounds = 0;
            while !over.load(Ordering::Relaxed) {
                bench.images.collect().await.unwrap();
                if rounds % 10 == 0 {
                    bench.images.prune(&Prune::default()).await.unwrap();
                }
                rounds += 1;
            }
            rounds
        })
    };
    tokio::time::sleep(Duration::from_secs(5)).await;
    over.store(true, Ordering::Relaxed);
    let mut rounds = 0;
    for task in tasks {
        rounds += task.await.unwrap();
    }
    let collections = collector.await.unwrap();
    assert!(rounds > 20 && collections > 20, "{rounds} rounds and {collections} collections say little");
    verify(&bench).await;
}

/// Pulls that were given up end at their next step, some time after; what they have left for a next attempt goes with a prune.
async fn settle(bench: &Bench) {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        bench.images.prune(&Prune::default()).await.unwrap();
        bench.images.collect().await.unwrap();
        let named: HashSet<String> = bench
            .images
            .list()
            .iter()
            .flat_map(|i| i.chain_ids().map(|c| c.hex().to_owned()).collect::<Vec<_>>())
            .collect();
        let there: HashSet<String> = names(&bench.root.join("snapshots")).into_iter().collect();
        let blobs: HashSet<String> = bench
            .images
            .list()
            .iter()
            .flat_map(|i| i.blobs().map(|d| d.hex().to_owned()).collect::<Vec<_>>())
            .collect();
        let strays: Vec<_> =
            names(&bench.root.join("blobs/sha256")).into_iter().filter(|name| !blobs.contains(name)).collect();
        if named == there && strays.is_empty() && names(&bench.root.join("ingest")).is_empty() {
            return;
        }
        assert!(Instant::now() < end, "left over: {:?} {strays:?}", there.difference(&named));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Everything that is named is here with the right content, and nothing else is.
async fn verify(bench: &Bench) {
    settle(bench).await;
    let (mut chains, mut blobs) = (HashSet::new(), HashSet::new());
    for image in bench.images.list() {
        chains.extend(image.chain_ids().map(|c| c.hex().to_owned()));
        for digest in image.blobs() {
            match std::fs::read(bench.root.join("blobs/sha256").join(digest.hex())) {
                Ok(bytes) => {
                    assert_eq!(berth_test_registry::sha256(&bytes), *digest, "a blob is not what its name says");
                    blobs.insert(digest.hex().to_owned());
                }
                // A container stood on this layer when its image went: the next one found it unpacked and did not fetch it. A push or an
                // export would.
                Err(e) => {
                    let is_layer = image.layers.iter().any(|layer| layer.digest == *digest);
                    assert!(e.kind() == std::io::ErrorKind::NotFound && is_layer, "{digest} of {}: {e}", image.id);
                }
            }
        }
        let at = tempfile::tempdir().unwrap();
        let mut lower = bench.images.layers(&image.id).unwrap();
        lower.push(at.path().join("none"));
        std::fs::create_dir(at.path().join("none")).unwrap();
        std::fs::create_dir(at.path().join("mount")).unwrap();
        let mounted = Overlay::mount(&lower, None, &at.path().join("mount"));
        assert_eq!(names(&mounted.0).len(), 3, "all layers of {}", image.id);
        for name in names(&mounted.0) {
            let n: usize = name.trim_start_matches("layer").parse().unwrap();
            assert_eq!(std::fs::read(mounted.0.join(&name)).unwrap(), noise(20_000 + n));
        }
    }
    let on_disk = |directory: &str| names(&bench.root.join(directory)).into_iter().collect::<HashSet<_>>();
    assert_eq!(on_disk("snapshots"), chains);
    assert_eq!(on_disk("blobs/sha256"), blobs);
    for directory in ["ingest", "trash", "rootfs"] {
        assert!(on_disk(directory).is_empty(), "{directory} is not empty");
    }
    let (bytes, inodes) = du(&bench.root, "rootfs");
    let usage = bench.images.fs_usage().unwrap().images;
    assert_eq!(usage.inodes, inodes);
    within_a_hundredth(usage.bytes, bytes, "after all that");
    let meta = std::fs::metadata(&bench.root).unwrap();
    assert_eq!(meta.mode() & 0o7777, 0o700);
}
