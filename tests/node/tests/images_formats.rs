//! What an image may be: indexes inside indexes, attestations beside images, Docker's documents, zstd:chunked, foreign layers.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test that cannot go on must stop")]

use crate::images::Bench;
use berth_model::{Digest, ErrorKind};
use berth_test_registry::{BuiltImage, Compression, DOCKER_LIST, ImageBuilder, Layer, OCI_INDEX};
use serde_json::{Value, json};

fn image(compression: Compression) -> ImageBuilder {
    let layer = Layer::with_compression(compression).file("data", 0o644, "content of the layer");
    ImageBuilder::new("app", "v1").layer(layer).entrypoint(["/data"])
}

/// An index of these, with the platform of this machine where none is given.
fn index(media_type: &str, entries: &[(&Digest, &str, usize, Value)]) -> Vec<u8> {
    let entry = |(digest, kind, size, more): &(&Digest, &str, usize, Value)| {
        let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let mut entry = json!({"mediaType": kind, "digest": digest.as_str(), "size": size, "platform": {"os": "linux", "architecture": arch}});
        entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        entry
    };
    let entries: Vec<_> = entries.iter().map(entry).collect();
    json!({"schemaVersion": 2, "mediaType": media_type, "manifests": entries}).to_string().into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_inside_indexes_are_followed_three_deep() {
    let bench = Bench::new().await;
    let built = image(Compression::Gzip).build().unwrap();
    bench.registry.push_built("app", None, &built);
    let (mut digest, mut kind, mut size) = (built.digest.clone(), built.media_type.clone(), built.manifest.len());
    for depth in 1..=4 {
        let media_type = if depth % 2 == 0 { DOCKER_LIST } else { OCI_INDEX };
        let bytes = index(media_type, &[(&digest, &kind, size, json!({}))]);
        (kind, size) = (media_type.to_owned(), bytes.len());
        digest = bench.registry.put_manifest("app", Some(&format!("deep{depth}")), media_type, bytes);
    }
    for depth in 1..=3 {
        assert_eq!(bench.pull(&format!("app:deep{depth}")).await.unwrap().id, built.config_digest);
    }
    // What is here already is not looked at again, so the fourth needs a store of its own.
    let fresh = Bench::new().await;
    let mut digest = built.digest.clone();
    fresh.registry.push_built("app", None, &built);
    for depth in 1..=4 {
        let bytes =
            index(OCI_INDEX, &[(&digest, if depth == 1 { &built.media_type } else { OCI_INDEX }, 1, json!({}))]);
        digest = fresh.registry.put_manifest("app", Some(&format!("deep{depth}")), OCI_INDEX, bytes);
    }
    let e = fresh.pull("app:deep4").await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::FailedPrecondition);
    assert!(e.message().contains("deeper than the 3"), "{e}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attestation_is_not_the_image() {
    let bench = Bench::new().await;
    let built = image(Compression::Gzip).build().unwrap();
    bench.registry.push_built("app", None, &built);
    let config = bench.registry.put_blob(r#"{"architecture":"unknown","os":"unknown"}"#);
    let attestation = json!({"schemaVersion": 2, "mediaType": built.media_type, "layers": [],
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.as_str(), "size": 41}});
    let attestation = attestation.to_string();
    let size = attestation.len();
    let beside = bench.registry.put_manifest("app", None, &built.media_type, attestation);
    let note = json!({"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": built.digest.as_str()});
    for (tag, platform) in [("buildkit", json!({"os": "unknown", "architecture": "unknown"})), ("bare", Value::Null)] {
        let own = if platform.is_null() { json!({"platform": null}) } else { json!({}) };
        let entries = [
            (&beside, built.media_type.as_str(), size, json!({"platform": platform, "annotations": note})),
            (&built.digest, built.media_type.as_str(), built.manifest.len(), own),
        ];
        bench.registry.put_manifest("app", Some(tag), OCI_INDEX, index(OCI_INDEX, &entries));
        assert_eq!(bench.pull(&format!("app:{tag}")).await.unwrap().id, built.config_digest, "{tag}");
    }
}

/// The same image with another blob and media type for its layer.
fn with_layer(built: &BuiltImage, blob: Vec<u8>, media_type: &str) -> BuiltImage {
    let mut changed = built.clone();
    let digest = berth_test_registry::sha256(&blob);
    let mut manifest: Value = serde_json::from_slice(&built.manifest).unwrap();
    manifest["layers"][0]["digest"] = json!(digest.as_str());
    manifest["layers"][0]["size"] = json!(blob.len());
    manifest["layers"][0]["mediaType"] = json!(media_type);
    changed.manifest = manifest.to_string().into();
    changed.digest = berth_test_registry::sha256(&changed.manifest);
    changed.layers[0].digest = digest;
    changed.layers[0].blob = blob.into();
    changed
}

/// A skippable frame (RFC 8878, 3.1.2), as zstd:chunked has them for its table of contents.
fn skippable(number: u8, content: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x50 + number, 0x2a, 0x4d, 0x18];
    frame.extend((content.len() as u32).to_le_bytes());
    frame.extend(content);
    frame
}

#[tokio::test(flavor = "multi_thread")]
async fn zstd_with_frames_to_skip_is_read_as_zstd() {
    let built = image(Compression::Zstd).build().unwrap();
    let plain = built.layers[0].blob.to_vec();
    let toc = skippable(0, b"a table of contents that nobody here reads");
    let cases = [
        (
            "behind",
            [plain.clone(), toc.clone(), skippable(15, b"GNUlInUx")].concat(),
            "application/vnd.oci.image.layer.v1.tar+zstd",
        ),
        ("before", [toc, plain.clone()].concat(), "application/vnd.oci.image.layer.v1.tar+zstd"),
        ("docker", plain, "application/vnd.docker.image.rootfs.diff.tar.zstd"),
    ];
    for (tag, blob, media_type) in cases {
        let bench = Bench::new().await;
        bench.registry.push_built("app", Some(tag), &with_layer(&built, blob, media_type));
        let pulled = bench.pull(&format!("app:{tag}")).await.unwrap_or_else(|e| panic!("{tag}: {e}"));
        assert_eq!(pulled.layers[0].diff_id, built.layers[0].diff_id);
        let files: Vec<_> = bench.tree().into_keys().filter(|p| p.ends_with("fs/data")).collect();
        assert_eq!(std::fs::read(&files[0]).unwrap(), b"content of the layer");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_layers_come_from_the_registry_or_not_at_all() {
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    let bench = Bench::new().await;
    let built = image(Compression::Gzip).build().unwrap();
    let held = with_layer(&built, built.layers[0].blob.to_vec(), foreign);
    bench.registry.push_built("app", Some("held"), &held);
    bench.registry.remove_blob(&held.layers[0].digest);
    let e = bench.pull("app:held").await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::FailedPrecondition, "{e}");
    assert!(e.message().contains("foreign layer") && e.message().contains("push the image"), "{e}");
    bench.registry.push_built("app", Some("held"), &held);
    bench.pull("app:held").await.unwrap();
}
