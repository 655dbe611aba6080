//! A node whose kubelet systemd runs on containerd, laid out as kubeadm or as others lay it out, and its way to Berth and back. The system's
//! own root: what a node has only once.
//!
//! Owns: units, configuration, containerd, and what is asked of them. Must not: know single cases, or help the way back along.
mod layout;
mod leaver;
mod seen;

pub use layout::Layout;
pub use leaver::Leaver;
pub use seen::{Seen, counted, main_process};

use crate::daemon::{host, uml};
use crate::packages::node::{Images, prepare};
use berth_node_tests::{path_from_env, programs};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// For one thing to happen: the guest is slow, and a kubelet first ends what it was told of before.
const LIMIT: Duration = Duration::from_secs(180);
pub const JOURNAL: &str = "/var/lib/berth/adopt/journal";
pub const UNIT_FILE: &str = "/etc/systemd/system/berth.service";
/// Addresses of pods on Berth.
pub const SUBNET: &str = "10.94.1.0/24";
const HOLD: &str = "/tmp/adopt.hold";
const CONTAINERD: &str = "/run/containerd/containerd.sock";
const BERTH: &str = "/run/berth/berth.sock";

/// The system's root is there once: tests of one program take turns.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A node on containerd, with the static pod `web`.
pub struct Node {
    layout: Layout,
    images: Images,
}

impl Node {
    pub fn start(layout: Layout) -> Self {
        prepare();
        surroundings();
        let node = Self { layout, images: Images::start() };
        layout::containerd(&node.images.tools());
        fs::create_dir_all("/etc/berth").unwrap();
        let document = format!(
            "apiVersion: berth.dev/v1alpha1\nkind: RuntimeConfig\nmetadata: {{name: node}}\n\
             spec: {{network: {{mode: Builtin, subnet: {SUBNET}}}}}\n"
        );
        fs::write("/etc/berth/50-node.yaml", document).unwrap();
        node.layout.write();
        layout::pod(&node.images.tools());
        systemctl(&["daemon-reload"]);
        systemctl(&["start", "containerd.service"]);
        systemctl(&["start", "kubelet.service"]);
        node.is_on("containerd");
        node
    }

    /// The same node after another boot, on which systemd has started what it was told to, and nobody anything else.
    pub fn booted(layout: Layout) -> Self {
        surroundings();
        Self { layout, images: Images::start() }
    }

    /// Has systemd start kubelet and containerd with the machine.
    pub fn starts_with_the_machine(&self) {
        layout::at_boot();
    }

    /// Every file that the kubelet's way to its runtime depends on.
    pub fn files(&self) -> BTreeMap<PathBuf, (Vec<u8>, u32)> {
        layout::files()
    }

    /// `berth WORDS`.
    pub fn berth(&self, words: &[&str]) -> Command {
        let mut command = Command::new(programs().join("berth"));
        command.args(words).stdin(Stdio::null());
        command
    }

    /// Takes it over.
    pub fn take_over(&self) -> Value {
        done(self.berth(&START).output().unwrap())
    }

    /// The same with programs that lie in the directory of the version that they are.
    pub fn take_over_as(&self, version: &str) -> Value {
        let name = format!("--version-name={version}");
        let words = START.map(|word| if word == VERSION { name.as_str() } else { word });
        done(self.berth(&words).output().unwrap())
    }

    pub fn give_back(&self) -> Value {
        done(self.berth(&RETURN).output().unwrap())
    }

    pub fn status(&self) -> Value {
        done(self.berth(&["adopt", "status", "-o", "json"]).output().unwrap())
    }

