//! Compressed layers that the node does not have, fetched again for a push or an export: from any source that has them, and no longer
//! kept than they are of use. Needs root.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test that cannot go on must stop")]

use crate::images::{Bench, names, noise};
use berth_images::{Limits, PushOutcome, PushRequest, RootfsPlan, Source};
use berth_model::{ContainerId, ErrorKind, Reference, Result};
use berth_registry::Auth;
use berth_test_registry::{AuthMode, Compression, Fault, ImageBuilder, Layer, Options, Registry, When};
use std::time::{Duration, Instant};

fn app() -> ImageBuilder {
    ImageBuilder::new("app", "v1")
        .layer(Layer::with_compression(Compression::Gzip).file("one", 0o644, noise(200_000)))
        .layer(Layer::with_compression(Compression::Zstd).file("two", 0o644, "2"))
}

async fn push(bench: &Bench, image: &str, target: &Reference) -> Result<PushOutcome> {
    let request =
        PushRequest { image: image.to_owned(), target: target.clone(), auth: Auth::Anonymous, progress: None };
    bench.images.push(request).await
}

/// Pulls from another registry than the bench's own: one more source.
async fn pull_from(bench: &Bench, registry: &Registry, name: &str) {
    let reference = Reference::parse(&registry.reference(name)).unwrap();
    let digest = bench.images.resolve(&reference, &Auth::Anonymous).await.unwrap().digest;
    let source = Source { reference: reference.clone(), registry: reference.host().into(), digest: digest.clone() };
    let request = bench.request("app:v1").await.unwrap();
    let evidence = berth_images::Evidence { sources: vec![source], verified_keys: vec![] };
    bench.images.fetch(berth_images::PullRequest { reference, digest, evidence, ..request }).await.unwrap();
}

/// An image whose layers are unpacked and not kept in their compressed form, because a container stood on them when it was pulled.
async fn found_unpacked(bench: &Bench) -> String {
    let owner = ContainerId::from_random([9; 32]);
    let image = bench.push_and_pull(&app(), "app:v1").await;
    bench.images.prepare_rootfs(&owner, RootfsPlan::new(image.id.clone())).await.unwrap();
    bench.images.remove(image.id.as_str()).await.unwrap();
    bench.images.collect().await.unwrap();
    assert!(names(&bench.root.join("blobs/sha256")).is_empty(), "the container keeps its layers alone");
    bench.pull("app:v1").await.unwrap();
    bench.images.remove_rootfs(&owner).await.unwrap();
    bench.images.collect().await.unwrap();
    assert_eq!(names(&bench.root.join("blobs/sha256")).len(), 2, "manifest and configuration");
    image.id.to_string()
}

