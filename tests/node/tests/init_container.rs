//! Containers made by `berth-init`: namespaces, mounts, identity, confinement. Needs root and busybox-static.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test says what went wrong by panicking")]

mod init;

use berth_model::RunAs;
use berth_monitor_api::spec::{Rlimit, User};
use init::fixture::container;
use init::{Fixture, Run, caps, forbid, host, status};

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
    drop(host("true", &[]));
}
