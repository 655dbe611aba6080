//! Pushes: to Debian's docker-registry, and to one that misbehaves on purpose. Needs root and the package docker-registry.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test that cannot go on must stop")]

use crate::images::{Bench, noise};
use berth_images::{Evidence, PullRequest, PushOutcome, PushRequest, Source};
use berth_model::{ErrorKind, Reference, Result};
use berth_registry::Auth;
use berth_test_registry::{AuthMode, Compression, Fault, ImageBuilder, Layer, Options, Registry, TokenAuth, When};
use http::Method;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

/// Debian's docker-registry on a free port, with its content in a directory of its own.
struct Distribution {
    child: Child,
    port: u16,
    _directory: tempfile::TempDir,
}

impl Distribution {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = directory.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}/data}}\nhttp: {{addr: 127.0.0.1:{port}}}\n",
            directory.path().display()
        );
        std::fs::write(&config, text).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the package docker-registry");
        let end = Instant::now() + Duration::from_secs(20);
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            assert!(Instant::now() < end, "docker-registry does not answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self { child, port, _directory: directory }
    }

    fn reference(&self, name: &str) -> Reference {
        Reference::parse(&format!("127.0.0.1:{}/{name}", self.port)).unwrap()
    }
}

impl Drop for Distribution {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn push(bench: &Bench, image: &str, target: &Reference, auth: Auth) -> Result<PushOutcome> {
    let request = PushRequest { image: image.to_owned(), target: target.clone(), auth, progress: None };
    bench.images.push(request).await
}

/// Several layers in all compressions, one larger than what is sent at once.
fn large(repository: &str) -> ImageBuilder {
    ImageBuilder::new(repository, "v1")
        .layer(Layer::with_compression(Compression::Plain).file("big", 0o644, noise(20 << 20)))
        .layer(Layer::with_compression(Compression::Gzip).file("small", 0o644, noise(1000)))
        .layer(Layer::with_compression(Compression::Zstd).file("other", 0o644, "o"))
}

async fn pull(bench: &Bench, reference: &Reference) -> berth_model::Digest {
    let digest = bench.images.resolve(reference, &Auth::Anonymous).await.unwrap().digest;
    let source = Source { reference: reference.clone(), registry: reference.host().into(), digest: digest.clone() };
    let evidence = Evidence { sources: vec![source], verified_keys: vec![] };
    let request = PullRequest {
        reference: reference.clone(),
        digest: digest.clone(),
        platform: berth_registry::Platform::host(),
        auth: Auth::Anonymous,
        evidence,
        progress: None,
        log: Default::default(),
    };
    let image = bench.images.fetch(request).await.unwrap();
    assert_eq!(image.manifest_digest, digest);
    image.id.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn debians_registry_gets_what_it_lacks_and_gives_it_back() {
    let (bench, registry) = (Bench::new().await, Distribution::start().await);
    let image = bench.push_and_pull(&large("app"), "app:v1").await;
    let source = bench.reference("app:v1").to_string();
    let target = registry.reference("one/app:v1");
    let outcome = push(&bench, &source, &target, Auth::Anonymous).await.unwrap();
    assert_eq!((&outcome.digest, outcome.index, outcome.blobs), (&image.manifest_digest, false, [0, 0, 4]));
    assert!(outcome.sent > 20 << 20);
    let again = push(&bench, &source, &target, Auth::Anonymous).await.unwrap();
    assert_eq!(
        (again.digest, again.blobs, again.sent),
        (outcome.digest.clone(), [4, 0, 0], 0),
        "nothing is sent twice"
    );
    // With a name there, what another repository needs is mounted from it.
    bench.images.tag(&source, &target).await.unwrap();
    let elsewhere = registry.reference("two/app:v2");
    let mounted = push(&bench, image.id.as_str(), &elsewhere, Auth::Anonymous).await.unwrap();
    assert_eq!((mounted.blobs, mounted.sent), ([0, 4, 0], 0));
    let other = Bench::new().await;
    assert_eq!(pull(&other, &target).await, image.id);
    assert_eq!(pull(&other, &elsewhere).await, image.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_uploads_go_on_where_they_were() {
    let bench = Bench::new().await;
    let image = bench.push_and_pull(&large("app"), "app:v1").await;
    let source = bench.reference("app:v1").to_string();
    let registry = Registry::start(Options::default()).await.unwrap();
    let target = Reference::parse(&registry.reference("copy:v1")).unwrap();
    let uploads = || When::path("/blobs/uploads/");
    registry.inject_times(uploads().method(Method::PATCH), Fault::Drop, 1);
    registry.inject_times(uploads().method(Method::PUT), Fault::Status { code: 503, retry_after: Some(0) }, 1);
    registry.inject_times(uploads().method(Method::POST), Fault::Status { code: 429, retry_after: Some(0) }, 1);
    registry.inject_times(When::path("/manifests/").method(Method::PUT), Fault::Drop, 1);
    let outcome = push(&bench, &source, &target, Auth::Anonymous).await.unwrap();
    assert_eq!(outcome.digest, image.manifest_digest);
    assert_eq!(registry.tag("copy", "v1").unwrap(), image.manifest_digest);
    let other = Bench::new().await;
    assert_eq!(pull(&other, &target).await, image.id, "every blob arrived whole");
    // A registry that says it received something else.
    let liar = Registry::start(Options::default()).await.unwrap();
    let wrong = format!("sha256:{}", "5".repeat(64));
    liar.inject(When::path("/blobs/uploads/").method(Method::PUT), Fault::ContentDigest(wrong));
    let target = Reference::parse(&liar.reference("copy:v1")).unwrap();
    let error = push(&bench, &source, &target, Auth::Anonymous).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::FailedPrecondition && error.message().contains("received sha256:5555"),
        "{error}"
    );
    assert_eq!(liar.tag("copy", "v1"), None, "no manifest names what is not there");
    // One that never recovers is given up.
    liar.clear_faults();
    liar.inject(When::path("/blobs/uploads/"), Fault::Status { code: 500, retry_after: None });
    let error = push(&bench, &source, &target, Auth::Anonymous).await.unwrap_err();
    assert!(error.message().contains("answers 500"), "{error}");
}

/// A registry that opens uploads at a place of the test's choice and takes one byte of each chunk.
struct Grudging {
    port: u16,
    /// Requests, by their method.
    seen: Arc<Mutex<Vec<String>>>,
}

impl Grudging {
    async fn start(location: &'static str) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let requests = seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, location, requests.clone()));
            }
        });
        Self { port, seen }
    }

