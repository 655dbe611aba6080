//! Looks at the node: everything that the checks want to know, in one go.
//!
//! Owns: reading /proc, /sys, configuration files and the daemon's answers into [`Facts`]. Must not: judge, change anything, or fail:
//! what cannot be read is not known. Every file has a size limit, every question a time limit.
mod cgroups;
mod daemon;
mod kubelet;
mod limits;
mod network;

use super::facts::{Disk, Facts, Kernel};
use crate::layout::Layout;
use crate::node_files::{contents, text};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Most that is read of a kernel's lists of modules; distributions have up to a few MB of them.
const MAX_MODULES: u64 = 16 << 20;

/// Gathers all. `kubelet` is the only one to look at, if it is given.
pub async fn gather(layout: &Layout, kubelet: Option<u32>) -> Facts {
    let daemon = daemon::gather(layout).await;
    let told = daemon.told.clone().unwrap_or_default();
    let info = daemon.info.clone().unwrap_or_default();
    let logs = told.logs.iter().filter_map(|log| {
        let bytes = std::fs::metadata(&log.path).ok()?.len();
        Some((log.container.clone(), PathBuf::from(&log.path), bytes))
    });
    Facts {
        root: rustix::process::geteuid().is_root(),
        now: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
        kernel: kernel(),
        cgroups: cgroups::gather(&told.cgroups),
        limits: limits::gather(),
        disks: disks(layout),
        logs: logs.collect(),
        network: network::gather(layout, &info),
        kubelets: kubelet::gather(layout, kubelet),
        leftovers: daemon::leftovers(&daemon),
        daemon,
    }
}

/// A number that is all of a file.
fn number(path: impl AsRef<Path>) -> Option<u64> {
    text(path)?.split_whitespace().next()?.parse().ok()
}

fn kernel() -> Kernel {
    let release = text("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut parts = release.split(['.', '-']).map(|p| p.trim().parse::<u32>().ok());
    let version = parts.next().flatten().zip(parts.next().flatten());
    let file_systems = text("/proc/filesystems").unwrap_or_default();
    let needed = [
        (
            "overlay file system",
            file_systems.split_whitespace().any(|w| w == "overlay") || has_module(&release, "overlay"),
        ),
        ("tmpfs", file_systems.split_whitespace().any(|w| w == "tmpfs")),
        ("seccomp filters", Path::new("/proc/sys/kernel/seccomp/actions_avail").exists()),
        ("PID namespaces", Path::new("/proc/self/ns/pid").exists()),
        ("network namespaces", Path::new("/proc/self/ns/net").exists()),
        ("IPC namespaces", Path::new("/proc/self/ns/ipc").exists()),
        ("UTS namespaces", Path::new("/proc/self/ns/uts").exists()),
        ("control groups", Path::new("/proc/self/cgroup").exists()),
    ];
    let on = text("/sys/kernel/security/lsm").unwrap_or_default();
    let mut lsm: Vec<String> =
        on.trim().split(',').filter(|m| ["apparmor", "selinux"].contains(m)).map(str::to_owned).collect();
    if let Some(mode) = text("/sys/fs/selinux/enforce") {
        lsm.push(if mode.trim() == "1" { "selinux enforces" } else { "selinux is permissive" }.to_owned());
    }
    let missing = needed.into_iter().filter(|(_, there)| !there).map(|(what, _)| what).collect();
    Kernel { version, missing, lsm }
}

/// Whether the kernel has this module, loaded or not: the kernel loads it when it is mounted for the first time.
fn has_module(release: &str, name: &str) -> bool {
    let dir = Path::new("/lib/modules").join(release.trim());
    ["modules.dep", "modules.builtin"]
        .iter()
        .any(|list| contents(dir.join(list), MAX_MODULES).is_ok_and(|modules| lists(&modules, name)))
}

/// Whether a list has the module: paths, one a line, in modules.dep with a colon and what they need behind them.
fn lists(modules: &str, name: &str) -> bool {
    let mut files = modules.lines().filter_map(|l| l.split(':').next()?.rsplit('/').next());
    files.any(|file| file.split_once(".ko").is_some_and(|(module, _)| module == name))
}

/// File systems of the daemon's directories, each once.
fn disks(layout: &Layout) -> Vec<Disk> {
    let stores = crate::image_places::known(layout);
    let stores = stores.iter().filter(|store| !store.starts_with(&layout.lib));
    let own = [(&layout.lib, "images, writable layers and records"), (&layout.run, "runtime directories of pods")];
    let places = own.into_iter().chain(stores.map(|store| (store, "images and writable layers")));
    let mut disks: Vec<Disk> = Vec::new();
    let mut seen = Vec::new();
    for (path, purpose) in places {
        let (Ok(stat), Ok(fs)) = (rustix::fs::stat(path.as_path()), rustix::fs::statvfs(path.as_path())) else {
            continue;
        };
        if seen.contains(&stat.st_dev) {
            continue;
        }
        seen.push(stat.st_dev);
        let bytes = (fs.f_blocks.saturating_mul(fs.f_frsize), fs.f_bavail.saturating_mul(fs.f_frsize));
        disks.push(Disk { path: path.clone(), purpose, bytes, inodes: (fs.f_files, fs.f_ffree) });
    }
    disks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_that_are_not_loaded_are_there() {
        let dep = "kernel/fs/overlayfs/overlay.ko.xz:\nkernel/a/b.ko: kernel/x/overlayed.ko\n";
        assert!(lists(dep, "overlay") && lists("kernel/fs/overlayfs/overlay.ko\n", "overlay"));
        assert!(!lists(dep, "overlayed") && !lists("", "overlay"));
    }

    #[tokio::test]
    async fn a_node_without_a_daemon_can_be_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(Some(dir.path())).unwrap();
        std::fs::create_dir_all(&layout.lib).unwrap();
        let facts = gather(&layout, None).await;
        assert_eq!(facts.daemon.answer, super::super::facts::Answer::Down);
        assert!(facts.kernel.version.is_some_and(|v| v >= (3, 0)));
        assert!(facts.disks.len() == 1 && facts.disks[0].bytes.0 > 0);
        assert!(facts.limits.memory.is_some() && facts.limits.threads.is_some());
    }
}
