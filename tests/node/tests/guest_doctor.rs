//! `berth doctor` on a machine that runs out of something for real: processes, open files, inotify instances, tracked connections, memory;
//! and one with swap. Each limit is put back before anything is asserted. Runs in the guest tier, whose machine nobody else uses.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

use crate::daemon::doctor::{Report, report};
use crate::daemon::host;
use berth_node_tests::programs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a finding may be tried for.
const LIMIT: Duration = Duration::from_secs(60);

/// Each changes what the others would see.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn doctor(root: &Path, check: &str) -> Report {
    let mut ask = Command::new(programs().join("berth"));
    ask.arg("--root").arg(root).args(["doctor", "-o", "json", check]);
    report(ask)
}

fn number(path: &str) -> u64 {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{path}: {e}"));
    text.split_whitespace().next().unwrap().parse().unwrap()
}

/// Measures, makes scarce, and looks, again and again: what the rest of the machine gives back meanwhile (connections that are forgotten,
/// threads that end) is measured anew.
#[track_caller]
fn finds(id: &str, words: &[&str], mut look: impl FnMut() -> Report) {
    let end = Instant::now() + LIMIT;
    loop {
        let found = look();
        if found.ids().contains(&id) || Instant::now() > end {
            found.finding(id, words);
            return;
        }
    }
}

/// A limit of the kernel, changed; the former value comes back.
struct Limit(PathBuf, String);

impl Limit {
    fn to(path: &str, value: u64) -> Self {
        let former = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{path}: {e}"));
        std::fs::write(path, value.to_string()).unwrap_or_else(|e| panic!("{path} = {value}: {e}"));
        Self(path.into(), former)
    }
}

impl Drop for Limit {
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
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    for (check, ids) in
        [("pids", ["pid-max"].as_slice()), ("files", &["files-low", "inotify-low"]), ("network", &["conntrack-full"])]
    {
        let found = doctor(root.path(), check);
        assert!(!found.ids().iter().any(|id| ids.contains(id)), "{:?}", found.findings);
    }
    finds("pid-max", &["threads run"], || {
        let load = std::fs::read_to_string("/proc/loadavg").unwrap();
        let threads: u64 = load.split_whitespace().nth(3).unwrap().split_once('/').unwrap().1.parse().unwrap();
        let _lowered = Limit::to("/proc/sys/kernel/threads-max", threads + threads / 20 + 5);
        doctor(root.path(), "pids")
    });
    finds("files-low", &["files are open"], || {
        let open = number("/proc/sys/fs/file-nr");
        let _lowered = Limit::to("/proc/sys/fs/file-max", open + open / 20);
        doctor(root.path(), "files")
    });
    // systemd alone has some.
    finds("inotify-low", &["max_user_instances is 1"], || {
        let _lowered = Limit::to("/proc/sys/fs/inotify/max_user_instances", 1);
        doctor(root.path(), "files")
    });

    // Tracking begins with a rule that asks for it.
    host("nft", &["add table ip track"]);
    host("nft", &["add chain ip track out { type filter hook output priority 0; ct state invalid counter; }"]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let streams: Vec<_> =
        (0..20).map(|_| std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap()).collect();
    finds("conntrack-full", &["connections are tracked"], || {
        let tracked = number("/proc/sys/net/netfilter/nf_conntrack_count");
        let _lowered = Limit::to("/proc/sys/net/netfilter/nf_conntrack_max", tracked + tracked / 20);
        doctor(root.path(), "network")
    });
    host("nft", &["delete table ip track"]);
    drop(streams);
}

/// Of /proc/meminfo, in KiB.
fn memory(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

/// What the kernel keeps for itself is available to nobody; to fill gigabytes instead would take them from the machine below as well.
#[test]
fn guest_doctor_finds_little_memory() {
    let _alone = alone();
    let root = tempfile::tempdir().unwrap();
    assert!(!doctor(root.path(), "memory").ids().contains(&"memory-low"));
    let kept = Path::new("/proc/sys/vm/min_free_kbytes");
    let before = number(kept.to_str().unwrap());
    let _former = Limit::to(kept.to_str().unwrap(), before);
    finds("memory-low", &["are available"], || {
        // One and a half of it is no longer available (setup_per_zone_wmarks and calculate_totalreserve_pages, mm/page_alloc.c). Three of
        // a hundred parts stay.
        let spare = memory("MemAvailable:").saturating_sub(memory("MemTotal:") * 3 / 100);
        let now = number(kept.to_str().unwrap());
        std::fs::write(kept, (now + spare * 2 / 3).to_string()).unwrap();
        doctor(root.path(), "memory")
    });
}

/// The device manager looks at the device after the swap is off, and for so long it is busy.
fn reset(device: &str) {
    let end = Instant::now() + LIMIT;
    while !Command::new("zramctl").args(["--reset", device]).status().unwrap().success() {
        assert!(Instant::now() < end, "{device} stays busy");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn guest_doctor_finds_swap_that_a_kubelet_does_not_want() {
    let _alone = alone();
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