async fn target() -> (Registry, Reference) {
    let registry = Registry::start(Options::default()).await.unwrap();
    let target = Reference::parse(&registry.reference("copy:v1")).unwrap();
    (registry, target)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_found_unpacked_comes_from_any_source_that_has_it() {
    let bench = Bench::new().await;
    let id = found_unpacked(&bench).await;
    let (registry, target) = target().await;
    let built = app().build().unwrap();
    // Three sources; the latest lies, the one before is lacking a layer, the first has all.
    let (lacking, liar) =
        (Registry::start(Options::default()).await.unwrap(), Registry::start(Options::default()).await.unwrap());
    for other in [&lacking, &liar] {
        other.push_image(&app()).unwrap();
        pull_from(&bench, other, "app:v1").await;
    }
    lacking.remove_blob(&built.layers[0].digest);
    liar.inject(When::blob(&built.layers[0].digest), Fault::Corrupt);
    liar.inject(When::blob(&built.layers[1].digest), Fault::Status { code: 500, retry_after: None });
    let outcome = push(&bench, &id, &target).await.unwrap();
    assert_eq!(registry.tag("copy", "v1"), Some(outcome.digest));
    assert!(
        liar.count(&When::blob(&built.layers[0].digest)) > 0 && lacking.count(&When::blob(&built.layers[0].digest)) > 0
    );
    // The setting is on: what came stays, whole.
    bench.images.collect().await.unwrap();
    for blob in names(&bench.root.join("blobs/sha256")) {
        let bytes = std::fs::read(bench.root.join("blobs/sha256").join(&blob)).unwrap();
        assert_eq!(berth_test_registry::sha256(&bytes).hex(), blob);
    }
    assert_eq!(names(&bench.root.join("blobs/sha256")).len(), 4);
    assert!(names(&bench.root.join("ingest")).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_source_gives_it_the_words_say_who_was_asked_and_what_helps() {
    let bench = Bench::new().await;
    let id = found_unpacked(&bench).await;
    let (_registry, target) = target().await;
    let built = app().build().unwrap();
    bench.registry.remove_blob(&built.layers[1].digest);
    let error = push(&bench, &id, &target).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    let source = bench.reference("app:v1").repository();
    for words in
        ["unpacked only", &source, "the node's own credentials", "berth login", "pull the image from a registry"]
    {
        assert!(error.message().contains(words), "{words}: {error}");
    }
    let error = bench.images.export(std::slice::from_ref(&id)).await.err().unwrap();
    assert!(error.message().contains("berth login"), "{error}");
    // The remedy is one: a pull from elsewhere adds a source.
    let elsewhere = Registry::start(Options::default()).await.unwrap();
    elsewhere.push_image(&app()).unwrap();
    pull_from(&bench, &elsewhere, "app:v1").await;
    push(&bench, &id, &target).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_of_a_push_are_for_its_registry_alone() {
    let bench = Bench::new().await;
    let id = found_unpacked(&bench).await;
    let built = app().build().unwrap();
    // The target wants credentials and has the layers; the image was never pulled there.
    let private = Registry::start(Options {
        auth: AuthMode::Basic { username: "user".into(), password: "secret".into() },
        ..Options::default()
    })
    .await
    .unwrap();
    let target = Reference::parse(&private.reference("copy:v1")).unwrap();
    let auth = Auth::Basic { username: "user".into(), password: "secret".into() };
    bench.registry.clear_requests();
    let request = PushRequest { image: id, target, auth, progress: None };
    bench.images.push(request).await.unwrap();
    let asked = bench.registry.requests();
    assert!(asked.iter().any(|r| r.path.contains(&built.layers[0].digest.to_string())), "it was fetched again");
    assert!(
        asked.iter().all(|r| r.headers.iter().all(|(name, _)| name != "authorization")),
        "the target's credentials went elsewhere"
    );
}

/// A pod's pull secret leads again to where the pull found the image, as long as the daemon lives; no other server is shown it.
#[tokio::test(flavor = "multi_thread")]
async fn the_pull_secret_of_a_pod_fetches_again_what_was_given_up() {
    let mut bench = Bench::new().await;
    let id = found_unpacked(&bench).await;
    let (registry, target) = target().await;
    let built = app().build().unwrap();
    // Only the private registry has the layers by now.
    built.layers.iter().for_each(|layer| bench.registry.remove_blob(&layer.digest));
    let (username, password) = ("user".to_owned(), "secret".to_owned());
    let auth = AuthMode::Basic { username: username.clone(), password: password.clone() };
    let private = Registry::start(Options { auth, ..Options::default() }).await.unwrap();
    private.push_image(&app()).unwrap();
    let secret = Auth::Basic { username, password: password.into() };
    let reference = Reference::parse(&private.reference("app:v1")).unwrap();
    let digest = bench.images.resolve(&reference, &secret).await.unwrap().digest;
    let source = Source { reference: reference.clone(), registry: reference.host().into(), digest: digest.clone() };
    let evidence = berth_images::Evidence { sources: vec![source], verified_keys: vec![] };
    let request = bench.request("app:v1").await.unwrap();
    let request = berth_images::PullRequest { reference, digest, evidence, auth: secret, ..request };
    bench.images.fetch(request.clone()).await.unwrap();

    // Nothing of it is on the disk: another daemon does not have it.
    bench.reopen();
    let error = push(&bench, &id, &target).await.unwrap_err();
    assert!(error.message().contains("the node's own credentials") && !error.message().contains("its pull"), "{error}");
    bench.images.fetch(request).await.unwrap();
    let outcome = push(&bench, &id, &target).await.unwrap();
    assert_eq!(registry.tag("copy", "v1"), Some(outcome.digest));
    let shown = |registry: &Registry| {
        registry.requests().iter().any(|r| r.headers.iter().any(|(name, _)| name == "authorization"))
    };
    assert!(shown(&private) && !shown(&registry) && !shown(&bench.registry), "the secret went elsewhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_keeps_no_compressed_layers_keeps_none_for_a_push() {
    let bench = Bench::with(|config| config.keep_layer_blobs = false).await;
    let image = bench.push_and_pull(&app(), "app:v1").await;
    let blobs = bench.root.join("blobs/sha256");
    assert_eq!(names(&blobs).len(), 2, "manifest and configuration alone");
    let (registry, target) = target().await;
    let free = bench.images.limits().min_free;
    bench.images.set_limits(Limits { min_free: u64::MAX, ..Limits::default() });
    let error = push(&bench, image.id.as_str(), &target).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "the last of the disk is not for this: {error}");
    bench.images.set_limits(Limits { min_free: free, ..Limits::default() });
    push(&bench, image.id.as_str(), &target).await.unwrap();
    assert_eq!(registry.tag("copy", "v1"), Some(image.manifest_digest.clone()));
    let end = Instant::now() + Duration::from_secs(10);
    while names(&blobs).len() != 2 {
        assert!(Instant::now() < end, "one push undoes the setting: {:?}", names(&blobs));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // And again, which fetches again.
    push(&bench, image.id.as_str(), &target).await.unwrap();
    // An image that came by an archive has no registry to ask.
    bench.registry.remove_blob(&image.layers[0].digest);
    tokio::time::sleep(Duration::from_millis(200)).await;
    bench.images.collect().await.unwrap();
    let error = push(&bench, image.id.as_str(), &target).await.unwrap_err();
    assert!(error.message().contains("keepCompressedLayers"), "{error}");
}
