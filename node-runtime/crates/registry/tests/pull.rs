//! What a well-behaved registry gives: resolution, manifests, blobs, ranges, platforms, addresses.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // a failed expectation is a failed test

mod common;
use berth_model::{ErrorKind, Reference};
use berth_registry::{Auth, ManifestKind, Platform, parse_manifest, select_platform};
use berth_test_registry::{DOCKER_MANIFEST, ImageBuilder, Layer, OCI_INDEX, OCI_MANIFEST, Options, Registry, When};
use common::{client, pull, setup};
use futures_util::StreamExt;
use http::Method;
use std::net::{IpAddr, Ipv6Addr};

#[tokio::test]
async fn a_whole_image_over_plain_http_on_loopback() {
    let s = setup(Options::default()).await;
    let layers = pull(&client(), &s.reference, &Auth::Anonymous).await.unwrap();
    assert_eq!(layers, [s.layer_bytes.to_vec()]);
    let resolved = client().resolve(&s.reference, &Auth::Anonymous).await.unwrap();
    assert_eq!((resolved.digest, resolved.media_type.as_deref()), (s.digest, Some(OCI_MANIFEST)));
    assert!(resolved.size.is_some_and(|size| size > 100));
    let first = &s.registry.requests()[0];
    assert_eq!(first.method, "HEAD");
    assert!(first.header("user-agent").unwrap().starts_with("berth/"));
    assert!(first.header("accept").unwrap().contains(DOCKER_MANIFEST));
}

#[tokio::test]
async fn ipv6_loopback_and_localhost() {
    let six = setup(Options { bind: IpAddr::V6(Ipv6Addr::LOCALHOST), ..Options::default() }).await;
    assert!(six.reference.to_string().starts_with("[::1]:"));
    pull(&client(), &six.reference, &Auth::Anonymous).await.unwrap();

    let four = setup(Options::default()).await;
    let by_name = Reference::parse(&format!("localhost:{}/team/app:v1", four.registry.addr().port())).unwrap();
    pull(&client(), &by_name, &Auth::Anonymous).await.unwrap();
}

#[tokio::test]
async fn a_digest_is_its_own_answer_unless_the_registry_is_asked() {
    let s = setup(Options::default()).await;
    let by_digest = s.reference.with_digest_only(s.digest.clone());
    assert_eq!(client().resolve(&by_digest, &Auth::Anonymous).await.unwrap().digest, s.digest);
    assert!(s.registry.requests().is_empty());
    let asked = client().resolve_remote(&by_digest, &Auth::Anonymous).await.unwrap();
    assert!(asked.digest == s.digest && asked.size.is_some());
    pull(&client(), &by_digest, &Auth::Anonymous).await.unwrap();
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let s = setup(Options::default()).await;
    let other = Reference::parse(&s.registry.reference("team/app:v2")).unwrap();
    let e = client().resolve(&other, &Auth::Anonymous).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound);
    assert!(e.message().contains("no manifest v2 in repository team/app"), "{e}");
    s.registry.remove_blob(&s.layer.digest);
    let e = client().blob(&s.reference, &s.layer, &Auth::Anonymous, 0).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound);
    // No attempt was repeated.
    assert_eq!(s.registry.requests().len(), 2);
}

#[tokio::test]
async fn blobs_resume_from_an_offset() {
    let s = setup(Options::default()).await;
    let client = client();
    for offset in [1, 1000, s.layer.size - 1] {
        let mut stream = client.blob(&s.reference, &s.layer, &Auth::Anonymous, offset).await.unwrap();
        let mut bytes = Vec::new();
        while let Some(piece) = stream.next().await {
            bytes.extend_from_slice(&piece.unwrap());
        }
        assert_eq!(bytes, s.layer_bytes[offset as usize..]);
    }
    assert!(s.registry.requests().iter().all(|r| r.status == 206));
    assert!(client.blob(&s.reference, &s.layer, &Auth::Anonymous, s.layer.size).await.unwrap().next().await.is_none());
    assert!(client.blob(&s.reference, &s.layer, &Auth::Anonymous, s.layer.size + 1).await.is_err());
    assert_eq!(s.registry.requests().len(), 3);
}

#[tokio::test]
async fn an_index_leads_to_the_platform() {
    let registry = Registry::start(Options::default()).await.unwrap();
    let image = |architecture: &str| {
        ImageBuilder::new("multi", "").platform("linux", architecture, None).layer(Layer::new().file(
            "a",
            0o644,
            architecture,
        ))
    };
    let digest = registry.push_index("multi", "latest", &[image("amd64"), image("arm64")]).unwrap();
    let reference = Reference::parse(&registry.reference("multi")).unwrap();
    let client = client();
    let resolved = client.resolve(&reference, &Auth::Anonymous).await.unwrap();
    assert_eq!((&resolved.digest, resolved.media_type.as_deref()), (&digest, Some(OCI_INDEX)));
    let raw = client.manifest(&reference, &digest, &Auth::Anonymous).await.unwrap();
    let ManifestKind::Index(entries) = parse_manifest(&raw.bytes, &raw.media_type).unwrap() else {
        panic!("not an index")
    };
    let wanted = Platform { os: "linux".into(), architecture: "arm64".into(), variant: Some("v8".into()) };
    let chosen = select_platform(&entries, &wanted).unwrap();
    let raw = client.manifest(&reference, &chosen.digest, &Auth::Anonymous).await.unwrap();
    assert!(matches!(parse_manifest(&raw.bytes, &raw.media_type).unwrap(), ManifestKind::Image(_)));
}

#[tokio::test]
async fn docker_media_types_are_taken_too() {
    let registry = Registry::start(Options::default()).await.unwrap();
    let image = ImageBuilder::new("old", "v1").docker().layer(Layer::new().file("a", 0o644, "a"));
    registry.push_image(&image).unwrap();
    let reference = Reference::parse(&registry.reference("old:v1")).unwrap();
    pull(&client(), &reference, &Auth::Anonymous).await.unwrap();
}

#[tokio::test]
async fn connections_are_used_again() {
    let s = setup(Options::default()).await;
    let client = client();
    for _ in 0..5 {
        pull(&client, &s.reference, &Auth::Anonymous).await.unwrap();
    }
    assert_eq!(s.registry.count(&When::path("/v2/").method(Method::GET)), 15);
    // One was the greeting that told that it speaks plain HTTP.
    assert!(s.registry.connections() <= 3, "{} connections for 20 requests", s.registry.connections());
}
