//! The registry of a node, on 127.0.0.1:5000 inside it. Owns: what is in it, and the names that pods use. Must not: be reachable from
//! outside the node.
use crate::http;
use crate::programs;
use crate::service::{Recipe, Service};
use crate::space::NodeSpace;
use crate::wait::{Diagnose, wait_for};
use berth_test_registry::{Compression, Entry, ImageBuilder, Layer, Options, Registry};
use std::io;
use std::time::Duration;

/// First argument: become the registry.
pub const SERVE: &str = "--serve-images";
const PORT: u16 = 5000;
/// Where it listens, inside the node.
pub const ADDRESS: &str = "127.0.0.1:5000";
/// The sample web server: serves on port 80, and has small programs as arguments.
pub const WEB: &str = "127.0.0.1:5000/web:v1";
/// A shell and its usual programs.
pub const BUSYBOX: &str = "127.0.0.1:5000/busybox:v1";
/// A name that the registry does not have.
pub const MISSING: &str = "127.0.0.1:5000/not-there:v1";

const APPLETS: [&str; 45] = [
    "sh",
    "cat",
    "ls",
    "id",
    "sleep",
    "echo",
    "env",
    "mount",
    "umount",
    "mkdir",
    "touch",
    "rm",
    "ln",
    "test",
    "stat",
    "tar",
    "mknod",
    "chown",
    "chmod",
    "ps",
    "kill",
    "true",
    "false",
    "seq",
    "dd",
    "head",
    "tail",
    "wc",
    "grep",
    "readlink",
    "stty",
    "hostname",
    "sed",
    "cp",
    "mv",
    "find",
    "ip",
    "wget",
    "nc",
    "cut",
    "httpd",
    "md5sum",
    "sha256sum",
    "tee",
    "yes",
];

/// Starts it and waits until it answers.
pub fn start(space: &NodeSpace, node: &impl Diagnose) -> Service {
    let this = std::env::current_exe().unwrap();
    let service = Service::start(space, Recipe::new("registry", this).arg(SERVE));
    wait_for(node, "the registry answers", Duration::from_secs(20), || {
        http::get(space, ADDRESS, "/v2/").map_err(|e| e.to_string())
    });
    service
}

/// The registry itself, until it is killed.
pub fn serve() -> io::Result<()> {
    let registry = Registry::start_blocking(Options { port: PORT, ..Options::default() })?;
    registry.push_image(&web()?)?;
    registry.push_image(&busybox()?)?;
    loop {
        std::thread::park();
    }
}

fn web() -> io::Result<ImageBuilder> {
    let server = std::fs::read(programs::berth("berth-web"))?;
    let layer = Layer::with_compression(Compression::Plain).file("web", 0o755, server);
    Ok(ImageBuilder::new("web", "v1").layer(layer).entrypoint(["/web"]))
}

fn busybox() -> io::Result<ImageBuilder> {
    let busybox = std::fs::read("/bin/busybox")?;
    let server = std::fs::read(programs::berth("berth-web"))?;
    let layer = Layer::with_compression(Compression::Plain)
        .dir("bin")
        .file("bin/busybox", 0o755, busybox)
        .entries(APPLETS.map(|name| Entry::symlink(format!("bin/{name}"), "busybox")))
        .file("web", 0o755, server)
        .dir("etc")
        .file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/:/bin/sh\n")
        .file("etc/group", 0o644, "root:x:0:\nweb:x:1000:\n")
        .entry(Entry::dir("tmp").mode(0o1777));
    Ok(ImageBuilder::new("busybox", "v1").layer(layer).cmd(["sh"]).env(["PATH=/bin"]))
}
