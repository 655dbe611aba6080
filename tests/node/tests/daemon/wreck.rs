//! Removing by force what a failed test left, so that the machine is clean for the next one. Nothing here proves anything: a test
//! that succeeds counts what is left over and never comes here.
use std::path::Path;
use std::process::Command;

/// Ends and removes everything that has the root's path or name.
pub fn clear(base: &Path, name: &str) {
    // A process that others start while they end is caught by the second round.
    for _ in 0..2 {
        for pid in processes(base, name) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts.lines().rev().filter_map(|line| line.split(' ').nth(4));
    for point in points.filter(|point| Path::new(point).starts_with(base)) {
        quietly("umount", &["-l", point]);
    }
    if !name.is_empty() {
        quietly("ip", &["link", "delete", &name.replace('-', "")]);
        quietly("nft", &["delete", "table", "ip", name]);
        // A group takes a moment to become empty.
        for _ in 0..10 {
            remove_groups(Path::new("/sys/fs/cgroup"), name, 0);
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
    let _ = std::fs::remove_dir_all(base);
}

/// Processes with the path in their command line, or the name in their control groups.
fn processes(base: &Path, name: &str) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let groups = std::fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        let of_base = String::from_utf8_lossy(&words).contains(&*base.to_string_lossy());
        let own = u32::try_from(pid).is_ok_and(|p| p == std::process::id());
        if !own && (of_base || (!name.is_empty() && groups.contains(name))) {
            found.push(pid);
        }
    }
    found
}

fn remove_groups(dir: &Path, name: &str, depth: u32) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|t| t.is_dir()) {
            continue;
        }
        let ours = entry.file_name().to_string_lossy().contains(name);
        if ours || depth < 1 {
            remove_groups(&entry.path(), name, if ours { 0 } else { depth + 1 });
        }
        if ours || dir.to_string_lossy().contains(name) {
            let _ = std::fs::remove_dir(entry.path());
        }
    }
}

fn quietly(program: &str, args: &[&str]) {
    let _ = Command::new(program).args(args).output();
}
