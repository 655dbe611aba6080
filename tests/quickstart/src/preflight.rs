//! What the machine must have, found out before anything is built or started. Owns: one sentence for each thing that is
//! missing. Must not: change anything, or use more than the standard library: xtask compiles this file too.
//!
//! What can be tried is tried, in namespaces that end with the attempt: files that say what a kernel has differ from kernel
//! to kernel, and modules load when they are needed.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Oldest kernel: openat2 (5.6), CLONE_INTO_CGROUP (5.7), mount_setattr (5.12) and overlayfs with idmapped layers' needs.
const OLDEST: (u32, u32) = (5, 15);
const NAMESPACES: [(&str, &str); 7] = [
    ("mnt", "mount namespaces"),
    ("pid", "PID namespaces (CONFIG_PID_NS)"),
    ("net", "network namespaces (CONFIG_NET_NS)"),
    ("ipc", "IPC namespaces (CONFIG_IPC_NS)"),
    ("uts", "UTS namespaces (CONFIG_UTS_NS)"),
    ("user", "user namespaces (CONFIG_USER_NS)"),
    ("cgroup", "cgroup namespaces (CONFIG_CGROUPS)"),
];
const CONTROLLERS: [&str; 3] = ["memory", "cpu", "pids"];
/// Capabilities by number (linux/capability.h), without which root is root in name only.
const CAPABILITIES: [(u32, &str); 4] =
    [(12, "CAP_NET_ADMIN"), (18, "CAP_SYS_CHROOT"), (21, "CAP_SYS_ADMIN"), (27, "CAP_MKNOD")];

/// Everything that is missing, one sentence each.
pub fn missing() -> Vec<String> {
    let mut missing = Vec::new();
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let status = read("/proc/self/status");
    let root = field(&status, "Uid:").nth(1) == Some("0");
    if !root {
        missing.push(
            "This needs root, such as by sudo: it makes namespaces, mounts, control groups and network links. \
             (overlayfs, bridges, veth and nf_tables can only be tried by root.)"
                .to_owned(),
        );
    }
    missing.extend(kernel(read("/proc/sys/kernel/osrelease").trim()));
    for (name, what) in NAMESPACES {
        if fs::read_link(format!("/proc/self/ns/{name}")).is_err() {
            missing.push(format!("The kernel has no {what}."));
        }
    }
    if read("/proc/sys/user/max_user_namespaces").trim() == "0" {
        missing.push("User namespaces are switched off; set user.max_user_namespaces with sysctl.".into());
    }
    missing.extend(cgroups(&read("/proc/self/mountinfo"), |point| read(&format!("{point}/cgroup.controllers"))));
    let lacking = capabilities(&status);
    if root && lacking.is_none() {
        missing.extend(probes());
    } else if root {
        missing.extend(lacking);
    }
    missing
}

/// The sentences as one text.
pub fn told(missing: &[String]) -> String {
    let things = if missing.len() == 1 { "one thing is" } else { "some things are" };
    format!("{things} missing on this machine:\n  - {}", missing.join("\n  - "))
}

fn field<'a>(status: &'a str, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace()
}

fn kernel(release: &str) -> Option<String> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or_default());
    let version = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    (version < OLDEST).then(|| format!("Linux {release} is too old: {}.{} or later is needed.", OLDEST.0, OLDEST.1))
}

fn capabilities(status: &str) -> Option<String> {
    let have = field(status, "CapEff:").next().and_then(|h| u64::from_str_radix(h, 16).ok()).unwrap_or_default();
    let lacking: Vec<&str> =
        CAPABILITIES.iter().filter(|(number, _)| have & (1 << number) == 0).map(|(_, name)| *name).collect();
    // What needs them is not tried without: that would only say the same again.
    const REMEDY: &str = "in a container, run it privileged (overlayfs, bridges, veth and nf_tables were not tried)";
    (!lacking.is_empty()).then(|| format!("Root here lacks {}: {REMEDY}.", lacking.join(", ")))
}

/// Controllers are on a hierarchy of v1 that is mounted with their name, or in `cgroup.controllers` of v2's root.
fn cgroups(mountinfo: &str, v2_controllers: impl Fn(&str) -> String) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut read_only = Vec::new();
    for line in mountinfo.lines() {
        let Some((place, system)) = line.split_once(" - ") else { continue };
        let (mut place, mut system) = (place.split(' ').skip(4), system.split(' '));
        let (point, options) = (place.next().unwrap_or_default(), place.next().unwrap_or_default());
        let (kind, list) = (system.next().unwrap_or_default(), system.nth(1).unwrap_or_default());
        match kind {
            "cgroup" => found.extend(list.split(',').map(str::to_owned)),
            "cgroup2" => found.extend(v2_controllers(point).split_whitespace().map(str::to_owned)),
            _ => continue,
        }
        if options.split(',').any(|o| o == "ro") {
            read_only.push(point.to_owned());
        }
    }
    let absent = CONTROLLERS.iter().filter(|c| !found.iter().any(|f| f == *c));
    let mut missing: Vec<String> = absent
        .map(|c| {
            format!("No mounted control group hierarchy has the controller {c}; see CONFIG_CGROUPS, cgroup_enable={c}.")
        })
        .collect();
    if !read_only.is_empty() {
        missing.push(format!("Control groups are mounted read-only: {}.", read_only.join(", ")));
    }
    missing
}

