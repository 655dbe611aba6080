//! Limits and device rules of groups on the node's own hierarchies (v1 or hybrid, cgroupfs driver). Needs root.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test says what went wrong by panicking")]

use crate::cgroups;
use crate::cgroups::{Parent, Shell, WAIT, block_on, device_script, until};
use berth_cgroups::{DeviceAccess, DeviceKind, DevicePolicy, DeviceRule};
use berth_model::{ErrorKind, Resources};
use std::os::fd::AsFd as _;
use std::os::unix::process::ExitStatusExt as _;

const MIB: i64 = 1 << 20;

fn limits() -> Resources {
    Resources {
        memory_limit: Some(128 * MIB),
        cpu_quota: Some(50_000),
        cpu_period: Some(100_000),
        cpu_shares: Some(512),
        cpuset_cpus: "0".into(),
        pids: Some(50),
        ..Resources::default()
    }
}

#[test]
fn limits_are_in_force_before_a_process_joins() {
    let parent = Parent::new();
    let path = parent.group("a1");
    parent.cgroups.create(&path, &limits(), &DevicePolicy::standard()).unwrap();
    let back = parent.cgroups.read_back(&path).unwrap();
    let wanted = Resources {
        memory_swap_limit: Some(128 * MIB),
        cpuset_mems: back.cpuset_mems.clone(),
        hugepages: back.hugepages.clone(),
        ..limits()
    };
    assert_eq!(back, wanted);
    assert!(!back.cpuset_mems.is_empty(), "memory nodes are inherited, or nothing could join");
    assert!(!parent.cgroups.is_populated(&path).unwrap());

    let shell = Shell::run(&parent.cgroups.join(&path), "cat /proc/self/cgroup; nproc");
    let (status, text) = shell.output();
    assert!(status.success(), "{text}");
    let groups = text.lines().filter(|line| line.contains(':'));
    for line in groups.clone() {
        assert!(line.ends_with(&format!(":{path}")), "not in the group: {line}");
    }
    assert_eq!(groups.count(), cgroups::roots().len());
    assert_eq!(text.lines().last(), Some("1"), "cpuset is in force");
    parent.end(&path);
}

#[test]
fn an_update_keeps_what_it_does_not_name_and_grows_and_shrinks() {
    let parent = Parent::new();
    let path = parent.group("a2");
    parent.cgroups.create(&path, &limits(), &DevicePolicy::all()).unwrap();
    for mib in [256, 64, -1, 100] {
        let limit = if mib < 0 { -1 } else { mib * MIB };
        let update = Resources { memory_limit: Some(limit), ..Resources::default() };
        block_on(parent.cgroups.update(&path, &update)).unwrap();
        let back = parent.cgroups.read_back(&path).unwrap();
        assert_eq!((back.memory_limit, back.cpu_quota, back.pids), (Some(limit), Some(50_000), Some(50)));
    }
    let update = Resources { cpu_quota: Some(-1), cpu_shares: Some(2048), pids: Some(9), ..Resources::default() };
    block_on(parent.cgroups.update(&path, &update)).unwrap();
    let back = parent.cgroups.read_back(&path).unwrap();
    assert_eq!((back.cpu_quota, back.cpu_shares, back.pids), (Some(-1), Some(2048), Some(9)));
    parent.end(&path);
}

#[test]
fn a_refused_update_changes_nothing() {
    let parent = Parent::new();
    let path = parent.group("a3");
    parent.cgroups.create(&path, &limits(), &DevicePolicy::all()).unwrap();
    let before = parent.cgroups.read_back(&path).unwrap();
    // The CPU that does not exist comes last in the machine's judgement, quota and shares first.
    let update = Resources {
        cpu_quota: Some(20_000),
        cpu_shares: Some(100),
        memory_limit: Some(1 << 30),
        cpuset_mems: "4000".into(),
        ..Resources::default()
    };
    let e = block_on(parent.cgroups.update(&path, &update)).unwrap_err();
    assert!(e.message().contains("cpuset.mems"), "{e}");
    assert_eq!(parent.cgroups.read_back(&path).unwrap(), before);

    // Held in memory by a shell that waits for its stdin.
    let script = "x=$(head -c 40000000 /dev/zero | tr '\\0' a); echo ready; read -r _; echo ${#x}";
    let mut shell = Shell::run(&parent.cgroups.join(&path), script);
    let resident = || parent.cgroups.usage(&path).unwrap().memory.unwrap().rss;
    until("the memory", || resident() > 40_000_000);
    let update = Resources { memory_limit: Some(20 * MIB), cpu_shares: Some(100), ..Resources::default() };
    let e = block_on(parent.cgroups.update(&path, &update)).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::FailedPrecondition);
    let usage: u64 =
        e.message().split(['(', ' ']).find_map(|word| word.parse().ok().filter(|n| *n > 40_000_000)).unwrap();
    assert!(usage < 128 << 20, "{e}");
    assert_eq!(parent.cgroups.read_back(&path).unwrap(), before);
    shell.go();
    let (status, text) = shell.output();
    assert!(status.success() && text.contains("40000000"), "the process was hurt: {text}");
    parent.end(&path);
}

