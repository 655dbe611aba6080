//! `berth adopt` on nodes with systemd: laid out as kubeadm does it, and with the endpoint in the unit itself. The dead-man timer is a unit, Berth
//! is one, and a node that is switched off in the middle of it comes back on containerd. Runs in the guest tier.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

use crate::daemon::crictl::Session;
use crate::takeover;
use crate::takeover::{JOURNAL, Layout, Node, RETURN, START, Seen, UNIT_FILE, alone, done, systemctl, wait};
use berth_node_tests::next_programs;
use std::fs;
use std::path::Path;
use std::process::{Child, Command};

#[test]
fn guest_adopt_a_node_of_kubeadm_there_and_back() {
    let _alone = alone();
    let node = Node::start(Layout::Kubeadm);
    let before = node.files();
    let plan = done(node.berth(&[&START[..], &["--dry-run"]].concat()).output().unwrap());
    assert_eq!((&plan["profile"], &plan["install"]["systemd"]), (&"kubeadm".into(), &true.into()), "{plan}");
    let paths: Vec<&str> = plan["files"].as_array().unwrap().iter().map(|f| f["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["/var/lib/kubelet/kubeadm-flags.env", "/var/lib/kubelet/config.yaml"]);

    // The dead-man timer is a unit of its own, which systemd starts again.
    let mut child = node.held_at(&START, "adopt/stop-kubelet/leave");
    let id = node.status()["operation"].as_str().unwrap().to_owned();
    let unit = format!("berth-adopt-deadman-{id}.service");
    assert_eq!(systemctl(&["is-active", &unit]), "active");
    systemctl(&["kill", "--signal=SIGKILL", &unit]);
    wait("systemd starts it again", || {
        let state = systemctl(&["show", "--value", "-p", "ActiveState,NRestarts", &unit]);
        if state == "1\nactive" || state == "active\n1" { Ok(()) } else { Err(state) }
    });
    child.kill().unwrap();
    child.wait().unwrap();
    node.release();
    assert_eq!(node.settled(), "not-adopted");
    node.is_on("containerd");
    node.is_untouched(&before);

    let taken = node.take_over();
    assert_eq!((&taken["phase"], &taken["profile"]), (&"adopted".into(), &"kubeadm".into()), "{taken}");
    node.is_on("berth");
    assert_eq!(systemctl(&["is-enabled", "berth.service"]), "enabled");
    assert_eq!(node.give_back()["phase"], "returned");
    node.is_on("containerd");
    node.is_untouched(&before);
    node.finish();
}

/// The kubelet gets other settings by its unit, and comes back on those before: where it does not start with them, and where whoever does it dies.
#[test]
fn guest_adopt_settings_of_a_kubelet_that_systemd_runs() {
    let _alone = alone();
    let node = Node::start(Layout::Kubeadm);
    let drop_ins = "/etc/kubernetes/kubelet.d";
    fs::create_dir_all(drop_ins).unwrap();
    fs::write("/etc/default/kubelet", format!("KUBELET_EXTRA_ARGS=--config-dir={drop_ins}\n")).unwrap();
    systemctl(&["restart", "kubelet.service"]);
    node.is_on("containerd");
    let before = node.files();
    node.take_over();
    node.is_on("berth");
    let (pod, file) = (Seen::of(&node), format!("{drop_ins}/98-berth-settings.conf"));

    let words = |settings: &'static str| ["adopt", "kubelet", "-o", "json", "--inline", settings];
    let status = done(node.berth(&words("{maxPods: 70}")).output().unwrap());
    assert_eq!((&status["phase"], &status["kubelet"]["maxPods"]), (&"adopted".into(), &70.into()), "{status}");
    node.is_on("berth");
    assert_eq!(Seen::of(&node), pod, "no container was touched");
    let with = node.files();
    assert!(fs::read_to_string(&file).unwrap().contains("maxPods: 70"));

    let bad = node.berth(&words("{imageGCHighThresholdPercent: 101}")).output().unwrap();
    assert_eq!(bad.status.code(), Some(3), "{}", String::from_utf8_lossy(&bad.stderr));
    assert!(node.status()["reason"].as_str().unwrap().contains("the kubelet ended"), "{}", node.status());
    node.killed_at(&words("{maxPods: 80}"), "configure/switch/leave");
    assert_eq!(node.settled(), "adopted");
    node.is_on("berth");
    assert!(node.files() == with, "they are as they were before it");
    assert_eq!(Seen::of(&node), pod);

    node.give_back();
    node.is_on("containerd");
    node.is_untouched(&before);
    node.finish();
    fs::remove_dir_all(drop_ins).unwrap();
}

#[test]
fn guest_adopt_the_adopter_of_a_kubeadm_node_dies() {
    let _alone = alone();
    let node = Node::start(Layout::Kubeadm);
    let before = node.files();
    // Where systemd has a part in it; the tier `cluster` has every other place.
    for step in ["daemon", "start-kubelet"] {
        node.killed_at(&START, &format!("adopt/{step}/leave"));
        assert_eq!(node.settled(), "not-adopted", "killed in {step}");
        node.is_on("containerd");
        node.is_untouched(&before);
    }
    node.killed_at(&START, "adopt/commit/enter");
    assert_eq!(node.settled(), "adopted");
    node.is_on("berth");
    node.killed_at(&RETURN, "return/switch/leave");
    assert_eq!(node.settled(), "adopted");
    node.is_on("berth");
    node.killed_at(&RETURN, "return/stop-daemon/leave");
    assert_eq!(node.settled(), "returned");
    node.is_on("containerd");
    node.is_untouched(&before);
    node.finish();
}

/// Everything that a power cut ends is ended, and the journal is of another boot; then the units are started as at a boot.
fn power_cut(node: &Node, mut adopter: Child) {
    let operation = node.status()["operation"].as_str().unwrap().to_owned();
    let deadman = format!("berth-adopt-deadman-{operation}.service");
    // In this order nobody can do anything before it ends too.
    let _ = Command::new("systemctl").args(["stop", &deadman]).status().unwrap();
    adopter.kill().unwrap();
    adopter.wait().unwrap();
    node.release();
    for unit in ["kubelet.service", "berth.service"] {
        systemctl(&["stop", unit]);
    }
    forge_boot();
    systemctl(&["daemon-reload"]);
    // As multi-user.target wants both: in one transaction, ordered by the unit.
    let words: Vec<&str> = ["start", "--no-block", "kubelet.service"]
        .into_iter()
        .chain(fs::exists(UNIT_FILE).unwrap().then_some("berth.service"))
        .collect();
    systemctl(&words);
}

fn forge_boot() {
    let text = fs::read_to_string(JOURNAL).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let bit = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    let step = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |crc, _| bit(crc));
    let lines = text.lines().map(|line| match line.split_once(' ') {
        Some((sum, json)) if sum.len() == 8 => {
            let json = json.replace(boot.trim(), "00000000-0000-4000-8000-000000000000");
            format!("{:08x} {json}\n", !json.as_bytes().iter().fold(u32::MAX, step))
        }
        _ => format!("{line}\n"),
    });
    fs::write(JOURNAL, lines.collect::<String>()).unwrap();
}

#[test]
fn guest_adopt_a_node_is_switched_off_in_the_middle_of_it() {
    let _alone = alone();
    let node = Node::start(Layout::Kubeadm);
    let before = node.files();
    let child = node.held_at(&START, "adopt/switch/leave");
    assert!(node.files() != before && fs::exists(UNIT_FILE).unwrap());
    power_cut(&node, child);
    assert_eq!(node.settled(), "not-adopted");
    node.is_on("containerd");
    node.is_untouched(&before);

    // On the way back, when it is proven: that is finished.
    node.take_over();
    let child = node.held_at(&RETURN, "return/stop-daemon/enter");
    power_cut(&node, child);
    assert_eq!(node.settled(), "returned");
    node.is_on("containerd");
    node.is_untouched(&before);
    node.finish();
}

#[test]
fn guest_adopt_a_unit_with_the_flag_and_a_kubelet_that_systemd_is_about_to_start() {
    let _alone = alone();
    let node = Node::start(Layout::Unit);
    let before = node.files();
    // It has died, and systemd waits ten seconds before it starts it again: no process is there to be stopped.
    let mut child = node.held_at(&START, "adopt/canary/leave");
    systemctl(&["kill", "--signal=SIGKILL", "--kill-whom=main", "kubelet.service"]);
    wait("systemd waits", || {
        let state = systemctl(&["show", "--value", "-p", "SubState", "kubelet.service"]);
        if state == "auto-restart" { Ok(()) } else { Err(state) }
    });
    node.release();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{}", fs::read_to_string("/tmp/adopt.log").unwrap());
    assert_eq!((&node.status()["phase"], &node.status()["profile"]), (&"adopted".into(), &"systemd".into()));
    node.is_on("berth");
    let drop_in = "/etc/systemd/system/kubelet.service.d/99-berth.conf";
    assert!(fs::read_to_string(drop_in).unwrap().contains("--container-runtime-endpoint=unix:///run/berth/berth.sock"));

    versions(&node);
    is_outdated_by_an_upgrade(&node, drop_in);

    node.give_back();
    node.is_on("containerd");
    node.is_untouched(&before);
    node.finish();
}

/// The unit starts the kubelet otherwise, as after an upgrade of its package, and then as before: what overrides it is told meanwhile.
fn is_outdated_by_an_upgrade(node: &Node, drop_in: &str) {
    let outdated = || {
        let status = node.status();
        let file = status["files"].as_array().unwrap().iter().find(|f| f["path"] == *drop_in).unwrap().clone();
        let noted = status["notes"].as_array().unwrap().iter().any(|note| note.as_str().unwrap().contains(drop_in));
        assert!(noted == (file["outdated"] == true) && file["now"] == file["after"], "{status}");
        noted
    };
    assert!(!outdated());
    let upgrade = Path::new(drop_in).with_file_name("50-upgrade.conf");
    fs::write(&upgrade, "[Service]\nExecStart=\nExecStart=/usr/bin/kubelet --v=9\n").unwrap();
    systemctl(&["daemon-reload"]);
    assert!(outdated());
    fs::remove_file(upgrade).unwrap();
    systemctl(&["daemon-reload"]);
    assert!(!outdated());
}

/// `current` names another version, and the unit is started again, there and back: containers, logs, sessions and exit codes stay.
fn versions(node: &Node) {
    let place = |name: &str| format!("/opt/berth/{name}");
    fs::create_dir(place("two")).unwrap();
    for program in ["berth", "berth-monitor", "berth-init"] {
        fs::copy(next_programs().join(program), format!("{}/{program}", place("two"))).unwrap();
    }
    let before = Seen::of(node);
    let mut session = Session::start(node.crictl(&["exec", "-i"]), &before.id);
    session.say("before");
    let mut lines = takeover::counted();
    for version in ["two", "one"] {
        let (link, current) = (place(".current.new"), place("current"));
        std::os::unix::fs::symlink(version, &link).unwrap();
        fs::rename(link, current).unwrap();
        let daemon = takeover::main_process("berth.service");
        systemctl(&["restart", "berth.service"]);
        let now = takeover::main_process("berth.service");
        let program = fs::read_link(format!("/proc/{now}/exe")).unwrap();
        assert!(daemon != now && program.starts_with(place(version)), "{}", program.display());
        session.say(version);
        assert_eq!(Seen::of(node), before, "after the switch to {version}");
        lines = wait("the log goes on", || {
            let more = takeover::counted();
            if more > lines { Ok(more) } else { Err(format!("{more} lines")) }
        });
    }
    session.end();
}
