//! Archives of images: what is exported comes in again, elsewhere too, and what lies is refused with nothing left. Needs root.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test that cannot go on must stop")]

use crate::images;
use crate::images::{Bench, noise};
use berth_images::{ImportRequest, Imported};
use berth_model::{Error, ErrorKind, Reference, Result};
use berth_registry::Platform;
use berth_test_registry::{Compression, Entry, ImageBuilder, Layer, sha256};
use bytes::Bytes;
use serde_json::json;
use std::collections::HashSet;
use tokio::sync::mpsc;

fn channel(archive: Vec<u8>, end: Option<Error>) -> mpsc::Receiver<Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        for chunk in archive.chunks(10_000) {
            if sender.send(Ok(Bytes::copy_from_slice(chunk))).await.is_err() {
                return;
            }
        }
        if let Some(e) = end {
            let _ = sender.send(Err(e)).await;
        }
    });
    receiver
}

fn request(archive: Vec<u8>) -> ImportRequest {
    let approve = Box::new(|_: &Reference| Ok(Vec::new()));
    ImportRequest { archive: channel(archive, None), name: None, platform: Platform::host(), approve, progress: None }
}

async fn import(bench: &Bench, archive: Vec<u8>) -> Result<Imported> {
    bench.images.import(request(archive)).await
}

async fn export(bench: &Bench, names: &[&str]) -> Vec<u8> {
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let mut chunks = bench.images.export(&names).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.recv().await {
        bytes.extend_from_slice(&chunk.unwrap());
    }
    bytes
}

/// A tar archive of these files.
fn tar(entries: impl IntoIterator<Item = Entry>) -> Vec<u8> {
    Layer::with_compression(Compression::Plain).entries(entries).build().unwrap().blob.to_vec()
}

