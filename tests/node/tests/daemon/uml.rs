//! What user-mode Linux, the guest's kernel, lacks and a kubelet insists on.
use super::host;
use std::fmt::Write as _;
use std::fs;

/// A clock speed in /proc/cpuinfo (cAdvisor), shared mounts.
pub fn prepare_for_kubelet() {
    host("mount", &["--make-rshared", "/"]);
    let info = fs::read_to_string("/proc/cpuinfo").unwrap();
    if info.contains("cpu MHz") {
        return;
    }
    let mut with_speed = String::new();
    for line in info.lines() {
        let _ = writeln!(with_speed, "{line}");
        if line.starts_with("model name") {
            let _ = writeln!(with_speed, "cpu MHz\t\t: 2000.000");
        }
    }
    fs::write("/run/cpuinfo", with_speed).unwrap();
    host("mount", &["--bind", "/run/cpuinfo", "/proc/cpuinfo"]);
}
