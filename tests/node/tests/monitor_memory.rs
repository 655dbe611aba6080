//! What a sleeping monitor costs.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // A test may fail at any line.

use crate::monitor::*;

/// A figure of smaps_rollup in KiB.
fn rollup(pid: u32, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_monitors_share_their_pages() {
    let launcher = launcher();
    let mut pods = Vec::new();
    for _ in 0..20 {
        let mut pod = Pod::with(launcher.clone()).await;
        // Each has supervised something, and is idle with one container.
        pod.run_logged("first", "seq 1 20000", &log_file(&path_of(&pod, "log0"))).await;
        pod.exit_of("first").await;
        pod.run_logged("stays", "exec sleep 600", &log_file(&path_of(&pod, "log1"))).await;
        pods.push(pod);
    }
    // Buffers are given back a moment after the work.
    std::thread::sleep(std::time::Duration::from_millis(500));
    let sum = |name| pods.iter().map(|pod| rollup(pod.process.pid, name)).sum::<u64>() / 20;
    let (pss, rss, private) = (sum("Pss"), sum("Rss"), sum("Private_Dirty"));
    println!("a monitor of 20: PSS {pss} KiB, RSS {rss} KiB, private dirty {private} KiB");
    assert!(pss <= 200, "PSS {pss} KiB");
    for pod in pods {
        pod.end().await;
    }
}
