//! What a registry may do wrong, and how a pull survives or ends.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // a failed expectation is a failed test

mod common;
use berth_model::{Error, ErrorKind, Reference};
use berth_registry::{Auth, Client};
use berth_test_registry::{Fault, OCI_MANIFEST, Options, When, sha256};
use common::{Setup, blob, client, config, manifest, pull, setup};
use http::Method;
use std::time::{Duration, Instant};

const ANON: Auth = Auth::Anonymous;

fn assert_unavailable(e: &Error) {
    assert_eq!(e.kind(), ErrorKind::Unknown, "{e}");
    assert!(e.message().starts_with("RegistryUnavailable: registry "), "{e}");
}

fn status(code: u16) -> Fault {
    Fault::Status { code, retry_after: None }
}

async fn blob_error(s: &Setup) -> Error {
    blob(&client(), &s.reference, &s.layer, &ANON).await.unwrap_err()
}

#[tokio::test]
async fn passing_errors_are_retried_and_lasting_ones_reported() {
    for code in [408, 425, 429, 500, 502, 503, 504] {
        let s = setup(Options::default()).await;
        s.registry.inject_times(When::manifest("v1"), status(code), 2);
        pull(&client(), &s.reference, &ANON).await.unwrap();
        s.registry.clear_requests();
        s.registry.inject(When::manifest("v1"), status(code));
        assert_unavailable(&client().resolve(&s.reference, &ANON).await.unwrap_err());
        assert_eq!(s.registry.requests().len(), 3, "attempts for {code}");
    }
}

#[tokio::test]
async fn other_refusals_are_not_retried() {
    for (code, kind) in [(403, ErrorKind::PermissionDenied), (404, ErrorKind::NotFound), (410, ErrorKind::Unknown)] {
        let s = setup(Options::default()).await;
        s.registry.inject(When::any(), status(code));
        assert_eq!(client().resolve(&s.reference, &ANON).await.unwrap_err().kind(), kind);
        assert_eq!(s.registry.requests().len(), 1, "attempts for {code}");
    }
}

#[tokio::test]
async fn retry_after_is_waited_for_or_ends_the_pull() {
    let s = setup(Options::default()).await;
    s.registry.inject_times(When::any(), Fault::Status { code: 429, retry_after: Some(1) }, 1);
    let start = Instant::now();
    client().resolve(&s.reference, &ANON).await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));

    s.registry.clear_requests();
    s.registry.inject(When::any(), Fault::Status { code: 429, retry_after: Some(3600) });
    let start = Instant::now();
    let e = client().resolve(&s.reference, &ANON).await.unwrap_err();
    assert_unavailable(&e);
    assert!(e.message().contains("3600 s"), "{e}");
    assert!(start.elapsed() < Duration::from_secs(20));
    assert_eq!(s.registry.requests().len(), 1);
}

#[tokio::test]
async fn nobody_there_is_unavailable() {
    let s = setup(Options::default()).await;
    let reference = s.reference.clone();
    drop(s);
    let e = client().resolve(&reference, &ANON).await.unwrap_err();
    assert_unavailable(&e);
    assert!(e.message().contains("cannot be reached"), "{e}");
    let nowhere = Reference::parse("registry.invalid/app:v1").unwrap();
    assert_unavailable(&client().resolve(&nowhere, &ANON).await.unwrap_err());
}

#[tokio::test]
async fn a_dropped_or_late_answer_is_retried() {
    let s = setup(Options::default()).await;
    s.registry.inject_times(When::blob(&s.layer.digest), Fault::Drop, 2);
    assert_eq!(blob(&client(), &s.reference, &s.layer, &ANON).await.unwrap(), s.layer_bytes);

    let mut impatient = config();
    impatient.timeouts.header = Duration::from_secs(1);
    let client = Client::new(impatient).unwrap();
    s.registry.inject_times(When::any(), Fault::DelayHeaders(Duration::from_secs(10)), 1);
    client.resolve(&s.reference, &ANON).await.unwrap();
    s.registry.inject(When::any(), Fault::DelayHeaders(Duration::from_secs(10)));
    let e = client.resolve(&s.reference, &ANON).await.unwrap_err();
    assert_unavailable(&e);
    assert!(e.message().contains("no answer within 1000 ms"), "{e}");
}

