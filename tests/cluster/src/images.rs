//! The registry of a node, on 127.0.0.1:5000 inside it. Owns: what is in it, and the names that pods use. Must not: be reachable from
//! outside the node.
use crate::http;
use crate::programs;
use crate::service::{Recipe, Service};
use crate::space::NodeSpace;
use crate::wait::{Diagnose, wait_for};
use berth_test_registry::{Compression, ImageBuilder, Layer};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where it listens, inside the node.
pub const ADDRESS: &str = "127.0.0.1:5000";
/// The sample web server: serves on port 80, and has small programs as arguments.
pub const WEB: &str = "127.0.0.1:5000/web:v1";
/// A shell and its usual programs.
pub const BUSYBOX: &str = "127.0.0.1:5000/busybox:v1";
/// Kubernetes' own test program: servers and clients of all kinds, with a shell.
pub const AGNHOST: &str = "127.0.0.1:5000/agnhost:v1";
/// Another image, that no pod uses.
pub const SPARE: &str = "127.0.0.1:5000/spare:v1";
/// An image whose configuration names a user that it does not have.
pub const UNKNOWN_USER: &str = "127.0.0.1:5000/ghost:v1";
/// What containerd runs for each pod: a program that does nothing.
pub const PAUSE: &str = "127.0.0.1:5000/pause:v1";
/// A name that the registry does not have.
pub const MISSING: &str = "127.0.0.1:5000/not-there:v1";

/// Starts it and waits until it answers.
pub fn start(space: &NodeSpace, node: &impl Diagnose) -> Service {
    start_with(space, node, &[])
}

/// The same with further images: `NAME:TAG` and the directory of its OCI layout.
pub fn start_with(space: &NodeSpace, node: &impl Diagnose, more: &[(String, PathBuf)]) -> Service {
    let mut recipe = Recipe::new("registry", programs::berth("berth-test-registry")).arg("--listen").arg(ADDRESS);
    let built = programs::path_from_env("BERTH_IMAGES");
    let here = space.base().join("images");
    for (image, name) in [
        (web("web"), "web"),
        // Another image than the first: its configuration differs.
        (web("spare").env(["SPARE=yes"]), "spare"),
        (web("ghost").user("ghost"), "ghost"),
        (web("pause").cmd(["sleep"]), "pause"),
    ] {
        layout(&image, &here.join(name)).unwrap();
    }
    let dirs = ["busybox", "agnhost"].map(|name| (name, &built)).into_iter();
    for (name, dir) in dirs.chain(["web", "spare", "ghost", "pause"].map(|name| (name, &here))) {
        recipe = recipe.arg("--layout").arg(format!("{name}:v1={}", dir.join(name).display()));
    }
    for (name, dir) in more {
        recipe = recipe.arg("--layout").arg(format!("{name}={}", dir.display()));
    }
    let service = Service::start(space, recipe);
    wait_for(node, "the registry answers", Duration::from_secs(60), || {
        http::get(space, ADDRESS, "/v2/").map_err(|e| e.to_string())
    });
    service
}

fn web(name: &str) -> ImageBuilder {
    let server = std::fs::read(programs::berth("berth-web")).unwrap();
    let layer = Layer::with_compression(Compression::Plain).file("web", 0o755, server);
    ImageBuilder::new(name, "v1").layer(layer).entrypoint(["/web"])
}

fn layout(image: &ImageBuilder, dir: &Path) -> io::Result<()> {
    image.build()?.write_layout(dir, "v1")
}
