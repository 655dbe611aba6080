//! The process that holds a node's network and mount namespaces, and takes everything of the node away when its standard input ends:
//! also when the test that started it was killed.
//!
//! Must not: run longer than its parent, or touch what is not the node's.
use crate::cgroups;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Length of the network that a node's address is in. Each node has a network namespace of its own, so all may have the same.
const NODE_PREFIX: u8 = 24;

/// `BASE GROUP ADDRESS GATEWAY`: the node's directory, its control group, its address and that of its default route.
/// On standard input: names of further control groups that the node owns, one a line.
pub fn main(args: &[OsString]) -> io::Result<()> {
    let [base, group, address, gateway] = args else { return Err(io::Error::other("four arguments are needed")) };
    let base = PathBuf::from(base);
    let text = |word: &OsString| word.to_string_lossy().into_owned();
    // Ctrl-C is for the test; this process must survive it to clean up.
    nix::unistd::setsid()?;
    let outside = File::open("/proc/self/ns/mnt")?;
    let mut groups = vec![text(group)];
    cgroups::create(&groups[0])?;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)?;
    mounts(&base)?;
    network(&text(address), &text(gateway))?;
    println!("ready");
    io::stdout().flush()?;
    groups.extend(io::stdin().lock().lines().map_while(Result::ok));
    clear(&base, &groups, outside)
}

/// Private to the node, shared below it: what kubelets ask of `/`, and fixed paths of Kubernetes in the node's own directory.
/// Directories are put in place whole (`/var/lib`, `/var/log`), so that no mount point is made on the machine.
fn mounts(base: &Path) -> io::Result<()> {
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
    for (name, target, inside) in [
        ("var-lib", "/var/lib", &["kubelet", "cni", "containerd"][..]),
        ("var-log", "/var/log", &["pods", "containers"][..]),
    ] {
        let source = base.join(name);
        for dir in inside {
            fs::create_dir_all(source.join(dir))?;
        }
        mount(Some(&source), target, none, MsFlags::MS_BIND, none)?;
    }
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SHARED, none)?;
    Ok(())
}

/// Loopback, and a pair of links of which one end has the node's address and the default route. The other end leads nowhere:
/// addresses of services are rewritten after a route was found, so there must be one.
fn network(address: &str, gateway: &str) -> io::Result<()> {
    let address = format!("{address}/{NODE_PREFIX}");
    for words in [
        vec!["link", "set", "lo", "up"],
        vec!["link", "add", "node0", "type", "veth", "peer", "name", "uplink0"],
        vec!["address", "add", &address, "dev", "node0"],
        vec!["link", "set", "node0", "up"],
        vec!["link", "set", "uplink0", "up"],
        vec!["route", "add", "default", "via", gateway],
    ] {
        let output = Command::new("ip").args(&words).output()?;
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(io::Error::other(format!("ip {}: {message}", words.join(" "))));
        }
    }
    fs::write("/proc/sys/net/ipv4/ip_forward", "1")
}

/// Processes first, then namespaces with their mounts and links, then control groups, then the directory.
fn clear(base: &Path, groups: &[String], outside: File) -> io::Result<()> {
    // Twice: who is killed last may have started something in a group before.
    for group in groups.iter().chain(groups) {
        cgroups::kill_all(group)?;
    }
    // The node's mounts go with its mount namespace, which nobody is in after this. Removing directories before would remove
    // through the mounts.
    setns(outside, CloneFlags::CLONE_NEWNS)?;
    for group in groups {
        cgroups::remove(group)?;
    }
    fs::remove_dir_all(base).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", base.display())))
}
