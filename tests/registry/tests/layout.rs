//! Layouts and the program that serves them: written, served as a client asks for them, and refused when damaged.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // a failed expectation is a failed test

use berth_test_registry::{BuiltImage, ImageBuilder, Layer, OCI_MANIFEST, Options, Registry};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A directory that goes away with the test.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("berth-layout-{}-{name}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn layout(&self, name: &str, content: &str) -> (PathBuf, BuiltImage) {
        let built = ImageBuilder::new(name, "v1").layer(Layer::new().file("f", 0o644, content)).build().unwrap();
        built.write_layout(&self.0.join(name), "v1").unwrap();
        (self.0.join(name), built)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the program, and returns what it said and where it listens.
fn serve(layouts: &[String]) -> (Server, Vec<String>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_berth-test-registry"));
    command.args(["--listen", "127.0.0.1:0"]).args(layouts.iter().flat_map(|l| ["--layout", l]));
    let mut server = Server(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut said = Vec::new();
    for line in BufReader::new(server.0.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some(url) = line.strip_prefix("listening on http://") {
            return (server, said, url.to_owned());
        }
        said.push(line);
    }
    panic!("it ended, and had said {said:?}");
}

fn ask(addr: &str, request: &str, headers: &str) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(addr).unwrap();
    write!(stream, "{request} HTTP/1.1\r\n{headers}Host: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let split = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..split].to_vec()).unwrap().to_lowercase();
    (head[9..12].parse().unwrap(), head, answer[split + 4..].to_vec())
}

fn with_name(name: &str, dir: &Path) -> String {
    format!("{name}={}", dir.display())
}

#[test]
fn the_program_serves_layouts_by_tag_and_digest_with_ranges() {
    let dir = Dir::new("serve");
    let (one, built) = dir.layout("one", "first");
    let (two, _) = dir.layout("two", "second");
    let (_server, said, addr) = serve(&[with_name("a/one", &one), with_name("two:other", &two)]);
    assert_eq!(said.first(), Some(&format!("{addr}/a/one:v1@{}", built.digest)));
    for reference in ["v1", built.digest.as_str()] {
        let path = format!("/v2/a/one/manifests/{reference}");
        let (status, head, body) = ask(&addr, &format!("GET {path}"), "");
        assert_eq!((status, body), (200, built.manifest.to_vec()));
        assert!(head.contains(OCI_MANIFEST) && head.contains(built.digest.as_str()), "{head}");
        let (status, head, body) = ask(&addr, &format!("HEAD {path}"), "");
        assert_eq!((status, body.len()), (200, 0));
        assert!(head.contains(&format!("content-length: {}", built.manifest.len())), "{head}");
    }
    let layer = &built.layers[0];
    let (status, _, body) = ask(&addr, &format!("GET /v2/a/one/blobs/{}", layer.digest), "Range: bytes=3-\r\n");
    assert_eq!((status, body.as_slice()), (206, &layer.blob[3..]));
    let (status, _, body) = ask(&addr, &format!("GET /v2/a/one/blobs/{}", built.config_digest), "");
    assert_eq!((status, body), (200, built.config.to_vec()));
    assert_eq!(ask(&addr, "GET /v2/two/manifests/other", "").0, 200);
    assert_eq!(ask(&addr, "GET /v2/two/manifests/v1", "").0, 404);
}

#[test]
fn equal_images_make_equal_layouts() {
    let dir = Dir::new("equal");
    let (one, built) = dir.layout("one", "same");
    let other = dir.0.join("other");
    ImageBuilder::new("x", "v1")
        .layer(Layer::new().file("f", 0o644, "same"))
        .build()
        .unwrap()
        .write_layout(&other, "v1")
        .unwrap();
    assert_eq!(std::fs::read(one.join("index.json")).unwrap(), std::fs::read(other.join("index.json")).unwrap());
    assert!(other.join("blobs").join(built.digest.as_str().replace(':', "/")).is_file());
}

#[tokio::test]
async fn damaged_layouts_are_refused_with_the_file_in_the_message() {
    let dir = Dir::new("damaged");
    let registry = Registry::start(Options::default()).await.unwrap();
    let (one, built) = dir.layout("one", "content");
    let blob = one.join("blobs").join(built.layers[0].digest.as_str().replace(':', "/"));
    std::fs::write(&blob, "something else").unwrap();
    let told = registry.push_layout("one", None, &one).unwrap_err().to_string();
    assert!(told.contains("another digest") && told.contains(&blob.display().to_string()), "{told}");
    std::fs::remove_file(&blob).unwrap();
    let told = registry.push_layout("one", None, &one).unwrap_err().to_string();
    assert!(told.contains(&blob.display().to_string()), "{told}");
    let told = registry.push_layout("one", None, &dir.0).unwrap_err().to_string();
    assert!(told.contains("index.json"), "{told}");
    assert_eq!(registry.tag("one", "v1"), None);
}