#[test]
fn a_failed_create_leaves_nothing() {
    let parent = Parent::new();
    let path = parent.group("a4");
    for (field, resources) in [
        ("cpuset.cpus", Resources { cpuset_cpus: "8000".into(), ..limits() }),
        ("unified", Resources { unified: [("memory.high".to_owned(), "1".to_owned())].into(), ..limits() }),
        ("cpu_quota", Resources { cpu_quota: Some(5), ..limits() }),
    ] {
        let e = parent.cgroups.create(&path, &resources, &DevicePolicy::standard()).unwrap_err();
        assert!(e.message().contains(field), "{e} does not name {field}");
        assert_eq!(parent.left(), Vec::<std::path::PathBuf>::new());
    }
    // A group in use is not touched.
    parent.cgroups.create(&path, &limits(), &DevicePolicy::standard()).unwrap();
    let shell = Shell::run(&parent.cgroups.join(&path), "exec sleep 1000");
    until("the process", || parent.cgroups.pids(&path).unwrap() == [shell.0.id()]);
    let e = parent.cgroups.create(&path, &limits(), &DevicePolicy::standard()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::AlreadyExists);
    assert!(parent.cgroups.is_populated(&path).unwrap());
    parent.cgroups.kill(&path, WAIT).unwrap();
    // Empty and ours, it is replaced.
    parent.cgroups.create(&path, &limits(), &DevicePolicy::standard()).unwrap();
    parent.end(&path);
}

#[test]
fn a_parent_of_somebody_else_stays() {
    let parent = Parent::new();
    for root in cgroups::roots() {
        std::fs::create_dir(root.join(&parent.name)).unwrap();
    }
    let (first, second) = (parent.group("b1"), parent.group("b2"));
    for path in [&first, &second] {
        parent.cgroups.create(path, &limits(), &DevicePolicy::standard()).unwrap();
    }
    block_on(parent.cgroups.remove(&first)).unwrap();
    assert!(parent.cgroups.read_back(&second).is_ok(), "a neighbour was removed");
    block_on(parent.cgroups.remove(&second)).unwrap();
    block_on(parent.cgroups.remove(&second)).unwrap();
    for dir in parent.left() {
        assert!(!dir.join("pod").exists(), "our own parent in {} is left", dir.display());
        std::fs::remove_dir(&dir).unwrap();
    }
    assert!(parent.left().is_empty());
}

#[test]
fn devices_are_refused_but_for_the_standard_ones() {
    let parent = Parent::new();
    let run = |id: &str, policy: &DevicePolicy| {
        let path = parent.group(id);
        parent.cgroups.create(&path, &limits(), policy).unwrap();
        let (_, text) = Shell::run(&parent.cgroups.join(&path), &device_script()).output();
        parent.end(&path);
        text
    };
    assert_eq!(run("c1", &DevicePolicy::standard()), "made\nrefused\nnull\n");
    assert_eq!(run("c2", &DevicePolicy::all()), "made\nkmsg\nnull\n", "this machine lets root read kmsg");
    let mut one_more = DevicePolicy::standard();
    one_more.rules.push(DeviceRule {
        kind: DeviceKind::Char,
        major: Some(1),
        minor: Some(11),
        access: DeviceAccess::parse("r").unwrap(),
    });
    assert_eq!(run("c3", &one_more), "made\nkmsg\nnull\n");
    let nothing = run("c4", &DevicePolicy::default());
    assert!(
        nothing.contains("not permitted") && nothing.contains("refused") && !nothing.contains("null\n"),
        "{nothing}"
    );
}

/// The kernel runs what the unit tests interpret. The v2 tree of a hybrid machine takes programs, too.
#[test]
fn a_device_program_is_in_force_on_the_v2_tree() {
    let name = berth_node_tests::unique("bpf");
    let root = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(std::path::PathBuf::from);
    let root = root.iter().find(|dir| dir.join("cgroup.procs").exists()).expect("a cgroup v2 tree");
    let dir = root.join(name);
    std::fs::create_dir(&dir).unwrap();
    let group = std::fs::File::open(&dir).unwrap();
    let program = berth_cgroups::device_program(&DevicePolicy::standard()).unwrap();
    let loaded = berth_sys::bpf::load_device_program(&program).unwrap();
    berth_sys::bpf::attach_device_program(group.as_fd(), loaded.as_fd()).unwrap();
    drop(loaded);
    assert_eq!(berth_sys::bpf::device_programs(group.as_fd()).unwrap().len(), 1);
    let join = berth_monitor_api::spec::CgroupJoin::Own { v2: Some(dir.clone()), v1_tasks: Vec::new() };
    let (_, text) = Shell::run(&join, &device_script()).output();
    drop(group);
    until("the end of the group", || std::fs::remove_dir(&dir).is_ok());
    assert_eq!(text, "made\nrefused\nnull\n");
}

#[test]
fn an_oom_kill_is_counted() {
    let parent = Parent::new();
    let path = parent.group("d1");
    let small = Resources { memory_limit: Some(16 * MIB), ..Resources::default() };
    parent.cgroups.create(&path, &small, &DevicePolicy::standard()).unwrap();
    let counter = parent.cgroups.oom_fd(&path).unwrap().unwrap();
    assert_eq!(parent.cgroups.oom_kills(&path).unwrap(), 0);
    let (status, _) = Shell::run(&parent.cgroups.join(&path), "exec tail /dev/zero").output();
    assert_eq!(status.signal(), Some(9));
    assert_eq!(parent.cgroups.oom_kills(&path).unwrap(), 1);
    assert_eq!(parent.cgroups.usage(&path).unwrap().memory.unwrap().oom_kills, 1);
    let text = std::io::read_to_string(std::fs::File::from(counter)).unwrap();
    assert!(text.lines().any(|line| line == "oom_kill 1"), "the monitor reads {text:?}");
    parent.end(&path);
}