/// Attempts in a network namespace, and in a mount namespace, that end with the attempt.
fn probes() -> Vec<String> {
    const NETWORK: [(&str, &str); 3] = [
        ("The kernel makes no bridges (CONFIG_BRIDGE)", "ip link add name probe0 type bridge"),
        ("The kernel makes no veth pairs (CONFIG_VETH)", "ip link add name probe0 type veth peer name probe1"),
        (
            "nf_tables does no NAT (CONFIG_NF_TABLES, CONFIG_NFT_NAT, CONFIG_NFT_MASQ)",
            "nft 'add table inet probe; add chain inet probe post { type nat hook postrouting priority 100; }; \
             add rule inet probe post masquerade'",
        ),
    ];
    let mut missing = Vec::new();
    for (sentence, script) in NETWORK {
        if let Err(why) = unshared("--net", script) {
            missing.push(format!("{sentence}: {why}."));
        }
    }
    missing.extend(overlay_parent().err());
    missing
}

/// A directory whose file system can be the upper layer of an overlay: the temporary one, else `/var/tmp`.
pub fn overlay_parent() -> Result<PathBuf, String> {
    let candidates = [std::env::temp_dir(), "/var/tmp".into()];
    let mut reasons = Vec::new();
    for parent in &candidates {
        match try_overlay(parent) {
            Ok(()) => return Ok(parent.clone()),
            Err(why) => reasons.push(format!("{}: {why}", parent.display())),
        }
    }
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !known.lines().any(|l| l.split_whitespace().last() == Some("overlay")) {
        return Err("The kernel has no overlayfs (CONFIG_OVERLAY_FS).".into());
    }
    let reasons = reasons.join("; ");
    Err(format!(
        "No temporary directory can hold an overlay's upper layer; set TMPDIR to one on ext4 or xfs ({reasons})."
    ))
}

fn try_overlay(parent: &Path) -> Result<(), String> {
    let dir = parent.join(format!("berth-quickstart-probe-{}", std::process::id()));
    let shown = dir.display().to_string();
    if shown.contains([':', ',', '\'', '\\']) {
        return Err("its name has characters that mount options cannot hold".into());
    }
    let made = ["lower", "upper", "work", "merged"].iter().try_for_each(|name| fs::create_dir_all(dir.join(name)));
    let options = format!("lowerdir={shown}/lower,upperdir={shown}/upper,workdir={shown}/work");
    // A character device 0:0 is a whiteout: an upper layer that cannot remember removals is none.
    let script = format!(
        "mount -t overlay overlay -o '{options}' '{shown}/merged' && mkdir '{shown}/merged/d' && rmdir '{shown}/merged/d'"
    );
    let tried = made.map_err(|e| e.to_string()).and_then(|()| unshared("--mount", &script));
    let _ = fs::remove_dir_all(&dir);
    tried
}

/// Runs the script in a new namespace; the error is the last line it printed.
fn unshared(namespace: &str, script: &str) -> Result<(), String> {
    let mut command = Command::new("unshare");
    let output = command.args([namespace, "sh", "-c", script]).stdin(Stdio::null()).output();
    let output = output.map_err(|e| format!("unshare (package util-linux) cannot be run: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let last = text.lines().rfind(|l| !l.trim().is_empty()).unwrap_or("no reason given");
    Err(last.trim().trim_end_matches('.').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels_are_told_and_odd_releases_read() {
        assert_eq!(kernel("5.15.0-91-generic"), None);
        assert_eq!(kernel("6.18.44-fc"), None);
        assert!(kernel("5.4.0").unwrap().contains("5.4.0 is too old"));
        assert!(kernel("").is_some());
    }

    #[test]
    fn controllers_are_found_on_v1_v2_and_hybrid() {
        let v1 = "30 25 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                  31 25 0:28 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
                  32 25 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let missing = cgroups(v1, |_| String::new());
        assert_eq!(missing.len(), 1, "{missing:?}");
        assert!(missing[0].contains("controller pids"));
        let v2 = "30 25 0:27 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup2 rw\n";
        let missing = cgroups(v2, |_| "cpuset cpu io memory pids\n".into());
        assert_eq!(missing, ["Control groups are mounted read-only: /sys/fs/cgroup."]);
        assert_eq!(cgroups("", |_| String::new()).len(), 3);
    }

    #[test]
    fn root_without_capabilities_is_told_by_name() {
        assert_eq!(capabilities("CapEff:\t000001ffffffffff\n"), None);
        let docker = capabilities("CapEff:\t00000000a80425fb\n").unwrap();
        assert!(docker.contains("CAP_NET_ADMIN, CAP_SYS_ADMIN") && !docker.contains("MKNOD"), "{docker}");
    }

    #[test]
    fn all_is_told_at_once() {
        let told = told(&["One.".into(), "Two.".into()]);
        assert!(told.contains("- One.") && told.contains("- Two."));
    }
}
