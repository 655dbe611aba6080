//! Pulls whose callers go away: the transfer ends with the last of them, and what it leaves is of use or gone.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

use crate::images::{Bench, names};
use berth_images::Prune;
use berth_test_registry::{Fault, ImageBuilder, Layer, When};
use std::time::{Duration, Instant};

/// Two layers; the second one takes minutes until the fault is cleared.
struct Slow {
    image: ImageBuilder,
    quick: When,
    slow: When,
}

fn push(bench: &Bench) -> Slow {
    let noise: Vec<u8> = (0..400_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let image = ImageBuilder::new("app", "v1")
        .layer(Layer::new().file("quick", 0o644, "q"))
        .layer(Layer::new().file("slow", 0o644, noise));
    let built = image.build().unwrap();
    bench.registry.push_image(&image).unwrap();
    let [quick, slow] = [0, 1].map(|n| When::blob(&built.layers[n].digest));
    bench.registry.inject(slow.clone(), Fault::Delay { per_chunk: Duration::from_millis(50), chunk: 100 });
    Slow { image, quick, slow }
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "waited 20 seconds in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Whether the slow blob arrives and the quick one is in place.
fn midway(bench: &Bench, slow: &Slow) -> bool {
    bench.registry.count(&slow.slow) == 1 && names(&bench.root.join("snapshots")).len() == 1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_ends_with_the_last_of_those_who_wait() {
    let bench = Bench::new().await;
    let slow = push(&bench);
    let request = bench.request("app:v1").await.unwrap();
    let waiter = || {
        tokio::spawn({
            let (images, request) = (bench.images.clone(), request.clone());
            async move { images.fetch(request).await }
        })
    };
    let (first, second) = (waiter(), waiter());
    eventually("the pull is midway", || midway(&bench, &slow)).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let served = bench.registry.bytes_served();
    eventually("it goes on for the other", || bench.registry.bytes_served() > served).await;
    assert_eq!(names(&bench.root.join("ingest")).len(), 2, "the layer's tree, and its bytes as they came");
    second.abort();
    assert!(second.await.unwrap_err().is_cancelled());
    eventually("what was half-done is gone", || names(&bench.root.join("ingest")).is_empty()).await;
    // The registry notices at one of its next pieces, of which there are many a second.
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let served = bench.registry.bytes_served();
        tokio::time::sleep(Duration::from_millis(500)).await;
        if bench.registry.bytes_served() == served {
            break;
        }
        assert!(Instant::now() < end, "what nobody waits for is fetched");
    }
    assert!(bench.images.list().is_empty());

    // The next one begins with the layer that was finished.
    bench.registry.clear_faults();
    let image = bench.images.fetch(request).await.unwrap();
    assert_eq!(image.id, slow.image.build().unwrap().config_digest);
    assert_eq!((bench.registry.count(&slow.quick), bench.registry.count(&slow.slow)), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_when_a_pull_is_given_up_gets_the_image() {
    let bench = Bench::new().await;
    let slow = push(&bench);
    let empty_store = bench.tree();
    let request = bench.request("app:v1").await.unwrap();
    for _ in 0..3 {
        let (images, request) = (bench.images.clone(), request.clone());
        let given_up = tokio::spawn(async move { images.fetch(request).await });
        eventually("it has begun", || !names(&bench.root.join("ingest")).is_empty()).await;
        given_up.abort();
        let _ = given_up.await;
    }
    eventually("what was half-done is gone", || names(&bench.root.join("ingest")).is_empty()).await;
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        // One that has just been given up holds what it has for a moment; what it left for a next attempt goes with a prune.
        bench.images.prune(&Prune::default()).await.unwrap();
        bench.images.collect().await.unwrap();
        if bench.tree() == empty_store {
            break;
        }
        assert!(Instant::now() < end, "what was left stays: {:?}", bench.tree());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (images, asked) = (bench.images.clone(), request.clone());
    let given_up = tokio::spawn(async move { images.fetch(asked).await });
    eventually("it is midway", || names(&bench.root.join("snapshots")).len() == 1).await;
    given_up.abort();
    bench.registry.clear_faults();
    assert_eq!(bench.images.fetch(request).await.unwrap().id, slow.image.build().unwrap().config_digest);
}
