//! What a pushing client does, byte by byte over a socket, and what the handle then knows.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // a failed expectation is a failed test

use berth_test_registry::{AuthMode, Entry, ImageBuilder, Layer, OCI_MANIFEST, Options, Registry, TokenAuth, sha256};
use std::io::{Read, Write};
use std::net::TcpStream;

/// One request on a connection of its own: status, headers as text, body.
fn ask(registry: &Registry, request: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(registry.addr()).unwrap();
    write!(stream, "{request}Host: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let split = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..split].to_vec()).unwrap().to_lowercase();
    (head[9..12].parse().unwrap(), head, answer[split + 4..].to_vec())
}

fn location(head: &str) -> &str {
    head.lines().find_map(|l| l.strip_prefix("location: ")).unwrap()
}

#[test]
fn blobs_and_manifests_are_pushed_and_read_back() {
    let registry = Registry::start_blocking(Options::default()).unwrap();
    let (content, digest) = (b"some content".as_slice(), sha256(b"some content"));
    let (status, head, _) = ask(&registry, "POST /v2/a/b/blobs/uploads/ HTTP/1.1\r\n", b"");
    assert_eq!(status, 202);
    let upload = location(&head).to_owned();
    assert_eq!(ask(&registry, &format!("PATCH {upload} HTTP/1.1\r\n"), &content[..5]).0, 202);
    let wrong = format!("PUT {upload}?digest={} HTTP/1.1\r\n", sha256(b"else"));
    assert_eq!(ask(&registry, &wrong, &content[5..]).0, 400);
    // The upload ended with the lie; a whole one in one request works.
    let whole = format!("POST /v2/a/b/blobs/uploads/?digest={digest} HTTP/1.1\r\n");
    assert_eq!(ask(&registry, &whole, content).0, 201);
    let (status, _, body) =
        ask(&registry, &format!("GET /v2/a/b/blobs/{digest} HTTP/1.1\r\nRange: bytes=5-8\r\n"), b"");
    assert_eq!((status, body.as_slice()), (206, &content[5..9]));

    let put = format!("PUT /v2/a/b/manifests/v1 HTTP/1.1\r\nContent-Type: {OCI_MANIFEST}\r\n");
    assert_eq!(ask(&registry, &put, b"{}").0, 201);
    assert_eq!(registry.tag("a/b", "v1"), Some(sha256(b"{}")));
    let (status, head, body) = ask(&registry, "GET /v2/a/b/manifests/v1 HTTP/1.1\r\n", b"");
    assert_eq!((status, body.as_slice()), (200, b"{}".as_slice()));
    assert!(head.contains(&format!("content-type: {OCI_MANIFEST}")) && head.contains("docker-content-digest: sha256:"));
    assert_eq!(ask(&registry, "GET /v2/a/b/tags/list HTTP/1.1\r\n", b"").2, br#"{"name":"a/b","tags":["v1"]}"#);
    assert_eq!(ask(&registry, "GET /v2/ HTTP/1.1\r\n", b"").0, 200);
}

#[test]
fn pushing_needs_a_grant_to_push() {
    let auth = AuthMode::Token(TokenAuth::default());
    let registry = Registry::start_blocking(Options { auth, ..Options::default() }).unwrap();
    let push = |grant: &str| {
        let token = registry.issue_token(&[grant]);
        let request = format!("POST /v2/a/blobs/uploads/ HTTP/1.1\r\nAuthorization: Bearer {token}\r\n");
        ask(&registry, &request, b"").0
    };
    assert_eq!(push("repository:a:push"), 202);
    assert_eq!(push("repository:a:pull"), 401);
    assert_eq!(push("repository:b:push"), 401);
}

#[test]
fn a_stopped_registry_is_gone() {
    let registry = Registry::start_blocking(Options::default()).unwrap();
    let addr = registry.addr();
    drop(registry);
    assert!(TcpStream::connect(addr).is_err());
}

/// GNU tar is the second opinion on our archives: what it lists is what the entries said.
#[test]
fn tar_reads_what_the_builder_wrote() {
    let long = "deep/".repeat(30) + "file";
    let layer = Layer::with_compression(berth_test_registry::Compression::Plain)
        .dir("etc")
        .file("etc/hello", 0o4755, "hello")
        .symlink("link", "../../outside")
        .entries([
            Entry::hard_link("hard", "etc/hello"),
            Entry::char_device("null", 1, 3),
            Entry::fifo("pipe"),
            Entry::whiteout("etc/gone"),
            Entry::opaque("etc"),
            Entry::file(&long, "far"),
            Entry::file("../up", "up").owner(3_000_000_000, 5),
            Entry::zeros("zeros", 1 << 20),
        ]);
    let built = ImageBuilder::new("a", "").layer(layer).build().unwrap();
    assert_eq!(built.layers[0].digest, built.layers[0].diff_id);
    let mut tar = std::process::Command::new("tar")
        .args(["-tvPf", "-", "--numeric-owner"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let blob = built.layers[0].blob.clone();
    let mut stdin = tar.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&blob));
    let output = tar.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let expected = [
        ("drwxr-xr-x", "0/0", " etc/"),
        ("-rwsr-xr-x", "0/0", " 5 2024-01-01"),
        ("lrwxrwxrwx", "0/0", "link -> ../../outside"),
        ("hrw-r--r--", "0/0", "hard link to etc/hello"),
        ("crw-r--r--", "0/0", "1,3"),
        ("prw-r--r--", "0/0", " pipe"),
        ("-rw-r--r--", "0/0", " etc/.wh.gone"),
        ("-rw-r--r--", "0/0", " etc/.wh..wh..opq"),
        ("-rw-r--r--", "0/0", &long),
        ("-rw-r--r--", "3000000000/5", " ../up"),
        ("-rw-r--r--", "0/0", " 1048576 2024-01-01"),
    ];
    assert_eq!(text.lines().count(), expected.len(), "{text}");
    for ((mode, owner, part), line) in expected.into_iter().zip(text.lines()) {
        assert!(
            line.starts_with(&format!("{mode} {owner}")) && line.contains(part),
            "{line} lacks {mode} {owner} {part}"
        );
    }
}
