//! The images that containers of these tests are made of: the static web server, and static busybox beside it.
use berth_node_tests::programs;
use berth_test_registry::{Compression, Entry, ImageBuilder, Layer, Registry};

const BUSYBOX: &str = "/bin/busybox";
/// What scripts of the tests call.
const APPLETS: [&str; 39] = [
    "sh", "cat", "ls", "id", "sleep", "echo", "env", "mount", "umount", "mkdir", "touch", "rm", "ln", "test", "stat",
    "mknod", "chown", "chmod", "ps", "kill", "true", "false", "seq", "dd", "head", "tail", "wc", "grep", "readlink",
    "hostname", "sed", "cp", "mv", "find", "ip", "wget", "nc", "cut", "httpd",
];
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/home/web:/bin/sh\nlow:x:1001:1002::/:/bin/sh\n";
const GROUP: &str = "root:x:0:\nweb:x:1000:\nlow:x:1002:\nextra:x:2000:web\nmore:x:2001:web,low\n";

/// Alone in an empty root; serves on port 80.
pub fn web(repository: &str, tag: &str) -> ImageBuilder {
    let server = std::fs::read(programs().join("berth-web")).unwrap();
    ImageBuilder::new(repository, tag)
        .layer(Layer::with_compression(Compression::Plain).file("web", 0o755, server))
        .entrypoint(["/web"])
}

/// busybox with its names, the web server as /web, users and groups.
pub fn tools(repository: &str, tag: &str) -> ImageBuilder {
    let busybox = std::fs::read(BUSYBOX).unwrap_or_else(|e| panic!("{BUSYBOX} (package busybox-static): {e}"));
    let server = std::fs::read(programs().join("berth-web")).unwrap();
    let base = Layer::with_compression(Compression::Plain)
        .dir("bin")
        .file("bin/busybox", 0o755, busybox)
        .entries(APPLETS.map(|name| Entry::symlink(format!("bin/{name}"), "busybox")))
        .dir("etc")
        .file("etc/passwd", 0o644, PASSWD)
        .file("etc/group", 0o644, GROUP)
        .dir("root")
        .entry(Entry::dir("home"))
        .entry(Entry::dir("home/web").owner(1000, 1000))
        .entry(Entry::dir("tmp").mode(0o1777))
        .file("web", 0o755, server);
    ImageBuilder::new(repository, tag).layer(base).cmd(["/web", "sleep"]).env(["PATH=/bin", "FROM_IMAGE=yes"])
}

/// A registry with `web:v1` and `tools:v1`.
pub async fn registry() -> Registry {
    let registry = Registry::start(berth_test_registry::Options::default()).await.unwrap();
    registry.push_image(&web("web", "v1")).unwrap();
    registry.push_image(&tools("tools", "v1")).unwrap();
    registry
}
