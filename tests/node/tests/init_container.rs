//! Containers made by `berth-init`: namespaces, identity, confinement, life cycle. Needs root and busybox-static.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test says what went wrong by panicking")]

use crate::init;
use crate::init::fixture::container;
use crate::init::groups::Groups;
use crate::init::run::With;
use crate::init::{Fixture, Run, caps, forbid, mount, status};
use berth_model::RunAs;
use berth_monitor_api::spec::{CgroupJoin, MountKind, Rlimit, User};
use berth_monitor_api::sync::{FromInit, ToInit};
use berth_sys::seccomp_load::{self, Instruction};
use std::os::unix::fs::PermissionsExt;

#[test]
fn a_process_is_confined_as_asked() {
    let f = Fixture::new("confined");
    let mut spec = f.script("cat /proc/self/status; umask; mkdir -p /tmp/x && echo made || echo refused");
    spec.process.seccomp = Some(forbid(83)); // mkdir
    spec.process.no_new_privs = false;
    spec.process.user = User { run_as: RunAs::Name { name: "app".into(), gid: None }, ..User::default() };
    let run = Run::ready(&container(spec));
    assert_eq!((run.identity.uid, run.identity.gid, &run.identity.groups[..]), (1000, 1001, &[50, 1001][..]));
    for phase in ["sources", "rootfs", "namespaces", "cgroup", "mounts", "pivot", "confine"] {
        assert!(run.phases.iter().any(|p| p == phase), "no phase {phase} in {:?}", run.phases);
    }
    let end = run.finish();
    assert_eq!(end.code, 0, "{end:?}");
    let field = |name| status(&end.out, name);
    assert_eq!(field("Uid"), "1000\t1000\t1000\t1000");
    assert_eq!(field("Gid"), "1001\t1001\t1001\t1001");
    assert_eq!(field("Groups"), "50 1001");
    assert_eq!((field("NoNewPrivs").as_str(), field("Seccomp").as_str()), ("0", "2"));
    assert_eq!((field("CapInh"), field("CapAmb")), ("0".repeat(16), "0".repeat(16)));
    // A user that is not root has no capability after execve, but the bounding set stays.
    assert_eq!((field("CapPrm"), field("CapBnd")), ("0".repeat(16), format!("{:016x}", init::DEFAULT_CAPS)));
    assert_eq!((field("SigIgn"), field("SigBlk")), ("0".repeat(16), "0".repeat(16)));
    assert!(end.out.contains("0022") && end.out.contains("refused"), "{}", end.out);
}

#[test]
fn root_has_the_capabilities_of_the_spec() {
    let f = Fixture::new("root");
    let mut spec = f.script("cat /proc/self/status; echo HOME=$HOME; ulimit -n; cat /proc/self/oom_score_adj");
    spec.process.capabilities = caps(0b1011);
    spec.process.oom_score_adj = Some(321);
    spec.process.rlimits = vec![Rlimit { resource: 7, soft: 100, hard: 200 }];
    let end = Run::ready(&container(spec)).finish();
    let wanted = format!("{:016x}", 0b1011);
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(status(&end.out, set), wanted, "{set}");
    }
    assert_eq!(status(&end.out, "CapInh"), "0".repeat(16));
    assert_eq!(status(&end.out, "NoNewPrivs"), "1");
    assert!(end.out.ends_with("HOME=/root\n100\n321\n"), "{}", end.out);
}

#[test]
fn ambient_capabilities_survive_for_users() {
    let f = Fixture::new("ambient");
    let mut spec = f.script("cat /proc/self/status");
    spec.process.user = User { run_as: RunAs::Uid { uid: 4711, gid: Some(12) }, ..User::default() };
    spec.process.capabilities.ambient = 1 << 10;
    spec.process.seccomp = Some(forbid(83));
    let end = Run::ready(&container(spec)).finish();
    for set in ["CapAmb", "CapInh", "CapPrm", "CapEff"] {
        assert_eq!(status(&end.out, set), format!("{:016x}", 1 << 10), "{set}");
    }
    assert_eq!((status(&end.out, "Groups").as_str(), status(&end.out, "Seccomp").as_str()), ("12", "2"));
}

#[test]
fn a_score_below_what_the_kernel_allows_is_clamped() {
    let own: i32 = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse().unwrap();
    let may_lower = status(&std::fs::read_to_string("/proc/self/status").unwrap(), "CapEff");
    let may_lower = u64::from_str_radix(&may_lower, 16).unwrap() & (1 << 24) != 0;
    let f = Fixture::new("oom");
    let mut spec = f.script("cat /proc/self/oom_score_adj");
    spec.process.oom_score_adj = Some(-999);
    let found: i32 = Run::ready(&container(spec)).finish().out.trim().parse().unwrap();
    if may_lower {
        assert_eq!(found, -999);
    } else {
        assert!(found > -999 && found <= own, "{found}, own {own}");
    }
}

