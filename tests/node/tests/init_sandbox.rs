//! Sandboxes made by `berth-init`, and containers in them. Needs root and busybox-static.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test says what went wrong by panicking")]

use crate::init;
use crate::init::fixture::container;
use crate::init::run::With;
use crate::init::{Fixture, Run, bind, host, mount, no_cgroup, status};
use berth_monitor_api::spec::{InitSpec, MountKind, PidInit, PidNamespace, SandboxSpec, Shm};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

fn sandbox(spec: &SandboxSpec) -> Run {
    let mut run = Run::start(&InitSpec::Sandbox(spec.clone()), &With::default());
    run.until_done().unwrap_or_else(|e| panic!("{e:?}"));
    run
}

#[test]
fn namespaces_outlive_init_and_are_joined() {
    let f = Fixture::new("sandbox");
    let mut spec = f.sandbox();
    spec.sysctls = [
        ("net.ipv4.ip_unprivileged_port_start", "7"),
        ("kernel.shm_rmid_forced", "1"),
        ("kernel.domainname", "example.org"),
        ("fs.mqueue.msg_max", "11"),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .into();
    spec.shm = Some(Shm { path: f.dir("shm"), size: 1024 * 1024, label: None });
    let run = sandbox(&spec);
    assert_eq!((run.pid, run.pidfd.is_some()), (0, false), "no process is left");
    for phase in ["namespaces", "sysctls"] {
        assert!(run.phases.iter().any(|p| p == phase), "{:?}", run.phases);
    }
    assert_eq!(f.mounts().len(), 4, "{:?}", f.mounts());
    assert!(!std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().contains("pod-name"));

    let mut inside = f.joined(f.script(
        "hostname; cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced \
         /proc/sys/kernel/domainname /proc/sys/fs/mqueue/msg_max; ip link | grep -c mtu; ip link | grep -c UP; \
         stat -c '%a %u' /dev/shm; grep ' /dev/shm ' /proc/self/mountinfo; echo $$ >/dev/shm/x; ls /sys/class/net",
    ));
    inside.mounts.push(mount("/dev/shm", MountKind::Bind(bind(&f.path("shm")))));
    let out = Run::ready(&container(inside)).finish().out;
    // One interface, lo, and not up: that is the network's business.
    assert!(out.starts_with("pod-name\n7\n1\nexample.org\n11\n1\n0\n1777 0\n"), "{out}");
    assert!(out.contains("nosuid,nodev,noexec") && out.contains("size=1024k") && out.ends_with("lo\n"), "{out}");
    assert!(f.path("shm/x").exists());
}

#[test]
fn only_what_is_asked_for_is_made() {
    let f = Fixture::new("partial");
    let spec = SandboxSpec { uts: f.sandbox().uts, hostname: "only-uts".into(), ..SandboxSpec::default() };
    sandbox(&spec);
    assert_eq!(f.mounts(), [f.path("ns/uts").display().to_string()]);
}

#[test]
fn failures_name_the_file_or_key() {
    let f = Fixture::new("sandbox-fails");
    let spec = SandboxSpec { net: Some(f.path("no/such")), ..SandboxSpec::default() };
    let failed = Run::fails(&InitSpec::Sandbox(spec));
    assert!(failed.errno == 2 && failed.detail.contains("no/such"), "{failed:?}");
    for (key, value, word) in [
        ("net.ipv4.no_such", "1", "no_such"),
        ("net.ipv4.ip_forward", "1\n+kernel.core_pattern", "control characters"),
        ("net/../kernel/core_pattern", "x", "not a valid name"),
    ] {
        let spec = SandboxSpec { sysctls: [(key.into(), value.into())].into(), ..SandboxSpec::default() };
        let failed = Run::fails(&InitSpec::Sandbox(spec));
        assert!(failed.step == "sysctls" && failed.detail.contains(word), "{failed:?}");
    }
}

#[test]
fn a_shared_pid_namespace_has_an_init_of_its_own() {
    let f = Fixture::new("shared-pid");
    let mut spec = f.sandbox();
    spec.pid_init = Some(PidInit { cgroup: no_cgroup(), oom_score_adj: 500 });
    let pod = sandbox(&spec);
    let status_text = pod.proc("status");
    assert_eq!(status(&status_text, "Name"), "berth-pod-init");
    assert!(status(&status_text, "NSpid").ends_with("\t1"));
    for set in ["CapPrm", "CapEff", "CapBnd", "CapInh"] {
        assert_eq!(status(&status_text, set), "0".repeat(16));
    }
    assert_eq!(pod.proc("oom_score_adj").trim(), "500");
    let until = Instant::now() + Duration::from_secs(10);
    while std::fs::read_dir(format!("/proc/{}/fd", pod.pid)).unwrap().count() > 0 {
        assert!(Instant::now() < until, "it keeps descriptors");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(std::fs::read_dir(format!("/proc/{}/root/", pod.pid)).unwrap().count(), 0, "its root is empty");
    let rss: u64 = status(&pod.proc("status"), "VmRSS").split(' ').next().unwrap().parse().unwrap();
    println!("pod init: VmRSS {rss} kB");

    let target = pod.pidfd.as_ref().unwrap().as_fd();
    let join = |script: &str| {
        let mut spec = f.joined(f.script(script));
        spec.namespaces.pid = PidNamespace::Target;
        spec.process.capabilities = init::caps(init::DEFAULT_CAPS | init::SYS_PTRACE);
        Run::ready_with(&container(spec), &With { target: Some(target), ..With::default() })
    };
    // Signals from inside do nothing to it, and an orphan is reaped by it.
    let out = join(
        "cat /proc/1/comm; ls /proc/1/root/ | wc -l; kill -TERM 1; kill -HUP 1; kill -USR1 1; (sleep 0.2 & echo $!) >/orphan; \
         p=$(cat /orphan); grep PPid /proc/$p/status; sleep 1; ls -d /proc/$p 2>&1; kill -0 1 && echo alive",
    );
    let out = out.finish().out;
    assert!(out.starts_with("berth-pod-init\n0\nPPid:\t1\n"), "{out}");
    assert!(out.contains("No such file") && out.ends_with("alive\n"), "{out}");
    let (mut a, b) = (join("echo up; read x"), join("ps | grep -c 'read x'"));
    a.go().unwrap();
    assert_eq!(a.line(), "up");
    assert!(b.finish().out.trim().parse::<u32>().unwrap() >= 1, "containers see each other");
    // Its end is the end of the namespace, and nothing can be started there.
    berth_sys::pidfd::signal(target, 9).unwrap();
    // A PID 1 ends when all others are reaped, also those whose parent is outside.
    assert_eq!(a.ended().code, 137);
    assert_eq!(pod.kill(), 137);
}

#[test]
fn a_dead_pid_namespace_is_told() {
    let f = Fixture::new("dead-pid");
    let spec =
        SandboxSpec { pid_init: Some(PidInit { cgroup: no_cgroup(), oom_score_adj: 0 }), ..SandboxSpec::default() };
    let pod = sandbox(&spec);
    let fd = pod.pidfd.as_ref().unwrap().try_clone().unwrap();
    pod.kill();
    let mut spec = f.script("true");
    spec.namespaces.pid = PidNamespace::Target;
    let mut run = Run::start(&container(spec), &With { target: Some(fd.as_fd()), ..With::default() });
    let failed = run.until_ready().unwrap_err();
    assert!(failed.detail.contains("ended"), "{failed:?}");
    assert_ne!(run.end_of_all(), 0);
}

#[test]
fn the_pod_shm_is_the_pods_alone() {
    let f = Fixture::new("shm");
    let path = f.dir("shm");
    sandbox(&SandboxSpec { shm: Some(Shm { path: path.clone(), size: 65536, label: None }), ..SandboxSpec::default() });
    let meta = std::fs::metadata(&path).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid()), (0o1777, 0));
    assert!(host("df", &["-k", path.to_str().unwrap()]).contains(" 64 "));
}
