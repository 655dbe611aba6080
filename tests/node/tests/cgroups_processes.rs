//! Processes in groups on the node's own hierarchies: killing, freezing, limits on their number, readings. Needs root.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test says what went wrong by panicking")]

use crate::cgroups::{Parent, Shell, WAIT, block_on, until};
use berth_cgroups::{CgroupPath, DevicePolicy, Layout};
use berth_model::{ErrorKind, Resources};
use berth_monitor_api::spec::{CgroupJoin, MountKind};
use std::io::Write as _;
use std::time::Duration;

fn make(parent: &Parent, id: &str, resources: &Resources) -> CgroupPath {
    let path = parent.group(id);
    parent.cgroups.create(&path, resources, &DevicePolicy::standard()).unwrap();
    path
}

#[test]
fn kill_ends_every_process_below_the_group() {
    let parent = Parent::new();
    let path = make(&parent, "a1", &Resources::default());
    // Ignores signals, has a family, and one of them in a group of its own below.
    let script = "trap '' TERM INT HUP; for i in 1 2 3 4 5; do sleep 1000 & done; wait";
    let shell = Shell::run(&parent.cgroups.join(&path), script);
    until("six processes", || parent.cgroups.pids(&path).unwrap().len() == 6);
    let CgroupJoin::Own { v2: Some(v2), .. } = parent.cgroups.join(&path) else { panic!("no v2 tree") };
    std::fs::create_dir(v2.join("below")).unwrap();
    let moved = *parent.cgroups.pids(&path).unwrap().last().unwrap();
    std::fs::write(v2.join("below/cgroup.procs"), moved.to_string()).unwrap();
    assert_eq!(parent.cgroups.pids(&path).unwrap().len(), 6, "the groups below count");

    let e = block_on(parent.cgroups.remove(&path)).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::FailedPrecondition, "{e}");
    parent.cgroups.kill(&path, WAIT).unwrap();
    assert_eq!(parent.cgroups.pids(&path).unwrap(), Vec::<u32>::new());
    drop(shell);
    parent.end(&path);
    parent.cgroups.kill(&path, WAIT).unwrap();
    assert!(!parent.cgroups.is_populated(&path).unwrap());
}

#[test]
fn the_monitors_descriptor_kills() {
    let parent = Parent::new();
    let path = make(&parent, "a2", &Resources::default());
    let fd = parent.cgroups.kill_fd(&path).unwrap().expect("cgroup.kill");
    let mut shell = Shell::run(&parent.cgroups.join(&path), "exec sleep 1000");
    until("the process", || parent.cgroups.is_populated(&path).unwrap());
    std::fs::File::from(fd).write_all(b"1").unwrap();
    shell.0.wait().unwrap();
    parent.end(&path);
}

#[test]
fn a_fork_bomb_stays_within_its_limit_and_dies() {
    let parent = Parent::new();
    let path = make(&parent, "b1", &Resources { pids: Some(20), ..Resources::default() });
    // Copies that stay: a shell that cannot fork gives up, so one that lives of forking alone would fizzle out.
    let bomb = "exec 2>/dev/null; while :; do sleep 1000 & done";
    let shell = Shell::run(&parent.cgroups.join(&path), bomb);
    let tasks = || parent.cgroups.usage(&path).unwrap().pids.unwrap();
    until("the limit", || tasks().current >= 19);
    assert_eq!(tasks().limit, Some(20));
    for _ in 0..20 {
        assert!(tasks().current <= 20);
        std::thread::sleep(Duration::from_millis(5));
    }
    parent.cgroups.kill(&path, WAIT).unwrap();
    drop(shell);
    parent.end(&path);
}

#[test]
fn a_frozen_process_stands_still() {
    let parent = Parent::new();
    let path = make(&parent, "c1", &Resources::default());
    let shell = Shell::run(&parent.cgroups.join(&path), "while :; do :; done");
    let cpu = || parent.cgroups.usage(&path).unwrap().cpu.unwrap().total;
    until("some work", || cpu() > 0);
    parent.cgroups.freeze(&path, true).unwrap();
    // The kernel says "frozen" just before the process leaves its CPU.
    std::thread::sleep(Duration::from_millis(50));
    let stopped = cpu();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(cpu(), stopped);
    parent.cgroups.freeze(&path, false).unwrap();
    until("more work", || cpu() > stopped);
    parent.cgroups.freeze(&path, true).unwrap();
    parent.cgroups.kill(&path, WAIT).unwrap();
    drop(shell);
    parent.end(&path);
}