#[tokio::test]
async fn a_stream_goes_on_where_it_broke() {
    for fault in [Fault::Truncate { after: 1000 }, Fault::Stall { after: 1000 }] {
        let s = setup(Options::default()).await;
        s.registry.inject_times(When::blob(&s.layer.digest), fault, 2);
        assert_eq!(blob(&client(), &s.reference, &s.layer, &ANON).await.unwrap(), s.layer_bytes);
        let ranges: Vec<_> = s.registry.requests().iter().map(|r| r.header("range").map(str::to_owned)).collect();
        assert_eq!(ranges, [None, Some("bytes=1000-".into()), Some("bytes=2000-".into())]);
        // Nothing was sent twice.
        assert_eq!(s.registry.bytes_served(), s.layer.size);
    }
}

#[tokio::test]
async fn a_registry_without_ranges_is_resumed_too() {
    let s = setup(Options::default()).await;
    s.registry.inject_times(When::blob(&s.layer.digest), Fault::Truncate { after: 1000 }, 1);
    s.registry.inject(When::blob(&s.layer.digest), Fault::NoRange);
    assert_eq!(blob(&client(), &s.reference, &s.layer, &ANON).await.unwrap(), s.layer_bytes);
}

#[tokio::test]
async fn a_stream_that_never_gets_on_ends() {
    for (fault, word) in [(Fault::Truncate { after: 10 }, "broke off"), (Fault::Stall { after: 10 }, "stalled")] {
        let s = setup(Options::default()).await;
        s.registry.inject(When::blob(&s.layer.digest), fault);
        let start = Instant::now();
        let e = blob_error(&s).await;
        assert_unavailable(&e);
        assert!(e.message().contains(word), "{e}");
        assert!(start.elapsed() < Duration::from_secs(20));
    }
}

#[tokio::test]
async fn a_drip_is_a_stall_and_a_slow_stream_is_not() {
    let s = setup(Options::default()).await;
    let drip = Fault::Delay { per_chunk: Duration::from_millis(100), chunk: 10 };
    s.registry.inject(When::blob(&s.layer.digest), drip);
    let start = Instant::now();
    assert!(blob_error(&s).await.message().contains("stalled"));
    assert!(start.elapsed() < Duration::from_secs(20));
    s.registry.clear_faults();
    let slow = Fault::Delay { per_chunk: Duration::from_millis(100), chunk: 20_000 };
    s.registry.inject(When::blob(&s.layer.digest), slow);
    assert_eq!(blob(&client(), &s.reference, &s.layer, &ANON).await.unwrap(), s.layer_bytes);
}

