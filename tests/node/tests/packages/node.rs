//! The node that a package is installed on, seen as its administrator sees it: systemd, the command `berth`, the kernel.
use crate::daemon::{host, images};
use berth_node_tests::path_from_env;
use berth_test_registry::Registry;
use std::process::Command;
use std::time::{Duration, Instant};

/// Starting a daemon may take that long in the guest.
const LIMIT: Duration = Duration::from_secs(60);
/// The built-in network, as a machine without CNI needs it.
pub const NETWORK: &str = "apiVersion: berth.dev/v1alpha1\nkind: RuntimeConfig\nmetadata: {name: network}\n\
    spec: {network: {mode: Builtin, subnet: 10.97.3.0/24}}\n";

/// The guest's root is an overlay, which cannot be below another one: /var/lib becomes part of the tmpfs at /tmp, unless it is the disk's
/// already.
pub fn prepare() {
    if std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(" /var/lib ") {
        return;
    }
    host("cp", &["-a", "/var/lib", "/tmp/var-lib"]);
    host("mount", &["--bind", "/tmp/var-lib", "/var/lib"]);
}

/// A registry in this process.
pub struct Images {
    registry: Registry,
    _runtime: tokio::runtime::Runtime,
}

impl Images {
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let registry = runtime.block_on(images::registry());
        Self { registry, _runtime: runtime }
    }

    pub fn tools(&self) -> String {
        self.registry.reference("tools:v1")
    }
}

/// What systemctl says; it must succeed.
pub fn systemctl(args: &[&str]) -> String {
    host("systemctl", args).trim().to_owned()
}

/// Whether the service is active, in systemd's word.
pub fn state() -> String {
    let output = Command::new("systemctl").args(["is-active", "berth.service"]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Process id of the daemon that the service runs.
pub fn daemon() -> i32 {
    systemctl(&["show", "--value", "-p", "MainPID", "berth.service"]).parse().unwrap()
}

/// Units of ours that systemd still knows.
pub fn units() -> String {
    host("systemctl", &["list-units", "--all", "--plain", "--no-legend", "berth*"]).trim().to_owned()
}

/// Waits until the daemon answers.
pub fn answers() {
    let end = Instant::now() + LIMIT;
    while !Command::new("berth").arg("info").output().unwrap().status.success() {
        let log = || host("journalctl", &["--no-pager", "--lines=40", "--unit=berth.service"]);
        assert!(Instant::now() < end, "the daemon does not answer: {}", log());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// crictl on this node.
pub fn crictl() -> Command {
    let mut command = Command::new(path_from_env("BERTH_CRICTL"));
    let endpoint = "unix:///run/berth/berth.sock";
    command.args(["--timeout=60s", "--runtime-endpoint", endpoint, "--image-endpoint", endpoint]);
    command
}

/// What crictl says; it must succeed.
pub fn ask(args: &[&str]) -> String {
    let output = crictl().args(args).output().unwrap();
    assert!(output.status.success(), "crictl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Runs a command in a container.
pub fn exec(container: &str, command: &[&str]) -> String {
    ask(&[&["exec", container], command].concat())
}