    fn count(&self, method: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|m| *m == method).count()
    }
}

async fn answer(stream: tokio::net::TcpStream, location: &'static str, seen: Arc<Mutex<Vec<String>>>) {
    let mut stream = BufReader::new(stream);
    let (mut method, mut length, mut start) = (String::new(), 0, 0_u64);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
            return;
        }
        if method.is_empty() {
            method = line.split(' ').next().unwrap().to_owned();
        }
        let lower = line.to_ascii_lowercase();
        length = lower.strip_prefix("content-length: ").map_or(length, |n| n.trim().parse().unwrap());
        start = lower.strip_prefix("content-range: ").map_or(start, |r| r.split('-').next().unwrap().parse().unwrap());
        if line == "\r\n" {
            break;
        }
    }
    let _ = tokio::io::copy(&mut (&mut stream).take(length), &mut tokio::io::sink()).await;
    let status = match method.as_str() {
        "HEAD" => "404 Not Found",
        "GET" => "200 OK",
        _ => "202 Accepted",
    };
    seen.lock().unwrap().push(method);
    let text = format!(
        "HTTP/1.1 {status}\r\nLocation: {location}\r\nRange: 0-{}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        start + 1
    );
    let _ = stream.write_all(text.as_bytes()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_get_nowhere_end_and_those_led_elsewhere_are_not_followed() {
    let bench = Bench::new().await;
    bench.push_and_pull(&large("app"), "app:v1").await;
    let source = bench.reference("app:v1").to_string();
    // A byte or two of each chunk: at this rate the blob would take millions of requests.
    let registry = Grudging::start("/v2/copy/blobs/uploads/1").await;
    let target = Reference::parse(&format!("127.0.0.1:{}/copy:v1", registry.port)).unwrap();
    let pushing = tokio::time::timeout(Duration::from_secs(30), push(&bench, &source, &target, Auth::Anonymous));
    let error = pushing.await.expect("it is followed without end").unwrap_err();
    assert!(error.message().contains("next to nothing"), "{error}");
    let chunks = registry.count("PATCH");
    assert!((4..100).contains(&chunks), "{chunks} requests");
    // Plain HTTP on this host may not send the blob to another host in plain HTTP.
    let registry = Grudging::start("http://169.254.169.254/latest").await;
    let target = Reference::parse(&format!("127.0.0.1:{}/copy:v1", registry.port)).unwrap();
    let error = push(&bench, &source, &target, Auth::Anonymous).await.unwrap_err();
    assert!(error.message().contains("must not follow"), "{error}");
    assert_eq!((registry.count("PATCH"), registry.count("PUT")), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn pushing_needs_the_right_to_push() {
    let bench = Bench::new().await;
    bench.push_and_pull(&ImageBuilder::new("app", "v1").layer(Layer::new().file("f", 0o644, "f")), "app:v1").await;
    let source = bench.reference("app:v1").to_string();
    let auth = AuthMode::Token(TokenAuth { anonymous_pull: true, ..TokenAuth::default() });
    let registry = Registry::start(Options { auth, ..Options::default() }).await.unwrap();
    let target = Reference::parse(&registry.reference("copy:v1")).unwrap();
    let error = push(&bench, &source, &target, Auth::Anonymous).await.unwrap_err();
    assert!(error.kind() == ErrorKind::PermissionDenied && error.message().contains("credentials"), "{error}");
    let wrong = Auth::Basic { username: "user".into(), password: "wrong-password".into() };
    let error = push(&bench, &source, &target, wrong).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(!error.message().contains("wrong-password"), "{error}");
    let right = Auth::Basic { username: "user".into(), password: "secret".into() };
    push(&bench, &source, &target, right).await.unwrap();
    assert!(registry.tag("copy", "v1").is_some());
    let error = push(&bench, "nobody/has:this", &target, Auth::Anonymous).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}
