//! A node that is switched off in the middle of an adoption, and on again: what was in memory is gone, as is what the disk was not made to
//! keep; systemd starts what is enabled, and nobody helps. Runs in the guest tier, each test in a guest with a disk.
//!
//! The first boot of a guest ends in the middle of its test, and the second one runs the same test, which finds what the first has left.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]
#![allow(clippy::zombie_processes, reason = "the machine is switched off before they end")]

use crate::daemon::host;
use crate::takeover::{Layout, Node, RETURN, START, UNIT_FILE};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Every file that the kubelet's way to its runtime depends on, as [`Node::files`] has them.
type Files = BTreeMap<PathBuf, (Vec<u8>, u32)>;

/// What the second boot is to know of the first.
const KEPT: &str = "/var/lib/reboot-test.json";
/// Tells `xtask/guest/boot` that the guest is to be booted again.
const AGAIN: &str = "/job/out/again";
const DISK: &str = "/dev/ubda";
/// A machine that is switched off does not get that far.
const OFF: Duration = Duration::from_secs(60);

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim().to_owned()
}

/// A node on containerd, which systemd starts at each boot, and its files.
fn first_boot() -> (Node, Files) {
    assert!(Path::new(DISK).exists(), "this guest has no disk: run this by `cargo xtask guest guest_reboot`");
    let node = Node::start(Layout::Kubeadm);
    node.starts_with_the_machine();
    let files = node.files();
    (node, files)
}

/// The node has been so for long: all of it is on the disk. What follows has to see to that by itself.
fn keep(before: &Files) {
    fs::write(KEPT, serde_json::to_string(&(boot_id(), before)).unwrap()).unwrap();
    host("sync", &[]);
}

/// As by its plug: nothing is stopped, and nothing is written that was not yet.
fn switch_off() -> ! {
    fs::write(AGAIN, "").unwrap();
    host("/bin/busybox", &["poweroff", "-n", "-f"]);
    std::thread::sleep(OFF);
    panic!("the machine is still on");
}

/// The node and its files of before, once the machine was off.
fn second_boot() -> Option<(Node, Files)> {
    let text = fs::read_to_string(KEPT).ok()?;
    let (boot, before): (String, Files) = serde_json::from_str(&text).unwrap();
    assert_ne!(boot, boot_id(), "this is the boot in which the test began");
    Some((Node::booted(Layout::Kubeadm), before))
}

fn is_as_it_was(node: Node, before: &Files, phase: &str) {
    assert_eq!(node.settled(), phase);
    node.is_on("containerd");
    node.is_untouched(before);
    node.finish();
}

#[test]
fn guest_reboot_in_the_middle_of_an_adoption() {
    let Some((node, before)) = second_boot() else {
        let (node, before) = first_boot();
        keep(&before);
        let _adopter = node.held_at(&START, "adopt/switch/leave");
        assert!(node.files() != before && fs::exists(UNIT_FILE).unwrap(), "files are changed, and Berth is a service");
        switch_off();
    };
    is_as_it_was(node, &before, "not-adopted");
}

/// It is proven by then that containerd has the node: that is finished.
#[test]
fn guest_reboot_in_the_middle_of_a_return() {
    let Some((node, before)) = second_boot() else {
        let (node, before) = first_boot();
        node.take_over();
        node.is_on("berth");
        keep(&before);
        let _returning = node.held_at(&RETURN, "return/stop-daemon/enter");
        assert!(fs::exists(UNIT_FILE).unwrap(), "Berth is still a service");
        switch_off();
    };
    is_as_it_was(node, &before, "returned");
}