    /// Starts `berth WORDS`, and waits until it is at the place `DIRECTION/STEP/EDGE`, where it stays until [`Node::release`].
    pub fn held_at(&self, words: &[&str], place: &str) -> Child {
        let reached = format!("{HOLD}.reached");
        fs::write(HOLD, "").unwrap();
        let _ = fs::remove_file(&reached);
        let log = fs::File::create("/tmp/adopt.log").unwrap();
        let mut command = self.berth(words);
        command.env("BERTH_HOLD", format!("{place}={HOLD}")).stdout(log.try_clone().unwrap()).stderr(log);
        let mut child = command.spawn().unwrap();
        wait(&format!("it is at {place}"), || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("it ended with {status} before {place}: {}", fs::read_to_string("/tmp/adopt.log").unwrap());
            }
            if Path::new(&reached).exists() { Ok(()) } else { Err("not yet".to_owned()) }
        });
        child
    }

    pub fn release(&self) {
        fs::remove_file(HOLD).unwrap();
    }

    /// SIGKILL at this place.
    pub fn killed_at(&self, words: &[&str], place: &str) {
        let mut child = self.held_at(words, place);
        child.kill().unwrap();
        child.wait().unwrap();
        self.release();
    }

    /// Waits until nobody does anything any more, and gives the phase.
    pub fn settled(&self) -> String {
        wait("the operation is over", || {
            let status = self.status();
            let phase = status["phase"].as_str().unwrap_or_default().to_owned();
            let over = ["adopted", "returned", "not-adopted"].contains(&phase.as_str()) && status["holder"].is_null();
            if over { Ok(phase) } else { Err(status.to_string()) }
        })
    }

    /// Waits until the node's own pod is ready on this runtime.
    pub fn is_on(&self, runtime: &str) -> Value {
        wait(&format!("the pod is ready on {runtime}"), || {
            let list = layout::pods().ok_or_else(|| "the kubelet does not answer".to_owned())?;
            let mut pods = list["items"].as_array().cloned().unwrap_or_default();
            pods.retain(|pod| !leaver::is_one(pod));
            let status = |pod: &Value| pod["status"]["containerStatuses"][0].clone();
            let on = |pod: &Value| {
                let id = status(pod)["containerID"].as_str().unwrap_or_default().to_owned();
                id.starts_with(&format!("{runtime}://")) && status(pod)["ready"] == true
            };
            match &pods[..] {
                [pod] if on(pod) => Ok(pod.clone()),
                _ => Err(list.to_string()),
            }
        })
    }

    /// `crictl` against Berth.
    pub fn crictl(&self, words: &[&str]) -> Command {
        let endpoint = format!("unix://{BERTH}");
        let mut command = Command::new(path_from_env("BERTH_CRICTL"));
        command.args(["--timeout=30s", "--runtime-endpoint", &endpoint, "--image-endpoint", &endpoint]).args(words);
        command
    }

    /// What Berth says of a container.
    pub fn inspected(&self, container: &str) -> Value {
        done(self.crictl(&["inspect", container]).output().unwrap())
    }

    /// Nothing of Berth runs, is installed, or is known to systemd; the files are as they were.
    pub fn is_untouched(&self, before: &BTreeMap<PathBuf, (Vec<u8>, u32)>) {
        let now = self.files();
        assert_eq!(now.keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
        let changed: Vec<_> = now.iter().filter(|(path, file)| before[*path] != **file).map(|(path, _)| path).collect();
        assert!(changed.is_empty(), "not as they were: {changed:?}");
        wait("nothing of Berth is left", || {
            let left = seen::left_of_berth();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        });
    }

    /// The end: nothing of the node's is left for the next one.
    pub fn finish(self) {
        layout::withdraw(layout::POD);
        wait("the kubelet has ended its pod", || match layout::pods() {
            Some(list) if list["items"].as_array().is_none_or(Vec::is_empty) => Ok(()),
            other => Err(format!("{other:?}")),
        });
        for unit in ["kubelet.service", "containerd.service"] {
            systemctl(&["stop", unit]);
        }
        self.layout.remove();
        let _ = fs::remove_dir_all("/var/lib/berth");
        let _ = fs::remove_dir_all("/etc/berth");
    }
}

/// What every node has, and what here no disk keeps.
fn surroundings() {
    uml::prepare_for_kubelet();
    fs::write("/tmp/resolv.conf", "nameserver 10.96.0.10\n").unwrap();
}

/// The words that take it over.
pub const START: [&str; 7] = ["adopt", "start", "--without-grant", "--deadline=600s", VERSION, "-o", "json"];
const VERSION: &str = "--version-name=one";
/// The words that give it back.
pub const RETURN: [&str; 5] = ["adopt", "return", "--without-grant", "-o", "json"];

/// What systemctl does; it must succeed.
pub fn systemctl(words: &[&str]) -> String {
    host("systemctl", words).trim().to_owned()
}

/// What an ended program said in JSON; it must have succeeded.
pub fn done(output: Output) -> Value {
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {told}\n{}", output.status, layout::logs());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {told}"))
}

/// Waits until the condition gives something.
pub fn wait<T>(what: &str, mut condition: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + LIMIT;
    loop {
        match condition() {
            Ok(value) => return value,
            Err(last) if Instant::now() > end => panic!("waited in vain: {what}: {last}\n{}", layout::logs()),
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}