fn app() -> ImageBuilder {
    ImageBuilder::new("app", "v1")
        .layer(Layer::with_compression(Compression::Gzip).file("one", 0o644, noise(300_000)))
        .layer(Layer::with_compression(Compression::Zstd).file("two", 0o600, "2"))
        .layer(Layer::with_compression(Compression::Plain).file("three", 0o644, "3"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_exported_is_the_same_everywhere_and_comes_in_again() {
    let (bench, other) = (Bench::new().await, Bench::new().await);
    let image = bench.push_and_pull(&app(), "app:v1").await;
    let name = bench.reference("app:v1").to_string();
    let archive = export(&bench, &[&name]).await;
    assert_eq!(export(&bench, &[&name]).await, archive, "the bytes are reproducible");
    let empty = other.tree();
    let imported = import(&other, archive.clone()).await.unwrap();
    assert_eq!(imported.images.len(), 1);
    let (copy, names) = &imported.images[0];
    assert_eq!((&copy.id, &copy.manifest_digest, copy.size), (&image.id, &image.manifest_digest, image.size));
    assert_eq!(names.iter().map(ToString::to_string).collect::<Vec<_>>(), std::slice::from_ref(&name));
    assert!(copy.evidence.sources.is_empty(), "a name in an archive proves nothing");
    for (ours, theirs) in bench.images.layers(&image.id).unwrap().iter().zip(other.images.layers(&copy.id).unwrap()) {
        assert_eq!(images::names(ours), images::names(&theirs));
    }
    assert_eq!(export(&other, &[&name]).await, archive, "and the same from another node");
    // An id exports without a name, and the image then has none.
    other.images.remove(image.id.as_str()).await.unwrap();
    other.images.collect().await.unwrap();
    assert_eq!(other.tree(), empty, "nothing is left of it");
    let nameless = export(&bench, &[image.id.as_str()]).await;
    let imported = import(&other, nameless).await.unwrap();
    assert!(imported.images[0].1.is_empty() && other.images.list()[0].repo_tags.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_archives_come_in_with_their_links_and_compressed() {
    let bench = Bench::new().await;
    let layer = |text: &str| Layer::with_compression(Compression::Plain).file(text, 0o644, text).build().unwrap();
    let (one, two) = (layer("one"), layer("two"));
    let config = json!({
        "os": "linux", "architecture": if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" },
        "config": {"Cmd": ["/one"]},
        "rootfs": {"type": "layers", "diff_ids": [one.diff_id.to_string(), two.diff_id.to_string(), one.diff_id.to_string()]},
        "history": [{"created_by": "first"}, {"created_by": "second"}, {"created_by": "ENV", "empty_layer": true},
            {"created_by": "third"}],
    })
    .to_string();
    let id = sha256(config.as_bytes());
    let manifest = json!([{"Config": format!("{}.json", id.hex()), "RepoTags": ["shop:1", "r.io/shop:2"],
        "Layers": ["a/layer.tar", "b/layer.tar", "c/layer.tar"]}]);
    let archive = tar([
        Entry::dir("a"),
        Entry::file("a/layer.tar", one.blob.to_vec()),
        Entry::file("b/layer.tar", two.blob.to_vec()),
        Entry::symlink("c/layer.tar", "../a/layer.tar"),
        Entry::file(format!("{}.json", id.hex()), config.clone()),
        Entry::file("manifest.json", manifest.to_string()),
    ]);
    let mut gzip = std::process::Command::new("gzip")
        .arg("-c")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut gzip.stdin.take().unwrap(), &archive).unwrap();
    let packed = gzip.wait_with_output().unwrap().stdout;
    let imported = import(&bench, packed).await.unwrap();
    let (image, names) = &imported.images[0];
    assert_eq!((&image.id, image.layers.len()), (&id, 3));
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["docker.io/library/shop:1", "r.io/shop:2"]);
    let steps = bench.images.history("shop:1").await.unwrap();
    let told: Vec<_> = steps.iter().map(|s| (s.created_by.as_str(), s.empty, s.size > 0)).collect();
    let expected = [("third", false, true), ("ENV", true, false), ("second", false, true), ("first", false, true)];
    assert_eq!(told, expected);
    // What was made of it can be handed on, and is the same image again.
    let other = Bench::new().await;
    let again = import(&other, export(&bench, &["shop:1"]).await).await.unwrap();
    assert_eq!((&again.images[0].0.id, &again.images[0].0.manifest_digest), (&id, &image.manifest_digest));
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_that_lie_leave_nothing() {
    let bench = Bench::with(|config| {
        config.limits.max_archive = 2 << 20;
        config.limits.max_archive_files = 100;
    })
    .await;
    bench.push_and_pull(&ImageBuilder::new("kept", "v1").layer(Layer::new().file("k", 0o644, "k")), "kept:v1").await;
    let before = bench.tree();
    let manifest = |layer: &str| json!([{"Config": "c.json", "RepoTags": ["x:1"], "Layers": [layer]}]).to_string();
    let config = json!({"rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", "1".repeat(64))]}}).to_string();
    let good = |layer: &str| vec![Entry::file("c.json", config.clone()), Entry::file("manifest.json", manifest(layer))];
    let with = |mut entries: Vec<Entry>, entry: Entry| {
        entries.push(entry);
        tar(entries)
    };
    let zero = "0".repeat(64);
    let mut torn = with(good("l"), Entry::file("l", noise(100_000)));
    torn.truncate(50_000);
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("upwards", with(good("l"), Entry::file("../../../etc/cron.d/x", "x")), "leads out"),
        ("absolute", with(good("l"), Entry::file("/etc/passwd", "x")), "absolute"),
        ("a link outwards", with(good("l"), Entry::symlink("l", "../../etc/shadow")), "leads out"),
        ("an absolute link", with(good("l"), Entry::symlink("l", "/etc/shadow")), "leads out"),
        ("a link in a circle", with(good("l"), Entry::symlink("l", "l")), "has no file"),
        ("a device", with(good("l"), Entry::char_device("l", 1, 3)), "CharDevice"),
        ("a pipe", with(good("l"), Entry::fifo("l")), "Fifo"),
        ("a name twice", with(good("l"), Entry::file("c.json", "x")), "stands twice"),
        ("a layer that is not there", tar(good("missing")), "missing"),
        ("another layer than promised", with(good("l"), Entry::file("l", tar([Entry::file("f", "f")]))), "digest"),
        ("a layer that is none", with(good("l"), Entry::file("l", vec![7; 4096])), "layer"),
        ("a torn archive", torn, "ends within"),
        ("too large", with(good("l"), Entry::zeros("l", 3 << 20)), "max_archive"),
        ("too many files", tar((0..200).map(|n| Entry::file(format!("f{n}"), "x"))), "max_archive_files"),
        ("too many directories", tar((0..200).map(|n| Entry::dir(format!("d{n}")))), "max_archive_files"),
        ("more behind its end", [tar(good("l")), vec![0; 17 << 20]].concat(), "behind its end"),
        ("no archive of images", tar([Entry::file("readme", "hello")]), "neither"),
        ("compressed by xz", b"\xfd7zXZ\0 and so on".to_vec(), "xz -dc FILE"),
        ("compressed by bzip2", b"BZh91AY&SY and so on".to_vec(), "bzip2 -dc FILE"),
        ("no archive at all", b"hello world, this is text".repeat(100), "archive"),
        (
            "a blob with another digest",
            tar([Entry::file("oci-layout", "{}"), Entry::file(format!("blobs/sha256/{zero}"), "x")]),
            "has digest",
        ),
        (
            "an index without its manifest",
            tar([
                Entry::file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#),
                Entry::file(
                    "index.json",
                    json!({"schemaVersion": 2, "manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json",
                        "digest": format!("sha256:{zero}"), "size": 3}]})
                    .to_string(),
                ),
            ]),
            "does not have it",
        ),
    ];
    for (what, archive, words) in cases {
        let error = import(&bench, archive).await.unwrap_err();
        assert!(error.message().contains(words), "{what}: {error}");
        assert!(
            matches!(error.kind(), ErrorKind::FailedPrecondition | ErrorKind::ResourceExhausted),
            "{what}: {:?} {error}",
            error.kind()
        );
        assert_eq!(bench.tree(), before, "{what} left something");
    }
    // A bomb: a small archive that unpacks to a multiple of what is allowed.
    let bomb = Layer::with_compression(Compression::Gzip).entry(Entry::zeros("l", 64 << 20)).build().unwrap();
    let error = import(&bench, bomb.blob.to_vec()).await.unwrap_err();
    assert!(error.message().contains("max_archive"), "{error}");
    // A client that goes away in the middle.
    let whole = with(good("l"), Entry::file("l", noise(500_000)));
    let mut cut = request(Vec::new());
    cut.archive = channel(whole[..300_000].to_vec(), Some(Error::new(ErrorKind::Unavailable, "went away")));
    let error = bench.images.import(cut).await.unwrap_err();
    assert_eq!((error.kind(), error.message().contains("went away")), (ErrorKind::Unavailable, true), "{error}");
    assert_eq!(bench.tree(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_decides_about_names_and_the_platform_is_the_nodes() {
    let (bench, other) = (Bench::new().await, Bench::new().await);
    bench.push_and_pull(&app(), "app:v1").await;
    let name = bench.reference("app:v1");
    let archive = export(&bench, &[&name.to_string()]).await;
    let before = other.tree();
    let mut denied = request(archive.clone());
    denied.approve = Box::new(|name: &Reference| Err(Error::new(ErrorKind::PolicyDenied, format!("{name} is denied"))));
    let error = other.images.import(denied).await.unwrap_err();
    assert_eq!((error.kind(), error.message().contains("is denied")), (ErrorKind::PolicyDenied, true));
    assert_eq!(other.tree(), before, "nothing was unpacked");
    let mut renamed = request(archive);
    renamed.name = Some(Reference::parse("mine:2").unwrap());
    other.images.import(renamed).await.unwrap();
    assert!(other.images.find("mine:2").unwrap().is_some() && other.images.find(&name.to_string()).unwrap().is_none());
    let (ours, theirs) = (platform_manifest("linux", host()), platform_manifest("linux", "s390x"));
    let archive = |platforms: &[&Built]| {
        let mut entries = vec![Entry::file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#)];
        let mut manifests = Vec::new();
        let mut there = HashSet::new();
        for built in platforms {
            for blob in [&built.manifest, &built.config, &built.layer] {
                let path = format!("blobs/sha256/{}", sha256(blob).hex());
                if there.insert(path.clone()) {
                    entries.push(Entry::file(path, blob.clone()));
                }
            }
            manifests.push(json!({"mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": sha256(&built.manifest).to_string(), "size": built.manifest.len(),
                "platform": {"os": "linux", "architecture": built.architecture, "variant": built.variant},
                "annotations": {"io.containerd.image.name": "r.io/multi:1"}}));
        }
        let index = json!({"schemaVersion": 2, "manifests": manifests}).to_string();
        entries.push(Entry::file("index.json", index));
        tar(entries)
    };
    let imported = import(&other, archive(&[&theirs, &ours])).await.unwrap();
    assert_eq!(imported.images.len(), 1, "the node's own alone");
    assert_eq!(imported.images[0].0.id, sha256(&ours.config));
    // Of several variants under one name the one that a pull would take, wherever it stands.
    if cfg!(target_arch = "x86_64") {
        let mut newer = platform_manifest("linux", host());
        newer.variant = Some("v4");
        newer.config.push(b' ');
        newer.manifest = String::from_utf8(ours.manifest.clone())
            .unwrap()
            .replace(&sha256(&ours.config).to_string(), &sha256(&newer.config).to_string())
            .replace(&format!("\"size\":{}", ours.config.len()), &format!("\"size\":{}", newer.config.len()))
            .into_bytes();
        for order in [[&newer, &ours], [&ours, &newer]] {
            let imported = import(&other, archive(&order)).await.unwrap();
            assert_eq!(imported.images.len(), 1, "one name, one image");
            assert_eq!(imported.images[0].0.id, sha256(&ours.config));
        }
    }
    let error = import(&other, archive(&[&theirs])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.message().contains("s390x"), "{error}");
}

struct Built {
    architecture: String,
    variant: Option<&'static str>,
    manifest: Vec<u8>,
    config: Vec<u8>,
    layer: Vec<u8>,
}

fn host() -> &'static str {
    if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }
}

fn platform_manifest(os: &str, architecture: &str) -> Built {
    let layer = Layer::with_compression(Compression::Plain).file("f", 0o644, "f").build().unwrap();
    let config = json!({"os": os, "architecture": architecture,
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id.to_string()]}})
    .to_string()
    .into_bytes();
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": sha256(&config).to_string(),
            "size": config.len()},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer.digest.to_string(),
            "size": layer.blob.len()}]})
    .to_string()
    .into_bytes();
    Built { architecture: architecture.into(), variant: None, manifest, config, layer: layer.blob.to_vec() }
}
