//! Archives of images between Berth and containerd 2.4: what `berth image export` writes `ctr images import` takes, and the other way
//! round, with the same digests on both sides. No kubelet, no pods but one that shows that what came in runs.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // A case fails by panicking.

use berth_cluster_tests::runtime::{Kind, Runtime, crictl};
use berth_cluster_tests::service::Service;
use berth_cluster_tests::space::NodeSpace;
use berth_cluster_tests::suite::{self, Case};
use berth_cluster_tests::wait::Diagnose;
use berth_cluster_tests::{images, programs, wait_for};
use serde_json::Value;
use std::process::{Command, Stdio};
use std::time::Duration;

const CASES: &[Case<Both>] =
    &[Case::alone("berth_to_containerd", berth_to_containerd), Case::alone("containerd_to_berth", containerd_to_berth)];

/// What goes over: plain and compressed layers.
const IMAGES: [&str; 2] = [images::WEB, images::BUSYBOX];
/// How long containerd's CRI may take to hear of an image.
const FOLLOWS: Duration = Duration::from_secs(30);

/// A node with a runtime and a registry.
struct Node {
    space: Logged,
    registry: Service,
    runtime: Runtime,
}

struct Logged(NodeSpace);

impl Diagnose for Logged {
    fn diagnosis(&self) -> String {
        self.0.log_tails()
    }
}

impl Node {
    fn start(kind: Kind) -> Self {
        let space = Logged(NodeSpace::new());
        let registry = images::start(&space.0, &space);
        let runtime = Runtime::start(&space.0, &space, kind);
        Self { space, registry, runtime }
    }

    /// What a program says on this node; it must succeed.
    fn run(&self, mut command: Command, args: &[&str]) -> String {
        let output = command.args(args).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {said}\n{}", self.space.diagnosis());
        String::from_utf8(output.stdout).unwrap()
    }

    fn berth(&self, args: &[&str]) -> String {
        let mut command = self.space.0.command("tools", programs::berth("berth"));
        command.arg("--root").arg(self.space.0.base().join("berth"));
        self.run(command, args)
    }

    fn ctr(&self, args: &[&str]) -> String {
        let mut command = self.space.0.command("tools", programs::peer("ctr"));
        command.args(["--namespace", "k8s.io"]);
        self.run(command, args)
    }

    /// The image as containerd's CRI shows it: its list follows what `ctr` does by an event.
    fn image_soon(&self, name: &str) -> Value {
        wait_for(&self.space, name, FOLLOWS, || self.image(name).ok_or_else(|| "not yet".to_owned()))
    }

    /// The image as the runtime's CRI shows it.
    fn image(&self, name: &str) -> Option<Value> {
        let text = crictl(&self.space.0, &self.runtime.endpoint(), &["images", "-o", "json"]).unwrap();
        let list: Value = serde_json::from_str(&text).unwrap();
        let mut all = list["images"].as_array().into_iter().flatten();
        all.find(|image| image["repoTags"].as_array().is_some_and(|tags| tags.iter().any(|t| t == name))).cloned()
    }

    fn finish(self) {
        self.runtime.finish(&self.space.0);
        self.registry.kill();
        self.space.0.finish();
    }
}

/// One of each.
struct Both {
    berth: Node,
    containerd: Node,
}

impl Both {
    fn start() -> Self {
        Self { berth: Node::start(Kind::Berth), containerd: Node::start(Kind::Containerd) }
    }

    fn finish(self) {
        self.berth.finish();
        self.containerd.finish();
    }

    /// A path that both nodes see.
    fn file(&self, name: &str) -> String {
        self.berth.space.0.base().join(name).to_str().unwrap().to_owned()
    }
}

fn berth_to_containerd(both: &Both) {
    let file = both.file("ours.tar");
    for image in IMAGES {
        both.berth.berth(&["pull", "-q", image]);
    }
    both.berth.berth(&["image", "export", "-o", &file, IMAGES[0], IMAGES[1]]);
    // It unpacks what it imports, and so compares each layer with the configuration.
    both.containerd.ctr(&["images", "import", &file]);
    for image in IMAGES {
        let (ours, theirs) = (both.berth.image(image).unwrap(), both.containerd.image_soon(image));
        assert_eq!(ours["id"], theirs["id"], "{image}");
        let digest = ours["repoDigests"][0].as_str().unwrap().split_once('@').unwrap().1.to_owned();
        let listed = both.containerd.ctr(&["images", "ls", &format!("name=={image}")]);
        assert!(listed.contains(&digest), "{image} is {digest} here, and there: {listed}");
        both.containerd.ctr(&["images", "rm", "--sync", image]);
    }
}

fn containerd_to_berth(both: &Both) {
    let file = both.file("theirs.tar");
    let mut digests = Vec::new();
    for image in IMAGES {
        both.containerd.ctr(&["images", "pull", "--plain-http", image]);
        digests.push(both.containerd.image_soon(image)["id"].clone());
    }
    both.containerd.ctr(&["images", "export", &file, IMAGES[0], IMAGES[1]]);
    both.berth.berth(&["prune", "-a", "-f"]);
    assert!(IMAGES.iter().all(|image| both.berth.image(image).is_none()));
    let told = both.berth.berth(&["image", "import", &file]);
    for (image, id) in IMAGES.iter().zip(&digests) {
        assert!(told.contains(image), "{told}");
        assert_eq!(both.berth.image(image).unwrap()["id"], *id, "{image}");
    }
    assert_eq!(both.berth.berth(&["run", "--rm", images::BUSYBOX, "echo", "it runs"]), "it runs\n");
}

fn main() {
    berth_cluster_tests::dispatch();
    suite::main(CASES, Both::start, Both::finish);
}
