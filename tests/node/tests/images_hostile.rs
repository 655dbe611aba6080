//! Hostile and broken images: each gets a clear error and leaves the disk as it was. Needs root.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test that cannot go on must stop")]

use crate::images::Bench;
use berth_images::Limits;
use berth_model::ErrorKind;
use berth_test_registry::{BuiltImage, Entry, Fault, ImageBuilder, Layer, OCI_MANIFEST, When};

/// A sound layer beside the bad one, so that there is something to leave behind.
fn sound() -> Layer {
    Layer::new().file("sound", 0o644, "s".repeat(50_000))
}

/// Pulls `app:bad`, which must fail with this text and leave nothing.
async fn refused(bench: &Bench, problem: &str) -> ErrorKind {
    let before = bench.tree();
    let error = bench.pull("app:bad").await.unwrap_err();
    assert!(error.message().contains(problem), "{problem}: {error}");
    assert!(bench.images.list().is_empty());
    assert_eq!(bench.tree(), before, "{problem}: something was left");
    error.kind()
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_layers_leave_nothing() {
    let bench = Bench::new().await;
    let cases = [
        (Entry::file("../../../../etc/berth-escape", "x"), "leads upwards"),
        (Entry::char_device("dev/mem", 1, 1), "is a character device"),
        (Entry::block_device("dev/sda", 8, 0), "is a block device"),
        (Entry::hard_link("shadow", "/etc/shadow"), "no file of this layer"),
        (Entry::file("x", "").xattr("trusted.overlay.redirect", "/etc"), "overlayfs would obey"),
    ];
    for (entry, problem) in cases {
        let image = ImageBuilder::new("app", "bad").layer(sound()).layer(Layer::new().entry(entry)).layer(sound());
        bench.registry.push_image(&image).unwrap();
        assert_eq!(refused(&bench, problem).await, ErrorKind::FailedPrecondition);
    }
    // Through links of an earlier member, also of one that replaced a directory.
    let links = Layer::new()
        .entry(Entry::dir("d"))
        .entry(Entry::symlink("d", "/etc"))
        .entry(Entry::file("d/berth-escape", "x"))
        .entry(Entry::symlink("up", "../../../../../../etc"))
        .entry(Entry::file("up/berth-escape", "x"));
    bench.registry.push_image(&ImageBuilder::new("app", "links").layer(links)).unwrap();
    let image = bench.pull("app:links").await.unwrap();
    assert!(!std::path::Path::new("/etc/berth-escape").exists());
    let tree = bench.images.layers(&image.id).unwrap().remove(0);
    assert!(tree.join("etc/berth-escape").exists(), "inside of the layer");
}

#[tokio::test(flavor = "multi_thread")]
async fn bombs_are_stopped_by_their_limits() {
    let limits = Limits {
        max_uncompressed_layer: 8 << 20,
        max_uncompressed_image: 12 << 20,
        max_entries: 100,
        max_layers: 5,
        max_config: 10_000,
        ..Limits::default()
    };
    let bench = Bench::with(|config| config.limits = limits).await;
    let zeros = |megabytes: u64| Layer::new().entry(Entry::zeros("z", megabytes << 20));
    let many = |count: u32| Layer::new().entries((0..count).map(|n| Entry::file(format!("f{n}"), "")));
    let image = || ImageBuilder::new("app", "bad").layer(sound());
    let layers = (0..6)
        .fold(ImageBuilder::new("app", "bad"), |image, n| image.layer(Layer::new().file("f", 0o644, format!("{n}"))));
    let cases = [
        (image().layer(zeros(9)), "max_uncompressed_layer"),
        (image().layer(zeros(7)).layer(zeros(6)), "max_uncompressed_image"),
        (image().layer(many(200)), "max_entries"),
        (layers, "max_layers"),
        (image().label("long", &"l".repeat(20_000)), "at most 10000"),
    ];
    for (image, problem) in cases {
        bench.registry.push_image(&image).unwrap();
        refused(&bench, problem).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_is_not_as_promised_is_refused() {
    let bench = Bench::new().await;
    let builder =
        ImageBuilder::new("app", "bad").layer(sound()).layer(Layer::new().file("x", 0o644, "x".repeat(30_000)));
    let built = builder.build().unwrap();
    let fault = async |when: When, fault: Fault, problem: &str| {
        bench.registry.push_image(&builder).unwrap();
        bench.registry.inject(when, fault);
        refused(&bench, problem).await;
        bench.registry.clear_faults();
    };
    fault(When::blob(&built.layers[1].digest), Fault::Corrupt, "digest").await;
    fault(When::blob(&built.config_digest), Fault::Corrupt, "digest").await;
    fault(When::manifest(built.digest.as_str()), Fault::Corrupt, "digest").await;
    fault(When::manifest(built.digest.as_str()), Fault::Body(vec![b' '; 5 << 20].into()), "").await;
    let diff = ImageBuilder::new("app", "bad").layer(sound().diff_id(built.digest.clone()));
    bench.registry.push_image(&diff).unwrap();
    refused(&bench, "uncompressed digest").await;
    for (media_type, problem) in
        [("application/vnd.oci.image.layer.v1.tar+encrypted", "is not supported"), ("text/html", "is not supported")]
    {
        bench.registry.push_image(&ImageBuilder::new("app", "bad").layer(sound().media_type(media_type))).unwrap();
        refused(&bench, problem).await;
    }
    let push = |manifest: String| bench.registry.put_manifest("app", Some("bad"), OCI_MANIFEST, manifest);
    let BuiltImage { manifest, .. } = &built;
    let text = String::from_utf8(manifest.to_vec()).unwrap();
    push(text.replace("image.config.v1", "helm.config.v1"));
    refused(&bench, "an artifact, not an image").await;
    push(text.replacen(
        "\"layers\":[{",
        "\"layers\":[{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\",\"digest\":\"sha256:00\",\"size\":1},{",
        1,
    ));
    refused(&bench, "64").await;
    push("{".into());
    refused(&bench, "image manifest").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_fails_keeps_what_was_finished_for_the_next_attempt() {
    let bench = Bench::new().await;
    let image = ImageBuilder::new("app", "v1").layer(sound()).layer(Layer::new().file("x", 0o644, "x"));
    let built = image.build().unwrap();
    bench.registry.push_image(&image).unwrap();
    let slow = Fault::Delay { per_chunk: std::time::Duration::from_millis(300), chunk: 1 << 20 };
    bench.registry.inject(When::blob(&built.layers[1].digest), slow);
    bench.registry.inject(When::blob(&built.layers[1].digest), Fault::Truncate { after: 10 });
    let error = bench.pull("app:v1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown, "{error}");
    assert!(error.message().starts_with("RegistryUnavailable"), "{error}");
    bench.registry.clear_faults();
    bench.pull("app:v1").await.unwrap();
    assert_eq!(bench.registry.count(&When::blob(&built.layers[0].digest)), 1, "the finished layer was fetched again");
}