#[test]
fn the_child_is_in_new_namespaces_and_in_no_others() {
    let f = Fixture::new("namespaces");
    let mut run = Run::ready(&container(f.idle()));
    let own = |name: &str| std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap().display().to_string();
    for name in ["mnt", "pid", "cgroup"] {
        assert_ne!(run.namespace(name), own(name), "{name}");
    }
    for name in ["net", "ipc", "uts", "user"] {
        assert_eq!(run.namespace(name), own(name), "{name}");
    }
    run.go().unwrap();
    assert_eq!(run.line(), "up");
    // The shell may hold copies of its own streams by now (it saves one where it redirects); nothing else may be open.
    let fds = format!("/proc/{}/fd", run.pid);
    let target = |fd: &str| std::fs::read_link(format!("{fds}/{fd}")).map(|t| t.display().to_string());
    let streams: Vec<String> = ["0", "1", "2"].iter().map(|fd| target(fd).unwrap()).collect();
    for entry in std::fs::read_dir(&fds).unwrap() {
        let fd = entry.unwrap().file_name().into_string().unwrap();
        if let Ok(open) = target(&fd) {
            assert!(streams.contains(&open) || open == "/dev/null", "descriptor {fd} is open on {open}");
        }
    }
    let status_text = run.proc("status");
    assert_eq!(status(&status_text, "PPid"), std::process::id().to_string(), "the monitor's child");
    assert!(status(&status_text, "NSpid").ends_with("\t1"), "{status_text}");
    assert_eq!(
        run.proc("mountinfo").lines().filter(|l| l.contains(&f.dir.display().to_string())).count(),
        1,
        "overlay options only"
    );
    run.stdin = None;
    assert_eq!(run.ended().code, 0);
}

#[test]
fn nothing_starts_that_nobody_waits_for() {
    let f = Fixture::new("eof");
    let mut run = Run::ready(&container(f.script("touch /started")));
    run.hang_up();
    assert_ne!(run.ended().code, 0);
    assert!(!f.path("upper/started").exists());

    let mut run = Run::start(&container(f.script("touch /started")), &With::default());
    run.hang_up();
    assert_ne!(run.end_of_all(), 0);
    assert!(!f.path("upper/started").exists());
}

#[test]
fn wrong_answers_of_the_daemon_are_refused() {
    let f = Fixture::new("answers");
    let mut run = Run::ready(&container(f.script("touch /started")));
    run.say(ToInit::Continue);
    match run.hear() {
        Some(FromInit::Failed { detail, .. }) => assert!(detail.contains("Continue"), "{detail}"),
        other => panic!("{other:?}"),
    }
    assert!(!f.path("upper/started").exists());
    assert_ne!(run.end_of_all(), 0);
}

#[test]
fn failures_name_step_and_path() {
    let f = Fixture::new("failures");
    let failed = |change: &dyn Fn(&mut berth_monitor_api::spec::ContainerSpec)| {
        let mut spec = f.script("true");
        change(&mut spec);
        Run::fails(&container(spec))
    };
    let e = failed(&|s| s.mounts.push(mount("/data", MountKind::Bind(init::bind(&f.path("missing"))))));
    assert_eq!((e.step.as_str(), e.errno), ("sources", 2));
    assert!(e.detail.contains("missing") && e.detail.contains("/data"), "{e:?}");
    let e = failed(&|s| s.mounts.push(mount("/etc/passwd", MountKind::Bind(init::bind(&f.path("lower"))))));
    assert_eq!((e.step.as_str(), e.errno), ("mounts", 20), "{e:?}");
    let e = failed(&|s| s.mounts.push(mount("/", MountKind::Bind(init::bind(&f.path("lower"))))));
    assert!(e.detail.contains("root"), "{e:?}");
    let e = failed(&|s| s.rootfs.lower[0] = f.path("nolayer"));
    assert_eq!((e.step.as_str(), e.errno), ("rootfs", 2));
    let e = failed(&|s| s.process.user.run_as = RunAs::Name { name: "nobody".into(), gid: None });
    assert!(e.step == "confine" && e.detail.contains("nobody"), "{e:?}");
    let e = failed(&|s| s.process.apparmor = Some("berth-default".into()));
    assert!(e.step == "confine" && e.detail.contains("berth-default"), "no profile is ever skipped: {e:?}");
    let e = failed(&|s| s.process.args.clear());
    assert!(e.detail.contains("no command"), "{e:?}");
    let e = failed(&|s| s.namespaces.net = Some(f.path("lower/etc/passwd")));
    assert!(e.step == "namespaces" && e.detail.contains("passwd"), "{e:?}");
}