#[tokio::test]
async fn a_slow_reader_is_no_stall() {
    use futures_util::StreamExt;
    let s = setup(Options::default()).await;
    let mut stream = client().blob(&s.reference, &s.layer, &ANON, 0).await.unwrap();
    let mut total = 0;
    while let Some(piece) = stream.next().await {
        total += piece.unwrap().len() as u64;
        if total < 100_000 {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
    assert_eq!(total, s.layer.size);
    assert_eq!(s.registry.requests().len(), 1);
}

#[tokio::test]
async fn wrong_bytes_are_found() {
    let s = setup(Options::default()).await;
    s.registry.inject(When::blob(&s.layer.digest), Fault::Corrupt);
    let e = blob_error(&s).await;
    assert_eq!(e.kind(), ErrorKind::FailedPrecondition);
    assert!(e.message().contains(s.layer.digest.as_str()) && e.message().contains("altered"), "{e}");
    s.registry.inject(When::manifest(s.digest.as_str()), Fault::Corrupt);
    let e = manifest(&client(), &s.reference, &ANON).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::FailedPrecondition);
}

#[tokio::test]
async fn lengths_that_lie_are_found() {
    for fault in [Fault::ContentLength(5), Fault::ContentLength(1 << 40)] {
        let s = setup(Options::default()).await;
        s.registry.inject(When::blob(&s.layer.digest), fault);
        let e = blob_error(&s).await;
        assert_eq!(e.kind(), ErrorKind::FailedPrecondition);
        assert!(e.message().contains("announces"), "{e}");
    }
    for extra in [1, 1 << 20] {
        let s = setup(Options::default()).await;
        s.registry.inject(When::blob(&s.layer.digest), Fault::Extra(extra));
        let e = blob_error(&s).await;
        assert!(e.message().contains("more than the"), "{e}");
    }
    let s = setup(Options::default()).await;
    s.registry.inject(When::blob(&s.layer.digest), Fault::Chunked);
    assert_eq!(blob(&client(), &s.reference, &s.layer, &ANON).await.unwrap(), s.layer_bytes);
    s.registry.inject(When::blob(&s.layer.digest), Fault::Body(bytes::Bytes::from_static(b"short")));
    assert_unavailable(&blob_error(&s).await);
}

#[tokio::test]
async fn manifests_have_a_limit() {
    let s = setup(Options::default()).await;
    let huge = bytes::Bytes::from(vec![b' '; (4 << 20) + 1]);
    for extra in [None, Some(Fault::Chunked)] {
        s.registry.inject(When::manifest("sha256").method(Method::GET), Fault::Body(huge.clone()));
        if let Some(fault) = extra {
            s.registry.inject(When::any(), fault);
        }
        let e = manifest(&client(), &s.reference, &ANON).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::ResourceExhausted);
        assert!(e.message().contains("4194304 bytes"), "{e}");
        s.registry.clear_faults();
    }
}

#[tokio::test]
async fn media_types_that_lie_or_are_too_old_are_refused() {
    let s = setup(Options::default()).await;
    let cases = [
        ("application/vnd.docker.distribution.manifest.v1+prettyjws", "schema 1"),
        ("application/vnd.oci.image.index.v1+json", "the registry declares"),
        ("text/html", "not an image"),
    ];
    for (media_type, why) in cases {
        s.registry.inject(When::path("/manifests/"), Fault::ContentType(media_type.into()));
        let e = manifest(&client(), &s.reference, &ANON).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::FailedPrecondition);
        assert!(e.message().contains(why), "{e}");
        s.registry.clear_faults();
    }
    let with_parameter = format!("{OCI_MANIFEST}; charset=utf-8");
    s.registry.inject(When::path("/manifests/"), Fault::ContentType(with_parameter));
    pull(&client(), &s.reference, &ANON).await.unwrap();
}

#[tokio::test]
async fn a_poor_head_is_made_up_for_by_a_get() {
    let poor = [status(405), status(501), Fault::ContentDigest(String::new()), Fault::ContentDigest("nonsense".into())];
    for fault in poor {
        let s = setup(Options::default()).await;
        s.registry.inject(When::any().method(Method::HEAD), fault);
        let resolved = client().resolve(&s.reference, &ANON).await.unwrap();
        assert_eq!(resolved.digest, s.digest);
        assert_eq!(s.registry.requests().len(), 2);
    }
    // A digest that is a plain lie is found when the manifest is read.
    let s = setup(Options::default()).await;
    s.registry.inject(When::any(), Fault::ContentDigest(sha256(b"lie").to_string()));
    let e = pull(&client(), &s.reference, &ANON).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn redirects_end() {
    let s = setup(Options::default()).await;
    s.registry.inject(When::blob(&s.layer.digest), Fault::RedirectLoop);
    let e = blob_error(&s).await;
    assert_unavailable(&e);
    assert!(e.message().contains("more than 5 times"), "{e}");
    assert_eq!(s.registry.requests().len(), 6);
    for location in ["file:///etc/passwd", "http://169.254.169.254/latest", "http://192.0.2.1/x", "gopher://x/"] {
        s.registry.clear_faults();
        s.registry.inject(When::blob(&s.layer.digest), Fault::Redirect(location.into()));
        let e = blob_error(&s).await;
        assert!(e.message().contains("must not follow"), "{location}: {e}");
    }
}
