//! `berth doctor` on a machine that runs out of something for real: processes, open files, inotify instances, tracked connections, memory;
//! and one with swap. Each limit is put back before anything is asserted. Runs in the guest tier, whose machine nobody else uses.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

mod daemon;

use berth_node_tests::programs;
use daemon::doctor::{Report, report};
use daemon::host;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn doctor(root: &Path, check: &str) -> Report {
    let mut ask = Command::new(programs().join("berth"));
    ask.arg("--root").arg(root).args(["doctor", "-o", "json", check]);
    report(ask)
}

fn number(path: &str) -> u64 {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{path}: {e}"));
    text.split_whitespace().next().unwrap().parse().unwrap()
}

/// A limit of the kernel, lowered; the former value comes back.
struct Lowered(PathBuf, String);

impl Lowered {
    fn to(path: &str, value: u64) -> Self {
        let former = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{path}: {e}"));
        std::fs::write(path, value.to_string()).unwrap_or_else(|e| panic!("{path} = {value}: {e}"));
        Self(path.into(), former)
    }
}

impl Drop for Lowered {
    fn drop(&mut self) {
        std::fs::write(&self.0, self.1.trim()).unwrap();
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn guest_doctor_finds_what_the_kernel_runs_out_of() {
    let root = tempfile::tempdir().unwrap();
    for (check, ids) in
        [("pids", ["pid-max"].as_slice()), ("files", &["files-low", "inotify-low"]), ("network", &["conntrack-full"])]
    {
        let found = doctor(root.path(), check);
        assert!(!found.ids().iter().any(|id| ids.contains(id)), "{:?}", found.findings);
    }
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    let threads: u64 = load.split_whitespace().nth(3).unwrap().split_once('/').unwrap().1.parse().unwrap();
    let lowered = Lowered::to("/proc/sys/kernel/threads-max", threads + threads / 20 + 5);
    let found = doctor(root.path(), "pids");
    drop(lowered);
    found.finding("pid-max", &["threads run"]);

    let open = number("/proc/sys/fs/file-nr");
    let lowered = Lowered::to("/proc/sys/fs/file-max", open + open / 20);
    let found = doctor(root.path(), "files");
    drop(lowered);
    found.finding("files-low", &["files are open"]);

    // systemd alone has some.
    let lowered = Lowered::to("/proc/sys/fs/inotify/max_user_instances", 1);
    let found = doctor(root.path(), "files");
    drop(lowered);
    found.finding("inotify-low", &["max_user_instances is 1"]);

    // Tracking begins with a rule that asks for it.
    host("nft", &["add table ip track"]);
    host("nft", &["add chain ip track out { type filter hook output priority 0; ct state invalid counter; }"]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let streams: Vec<_> =
        (0..20).map(|_| std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap()).collect();
    let tracked = number("/proc/sys/net/netfilter/nf_conntrack_count");
    let lowered = Lowered::to("/proc/sys/net/netfilter/nf_conntrack_max", tracked + tracked / 20);
    let found = doctor(root.path(), "network");
    drop(lowered);
    host("nft", &["delete table ip track"]);
    drop(streams);
    found.finding("conntrack-full", &["connections are tracked"]);
}

#[test]
fn guest_doctor_finds_little_memory() {
    let root = tempfile::tempdir().unwrap();
    assert!(!doctor(root.path(), "memory").ids().contains(&"memory-low"));
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().to_str().unwrap();
    host("mount", &["-t", "tmpfs", "-o", "size=100%", "tmpfs", at]);
    let field = |name: &str| -> u64 {
        let text = std::fs::read_to_string("/proc/meminfo").unwrap();
        let line = text.lines().find_map(|l| l.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches("kB").trim().parse().unwrap()
    };
    // All but four of a hundred parts; the kernel still has what it needs.
    let (available, total) = (field("MemAvailable:"), field("MemTotal:"));
    let ballast = available.saturating_sub(total * 4 / 100);
    let filled = Command::new("fallocate").args(["-l", &format!("{ballast}KiB"), &format!("{at}/ballast")]).status();
    let found = doctor(root.path(), "memory");
    host("umount", &[at]);
    assert!(filled.unwrap().success());
    found.finding("memory-low", &["are available"]);
}

/// The device manager looks at the device after the swap is off, and for so long it is busy.
fn reset(device: &str) {
    let end = Instant::now() + Duration::from_secs(20);
    while !Command::new("zramctl").args(["--reset", device]).status().unwrap().success() {
        assert!(Instant::now() < end, "{device} stays busy");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn guest_doctor_finds_swap_that_a_kubelet_does_not_want() {
    let root = tempfile::tempdir().unwrap();
    let etc = tempfile::tempdir().unwrap();
    let program = etc.path().join("kubelet");
    // By a process of its own: what this one has open for writing a child of another test may have for a moment, and nobody may run it then.
    host("cp", &["/bin/bash", &program.display().to_string()]);
    let config = etc.path().join("kubelet.yaml");
    let socket = root.path().join("run/berth.sock");
    std::fs::write(
        &config,
        format!("kind: KubeletConfiguration\ncontainerRuntimeEndpoint: unix://{}\n", socket.display()),
    )
    .unwrap();
    let mut kubelet = Command::new(&program);
    kubelet.args(["-c", "read -r _", "kubelet"]).arg(format!("--config={}", config.display())).stdin(Stdio::piped());
    let _kubelet = Killed(kubelet.spawn().unwrap());
    assert!(!doctor(root.path(), "memory").ids().contains(&"swap-on"));
    let device = host("zramctl", &["--find", "--size", "16M"]);
    let device = device.trim();
    host("mkswap", &[device]);
    host("swapon", &[device]);
    let found = doctor(root.path(), "memory");
    host("swapoff", &[device]);
    reset(device);
    found.finding("swap-on", &["of swap are on", "failSwapOn"]);
}