#[test]
fn a_program_that_cannot_start_has_the_code_of_shells() {
    let f = Fixture::new("exec");
    let plain = f.file("lower/bin/plain", "#!/bin/sh\n");
    std::fs::set_permissions(plain, std::fs::Permissions::from_mode(0o644)).unwrap();
    let lost = f.file("lower/bin/lost", "#!/no/such/interpreter\n");
    std::fs::set_permissions(lost, std::fs::Permissions::from_mode(0o755)).unwrap();
    let wrong = f.file("lower/bin/wrong", "not a program");
    std::fs::set_permissions(wrong, std::fs::Permissions::from_mode(0o755)).unwrap();
    for (program, errno, code) in [
        ("no-such", 2, 127),
        ("/no/such", 2, 127),
        ("plain", 13, 126),
        ("/etc", 13, 126),
        ("lost", 2, 127),
        ("wrong", 8, 126),
    ] {
        let mut run = Run::ready(&container(f.spec(init::process(&[program]))));
        run.say(ToInit::Go);
        let failed = loop {
            match run.hear().unwrap() {
                FromInit::Failed { step, errno, detail } => break (step, errno, detail),
                FromInit::ExecNext => {}
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((failed.0.as_str(), failed.1), ("program", errno), "{program}: {}", failed.2);
        assert!(failed.2.contains(&format!("exit code {code}")), "{}", failed.2);
        assert_eq!(run.end_of_all(), code, "{program}");
    }
}

#[test]
fn the_child_joins_its_cgroups_and_sees_them_as_roots() {
    joins_its_cgroups("cgroup");
}

/// Makes the calling thread, and what it starts, a kernel of the oldest kind that must do: memfd_create(2) knows neither MFD_EXEC nor
/// MFD_NOEXEC_SEAL (6.3), there are no keyrings (they are an option), and clone3(2) takes no group (88 bytes of arguments; it refuses
/// threaded ones and those of other trees).
fn older_kernel() {
    let i = |code, jt, jf, k| Instruction { code, jt, jf, k };
    let (number, argument, errno) =
        (i(0x20, 0, 0, 0), |at: u32| i(0x20, 0, 0, 16 + 8 * at), |e: u32| i(0x06, 0, 0, 0x0005_0000 | e));
    let program = [
        number,
        i(0x15, 0, 3, 319), // memfd_create
        argument(1),
        i(0x45, 0, 1, 0x18), // either of the two flags
        errno(22),
        number,
        i(0x15, 0, 3, 250), // keyctl
        argument(0),
        i(0x15, 0, 1, 1), // KEYCTL_JOIN_SESSION_KEYRING
        errno(38),
        number,
        i(0x15, 0, 3, 435), // clone3
        argument(1),
        i(0x15, 0, 1, 88),
        errno(38),
        i(0x06, 0, 0, 0x7fff_0000), // ALLOW
    ];
    seccomp_load::load(&program, 0).unwrap();
    let newer = rustix::fs::memfd_create("newer", rustix::fs::MemfdFlags::EXEC);
    assert_eq!(newer.unwrap_err(), rustix::io::Errno::INVAL, "the filter bites");
}

#[test]
fn on_an_older_kernel_the_child_joins_by_itself() {
    let joined = std::thread::spawn(|| {
        older_kernel();
        joins_its_cgroups("cgroup-old");
    });
    joined.join().unwrap();
}

fn joins_its_cgroups(name: &str) {
    let f = Fixture::new(name);
    let groups = Groups::new(name);
    let mut spec = f.idle();
    spec.process.args[2] =
        "echo up; cat /proc/self/cgroup; ls /sys/fs/cgroup/ /sys/fs/cgroup/memory; echo end; cat >/dev/null".into();
    spec.cgroup = groups.join();
    let v1 = groups.0.iter().map(|dir| {
        let controller = dir.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
        (controller, dir.clone())
    });
    spec.mounts.push(mount(
        "/sys/fs/cgroup",
        MountKind::Cgroup {
            readonly: true,
            v1: v1.collect(),
            v1_links: vec![("cpu-link".into(), "cpu".into())],
            v2_bind: groups.1.clone(),
        },
    ));
    let mut run = Run::ready(&container(spec));
    for pids in groups.pids() {
        assert_eq!(pids.trim(), run.pid.to_string(), "before the program runs it is in every group");
    }
    run.go().unwrap();
    let text: Vec<String> = std::iter::from_fn(|| Some(run.line()).filter(|l| l != "end")).collect();
    let text = text.join("\n");
    assert!(text.contains("memory:/\n") && text.contains("0::/\n"), "roots of the cgroup namespace: {text}");
    assert!(text.contains("unified") && text.contains("cpu-link") && text.contains("memory.limit_in_bytes"), "{text}");
    run.stdin = None;
    assert_eq!(run.ended().code, 0);
}

#[test]
fn a_moved_child_waits_for_its_group() {
    let f = Fixture::new("moved");
    let groups = Groups::new("moved");
    let mut spec = f.script("cat /proc/self/cgroup");
    spec.cgroup = CgroupJoin::Moved;
    let mut run = Run::start(&container(spec), &With::default());
    run.until_ready_moving(|pid| {
        for dir in groups.all() {
            std::fs::write(dir.join("cgroup.procs"), pid.to_string()).unwrap();
        }
    })
    .unwrap();
    let out = run.finish().out;
    assert!(out.contains("memory:/\n") && out.contains("0::/\n"), "the namespace is made after the move: {out}");
}
