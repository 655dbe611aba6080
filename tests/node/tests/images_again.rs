//! Images that are here already: taken in again by an archive or by another manifest, handed on with their index, and mended where the
//! disk has lost something. Needs root.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test that cannot go on must stop")]

use crate::images::{Bench, names};
use berth_images::{ImportRequest, Imported, PushOutcome, PushRequest};
use berth_model::{Digest, Reference, Result};
use berth_registry::{Auth, Platform};
use berth_test_registry::{BuiltImage, Compression, Entry, ImageBuilder, Layer, Options, Registry, sha256};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

async fn import(bench: &Bench, archive: Vec<u8>) -> Result<Imported> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move { sender.send(Ok(Bytes::from(archive))).await });
    let approve = Box::new(|_: &Reference| Ok(Vec::new()));
    bench
        .images
        .import(ImportRequest { archive: receiver, name: None, platform: Platform::host(), approve, progress: None })
        .await
}

async fn export(bench: &Bench, name: &str) -> Vec<u8> {
    let mut chunks = bench.images.export(&[name.to_owned()]).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.recv().await {
        bytes.extend_from_slice(&chunk.unwrap());
    }
    bytes
}

async fn push(bench: &Bench, image: &str, registry: &Registry) -> Result<PushOutcome> {
    let target = Reference::parse(&registry.reference("copy:v1")).unwrap();
    bench.images.push(PushRequest { image: image.to_owned(), target, auth: Auth::Anonymous, progress: None }).await
}

fn tar(entries: impl IntoIterator<Item = Entry>) -> Vec<u8> {
    Layer::with_compression(Compression::Plain).entries(entries).build().unwrap().blob.to_vec()
}

fn app() -> ImageBuilder {
    ImageBuilder::new("app", "v1")
        .layer(Layer::with_compression(Compression::Gzip).file("one", 0o644, "1"))
        .layer(Layer::with_compression(Compression::Zstd).file("two", 0o644, "2"))
}

/// What `docker save` makes of images: the same layers, uncompressed, and no manifest of a registry's.
fn docker_save(images: &[(&BuiltImage, &str)]) -> Vec<u8> {
    let (files, manifest): (Vec<_>, Vec<_>) = images.iter().map(|(built, name)| saved(built, name)).unzip();
    tar(files.into_iter().flatten().chain([Entry::file("manifest.json", Value::from(manifest).to_string())]))
}

fn saved(built: &BuiltImage, name: &str) -> (Vec<Entry>, Value) {
    let layers = built.layers.iter().map(|l| format!("{}/layer.tar", l.diff_id.hex()));
    let files = built.layers.iter().zip(layers.clone()).map(|(l, path)| {
        let plain = match l.blob.as_ref() {
            [0x1f, 0x8b, ..] => filter("gzip", &l.blob),
            [0x28, 0xb5, ..] => filter("zstd", &l.blob),
            other => other.to_vec(),
        };
        Entry::file(path, plain)
    });
    let config = format!("{}.json", built.config_digest.hex());
    let manifest = json!({"Config": config, "RepoTags": [name], "Layers": layers.collect::<Vec<_>>()});
    (files.chain([Entry::file(config, built.config.to_vec())]).collect(), manifest)
}

fn filter(program: &str, bytes: &[u8]) -> Vec<u8> {
    use std::process::{Command, Stdio};
    let mut child = Command::new(program).arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), bytes).unwrap();
    child.wait_with_output().unwrap().stdout
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_of_an_image_that_is_here_brings_names_alone() {
    let bench = Bench::new().await;
    let built = app().build().unwrap();
    let image = bench.push_and_pull(&app(), "app:v1").await;
    let blobs = names(&bench.root.join("blobs/sha256"));
    let imported = import(&bench, docker_save(&[(&built, "saved:1")])).await.unwrap();
    let copy = &imported.images[0].0;
    assert_eq!((&copy.id, &copy.manifest_digest, &copy.layers), (&image.id, &image.manifest_digest, &image.layers));
    assert_eq!(copy.evidence, image.evidence, "an archive proves nothing, and disproves nothing");
    bench.images.collect().await.unwrap();
    assert_eq!(names(&bench.root.join("blobs/sha256")), blobs, "what was pulled stays, and nothing else does");
    let registry = Registry::start(Options::default()).await.unwrap();
    let outcome = push(&bench, "saved:1", &registry).await.unwrap();
    assert_eq!(outcome.digest, image.manifest_digest, "what arrives is what was pulled, byte for byte");
    // By its digest it is here still: nothing is fetched.
    bench.registry.clear_requests();
    let again = bench.pull(&format!("app@{}", image.manifest_digest)).await.unwrap();
    assert_eq!(again.manifest_digest, image.manifest_digest);
    assert_eq!(bench.registry.count(&berth_test_registry::When::path("/blobs/")), 0);
}

