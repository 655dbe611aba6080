//! Layers from mirrors that lie: found out by who unpacks them, left alone, and the layer comes from the next site. Needs root.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test that cannot go on must stop")]

use crate::images::{Bench, names, noise};
use berth_model::ErrorKind;
use berth_registry::{Client, ClientConfig, HostConfig, Mirror};
use berth_test_registry::{Compression, Fault, ImageBuilder, Layer, Options, Registry, When};
use std::time::Duration;

fn image() -> ImageBuilder {
    ImageBuilder::new("app", "v1")
        .layer(Layer::with_compression(Compression::Plain).file("plain", 0o644, noise(300_000)))
        .layer(Layer::with_compression(Compression::Gzip).file("gzip", 0o644, noise(300_000)))
        .layer(Layer::with_compression(Compression::Zstd).file("zstd", 0o644, noise(300_000)))
}

async fn mirror() -> Registry {
    let mirror = Registry::start(Options::default()).await.unwrap();
    mirror.push_image(&image()).unwrap();
    mirror
}

/// The store asks these first, in this order; `alone` means that it asks nobody else.
fn with_mirrors(bench: &Bench, mirrors: &[&Registry], alone: bool) {
    let mirrors = mirrors.iter().map(|m| Mirror::new(m.url())).collect();
    let host = HostConfig { mirrors, mirrors_only: alone, ..HostConfig::default() };
    let hosts = [(bench.registry.host(), host)].into();
    bench.images.set_client(Client::new(ClientConfig { hosts, ..ClientConfig::default() }).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_layer_is_its_mirrors_fault_and_comes_from_the_next_site() {
    let bench = Bench::new().await;
    let built = image().build().unwrap();
    bench.registry.push_image(&image()).unwrap();
    for layer in &built.layers {
        let (liar, honest) = (mirror().await, mirror().await);
        liar.inject(When::blob(&layer.digest), Fault::Corrupt);
        with_mirrors(&bench, &[&liar, &honest], false);
        bench.registry.clear_requests();
        let pulled = bench.pull("app:v1").await.unwrap();
        assert_eq!(liar.count(&When::blob(&layer.digest)), 1, "it was asked once");
        assert_eq!(honest.count(&When::blob(&layer.digest)), 1, "and then the next one");
        assert_eq!(bench.registry.count(&When::path("/blobs/")), 0, "the registry itself was not needed");
        for (layer, name) in bench.images.layers(&pulled.id).unwrap().iter().rev().zip(["plain", "gzip", "zstd"]) {
            assert_eq!(std::fs::read(layer.join(name)).unwrap(), noise(300_000));
        }
        for blob in names(&bench.root.join("blobs/sha256")) {
            let bytes = std::fs::read(bench.root.join("blobs/sha256").join(&blob)).unwrap();
            assert_eq!(berth_test_registry::sha256(&bytes).hex(), blob, "what is kept is what its name says");
        }
        bench.images.remove(pulled.id.as_str()).await.unwrap();
        bench.images.collect().await.unwrap();
    }
}

/// Layers come side by side: the first lie that is found out must not be the end of the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_mirror_whose_layers_are_all_wrong_costs_no_pull() {
    let bench = Bench::new().await;
    let built = image().build().unwrap();
    bench.registry.push_image(&image()).unwrap();
    for honest in [true, false] {
        let (liar, other) = (mirror().await, mirror().await);
        for layer in &built.layers {
            liar.inject(When::blob(&layer.digest), Fault::Corrupt);
            // All of them are under way before the first one is whole.
            liar.inject(When::blob(&layer.digest), Fault::DelayHeaders(Duration::from_millis(300)));
        }
        // With an honest mirror behind it, and with the registry alone.
        let mirrors = if honest { vec![&liar, &other] } else { vec![&liar] };
        with_mirrors(&bench, &mirrors, false);
        let pulled = bench.pull("app:v1").await.unwrap();
        let asked = |site: &Registry| -> Vec<usize> {
            built.layers.iter().map(|layer| site.count(&When::blob(&layer.digest))).collect()
        };
        assert_eq!(asked(&liar), [1, 1, 1], "each layer was asked for once, side by side");
        assert_eq!(asked(if honest { &other } else { &bench.registry }), [1, 1, 1]);
        for (layer, name) in bench.images.layers(&pulled.id).unwrap().iter().rev().zip(["plain", "gzip", "zstd"]) {
            assert_eq!(std::fs::read(layer.join(name)).unwrap(), noise(300_000));
        }
        bench.images.remove(pulled.id.as_str()).await.unwrap();
        bench.images.collect().await.unwrap();
        bench.registry.clear_requests();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_all_lie_the_pull_ends_and_leaves_nothing() {
    let bench = Bench::new().await;
    let built = image().build().unwrap();
    bench.registry.push_image(&image()).unwrap();
    let before = bench.tree();
    let (one, other) = (mirror().await, mirror().await);
    for site in [&one, &other, &bench.registry] {
        site.inject(When::blob(&built.layers[1].digest), Fault::Corrupt);
    }
    with_mirrors(&bench, &[&one, &other], false);
    let error = bench.pull("app:v1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error}");
    assert!(error.message().contains("altered"), "{error}");
    assert_eq!(bench.tree(), before, "nothing of it is left");
    // With nobody behind it a mirror is asked once more at most, not for ever.
    with_mirrors(&bench, &[&one], true);
    one.clear_requests();
    bench.pull("app:v1").await.unwrap_err();
    assert!(one.count(&When::blob(&built.layers[1].digest)) <= 2);
    assert_eq!(bench.tree(), before);
    // The next attempt at an honest site has all of it.
    bench.registry.clear_faults();
    with_mirrors(&bench, &[], false);
    bench.pull("app:v1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_blob_of_an_earlier_attempt_never_stays() {
    let mut bench = Bench::new().await;
    let built = image().build().unwrap();
    bench.registry.push_image(&image()).unwrap();
    let cut = &built.layers[2].digest;
    bench.registry.inject(When::blob(cut), Fault::Truncate { after: 20_000 });
    let error = bench.pull("app:v1").await.unwrap_err();
    assert!(error.message().contains("RegistryUnavailable"), "{error}");
    assert!(names(&bench.root.join("ingest")).is_empty(), "half a layer is thrown away");
    assert!(!bench.root.join("blobs/sha256").join(cut.hex()).exists());
    // Whole layers wait for the next attempt, which asks for the missing one alone.
    bench.registry.clear_faults();
    bench.registry.clear_requests();
    let image = bench.pull("app:v1").await.unwrap();
    let asked: Vec<usize> = built.layers.iter().map(|l| bench.registry.count(&When::blob(&l.digest))).collect();
    assert_eq!(asked, [0, 0, 1]);
    // A daemon that died in the middle: the next one finds half a blob and half a layer, and keeps neither.
    bench.images.remove(image.id.as_str()).await.unwrap();
    bench.images.collect().await.unwrap();
    let empty = bench.tree();
    std::fs::write(bench.root.join("ingest/7-7"), noise(1000)).unwrap();
    std::fs::create_dir_all(bench.root.join("ingest/7-8/fs")).unwrap();
    bench.reopen();
    bench.images.collect().await.unwrap();
    assert_eq!(bench.tree(), empty);
}