#[test]
fn readings_follow_what_is_done() {
    let parent = Parent::new();
    let limit = 64 << 20;
    let resources = Resources { memory_limit: Some(limit), cpu_quota: Some(10_000), ..Resources::default() };
    let path = make(&parent, "d1", &resources);
    let script = "x=$(head -c 10000000 /dev/zero | tr '\\0' a); i=0; while :; do i=$((i+1)); done";
    let shell = Shell::run(&parent.cgroups.join(&path), script);
    until("memory and throttling", || {
        let usage = parent.cgroups.usage(&path).unwrap();
        // The pipe that fills the variable has ended then.
        let alone = usage.pids.unwrap().current == 1;
        alone && usage.memory.unwrap().rss > 10_000_000 && usage.cpu.unwrap().throttled_periods > 0
    });
    let stats = berth_stats::container_stats(&parent.cgroups, &path, None).unwrap();
    let memory = stats.usage.memory.unwrap();
    assert_eq!(memory.limit, Some(limit as u64));
    assert!(memory.working_set >= memory.rss && memory.working_set <= memory.usage);
    assert_eq!(memory.available, Some(limit as u64 - memory.working_set));
    assert!(memory.page_faults > 1000);
    // v1 gives memory with swap and memory alone, each charged in batches and read at a moment of its own: their difference
    // is nothing only when nothing moves.
    until("no swap", || parent.cgroups.usage(&path).unwrap().swap.unwrap().usage < 1 << 20);
    let cpu = stats.usage.cpu.unwrap();
    assert!(cpu.total > 0 && cpu.throttled > 0 && cpu.total >= cpu.user);
    assert_eq!(stats.usage.pids.unwrap().current, 1);

    let group = berth_stats::PodGroups::Own(path.clone());
    let pod = berth_stats::pod_stats(&parent.cgroups, &group, 0).usage;
    assert!(
        pod.memory.unwrap().usage >= memory.rss && pod.cpu.unwrap().total >= cpu.total,
        "a pod includes its containers"
    );
    drop(shell);
    parent.end(&path);
    assert_eq!(berth_stats::container_stats(&parent.cgroups, &path, None), None, "a list goes on without it");
}

#[test]
fn the_runtimes_own_leaf_takes_running_processes() {
    let parent = Parent::new();
    let other = make(&parent, "e1", &Resources::default());
    let shell = Shell::run(&parent.cgroups.join(&other), "exec sleep 1000");
    until("the process", || parent.cgroups.is_populated(&other).unwrap());
    let pids = [shell.0.id(), u32::MAX >> 2];
    let leaf = parent.cgroups.own_leaf(&parent.name, "monitors", &pids).unwrap();
    assert_eq!(parent.cgroups.own_leaf(&parent.name, "monitors", &[]).unwrap(), leaf);
    assert_eq!(parent.cgroups.pids(&leaf).unwrap(), [shell.0.id()]);
    let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", shell.0.id())).unwrap();
    assert!(groups.lines().all(|line| line.ends_with(&format!("/{}/monitors", parent.name))), "{groups}");
    drop(shell);
    block_on(parent.cgroups.remove(&other)).unwrap();
    parent.end(&leaf);
}

#[test]
fn a_container_sees_its_own_directories() {
    let parent = Parent::new();
    let path = make(&parent, "f1", &Resources::default());
    assert_eq!(parent.cgroups.layout(), Layout::Hybrid, "this test is about this machine");
    let MountKind::Cgroup { readonly, v1, v2_bind, .. } = parent.cgroups.container_mount(&path, true, true) else {
        panic!("not a cgroup mount");
    };
    assert!(readonly);
    let v2 = v2_bind.unwrap();
    assert!(v2.join("cgroup.procs").is_file() && v2.ends_with("f1"));
    assert!(v1.iter().any(|(name, _)| name == "memory"));
    assert!(v1.iter().all(|(_, dir)| dir.join("tasks").is_file() && dir.ends_with("f1")), "{v1:?}");
    let exec = parent.cgroups.join_exec(&path, std::process::id()).unwrap();
    assert_eq!(exec, parent.cgroups.join(&path));
    parent.end(&path);
}