/// A manifest that says something about another one, as builders add it.
struct Attestation {
    manifest: Vec<u8>,
    blobs: Vec<Vec<u8>>,
}

fn attestation() -> Attestation {
    let (config, layer) = (b"{}".to_vec(), br#"{"predicateType":"https://slsa.dev/provenance/v0.2"}"#.to_vec());
    let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": sha256(&config).to_string(), "size": config.len()},
        "layers": [{"mediaType": "application/vnd.in-toto+json", "digest": sha256(&layer).to_string(), "size": layer.len()}]});
    Attestation { manifest: manifest.to_string().into_bytes(), blobs: vec![config, layer] }
}

/// An archive of an image with its attestation, under an index of this media type. Also the index' digest.
fn with_index(built: &BuiltImage, media_type: &str) -> (Vec<u8>, Digest) {
    let beside = attestation();
    let entry = |bytes: &[u8], platform: Value, annotations: Value| {
        json!({"mediaType": OCI_MANIFEST, "digest": sha256(bytes).to_string(), "size": bytes.len(), "platform": platform,
            "annotations": annotations})
    };
    let architecture = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let own = entry(&built.manifest, json!({"os": "linux", "architecture": architecture}), json!({}));
    let about = json!({"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": sha256(&built.manifest).to_string()});
    let about = entry(&beside.manifest, json!({"os": "unknown", "architecture": "unknown"}), about);
    let index =
        json!({"schemaVersion": 2, "mediaType": media_type, "manifests": [own, about]}).to_string().into_bytes();
    let layers = built.layers.iter().map(|l| l.blob.to_vec());
    let blobs = [index.clone(), built.manifest.to_vec(), built.config.to_vec(), beside.manifest.clone()];
    let files = blobs.into_iter().chain(layers).chain(beside.blobs);
    let mut entries: Vec<Entry> = files.map(|b| Entry::file(format!("blobs/sha256/{}", sha256(&b).hex()), b)).collect();
    let top = json!({"schemaVersion": 2, "manifests": [{"mediaType": media_type, "digest": sha256(&index).to_string(),
        "size": index.len(), "annotations": {"io.containerd.image.name": "r.io/bundle:1"}}]});
    entries.push(Entry::file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#));
    entries.push(Entry::file("index.json", top.to_string()));
    (tar(entries), sha256(&index))
}

fn member(archive: &[u8], name: &str) -> Value {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.tar");
    std::fs::write(&file, archive).unwrap();
    let output = std::process::Command::new("tar").arg("-xOf").arg(&file).arg(name).output().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_with_all_that_it_names_is_handed_on_as_it_came() {
    let built = app().build().unwrap();
    for media_type in [OCI_INDEX, DOCKER_LIST] {
        let (bench, other) = (Bench::new().await, Bench::new().await);
        let (archive, index) = with_index(&built, media_type);
        let imported = import(&bench, archive).await.unwrap();
        assert_eq!(imported.images[0].0.bundle.as_ref().map(|b| &b.index), Some(&index));
        let saved = export(&bench, "r.io/bundle:1").await;
        assert_eq!(member(&saved, "index.json")["manifests"][0]["mediaType"], media_type, "under its own type");
        let again = import(&other, saved.clone()).await.unwrap();
        assert_eq!(again.images[0].0.bundle, imported.images[0].0.bundle);
        assert_eq!(export(&other, "r.io/bundle:1").await, saved, "byte for byte");
        let registry = Registry::start(Options::default()).await.unwrap();
        let outcome = push(&other, "r.io/bundle:1", &registry).await.unwrap();
        assert_eq!((outcome.digest, outcome.index), (index.clone(), true));
        assert_eq!(registry.tag("copy", "v1"), Some(index));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_manifest_takes_no_index_that_does_not_name_it() {
    let bench = Bench::new().await;
    let built = app().build().unwrap();
    let (archive, index) = with_index(&built, OCI_INDEX);
    import(&bench, archive.clone()).await.unwrap();
    // The same image by another manifest, as somebody who annotated it would push it.
    let mut manifest: Value = serde_json::from_slice(&built.manifest).unwrap();
    manifest["annotations"] = json!({"org.opencontainers.image.vendor": "somebody else"});
    let manifest = manifest.to_string();
    bench.registry.push_image(&app()).unwrap();
    let digest = bench.registry.put_manifest("app", Some("v1"), OCI_MANIFEST, manifest);
    let image = bench.pull("app:v1").await.unwrap();
    assert_eq!((&image.manifest_digest, &image.bundle), (&digest, &None));
    bench.images.collect().await.unwrap();
    let registry = Registry::start(Options::default()).await.unwrap();
    assert_eq!(push(&bench, "r.io/bundle:1", &registry).await.unwrap().digest, digest);
    let saved = export(&bench, "r.io/bundle:1").await;
    let other = Bench::new().await;
    assert_eq!(import(&other, saved).await.unwrap().images[0].0.manifest_digest, digest);
    // The archive again: the manifest that is here stays, and the index does not come back without its own.
    let again = import(&bench, archive).await.unwrap();
    assert_eq!((&again.images[0].0.manifest_digest, &again.images[0].0.bundle), (&digest, &None));
    bench.images.collect().await.unwrap();
    assert!(!bench.root.join("blobs/sha256").join(index.hex()).exists());
    export(&bench, "r.io/bundle:1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_images_of_an_archive_come_in_or_none_does() {
    let bench = Bench::new().await;
    let before = bench.tree();
    let small = app().build().unwrap();
    // Within what a configuration may have, and more than the database takes with what is kept beside it.
    let labelled = |bytes: usize| {
        let image = ImageBuilder::new("large", "v1").layer(Layer::new().file("l", 0o644, "l"));
        image.label("text", &"x".repeat(bytes)).build().unwrap()
    };
    let large = labelled((4 << 20) - labelled(0).config.len());
    assert_eq!(large.config.len(), 4 << 20);
    let error = import(&bench, docker_save(&[(&small, "small:1"), (&large, "large:1")])).await.unwrap_err();
    assert!(bench.images.list().is_empty(), "the first of them is here, the second was refused: {error}");
    assert_eq!(bench.tree(), before, "nothing is left of either");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_document_is_told_and_comes_back_with_a_pull() {
    let mut bench = Bench::new().await;
    let image = bench.push_and_pull(&app(), "app:v1").await;
    let registry = Registry::start(Options::default()).await.unwrap();
    let blobs = bench.root.join("blobs/sha256");
    for lost in [&image.manifest_digest, &image.id] {
        for restart in [false, true] {
            std::fs::remove_file(blobs.join(lost.hex())).unwrap();
            if restart {
                bench.reopen();
            }
            let (told, history) = (
                push(&bench, image.id.as_str(), &registry).await.err(),
                bench.images.history(image.id.as_str()).await.err(),
            );
            let error = if *lost == image.id { history.or(told) } else { told }.unwrap();
            assert!(error.message().contains("lost") && error.message().contains("pull the image again"), "{error}");
            bench.pull("app:v1").await.unwrap();
            assert!(blobs.join(lost.hex()).exists(), "a pull fetches what is missing");
            push(&bench, image.id.as_str(), &registry).await.unwrap();
            assert!(!bench.images.history(image.id.as_str()).await.unwrap().is_empty());
        }
    }
}
