//! Commands that `berth-init` runs in running containers. Needs root and busybox-static.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test says what went wrong by panicking")]

use crate::init::fixture::container;
use crate::init::groups::Groups;
use crate::init::run::{With, hear_terminal};
use crate::init::{Fixture, Run, forbid, no_cgroup, shell, status};
use berth_model::RunAs;
use berth_monitor_api::spec::{ExecSpec, InitSpec, Process, TerminalSize};
use std::os::fd::AsFd;

fn exec(process: Process) -> InitSpec {
    InitSpec::Exec(Box::new(ExecSpec { process, cgroup: no_cgroup(), user_namespace: false }))
}

fn running(f: &Fixture) -> Run {
    let mut run = Run::ready(&container(f.idle()));
    run.go().unwrap();
    assert_eq!(run.line(), "up");
    run
}

fn enter<'a>(run: &'a Run) -> With<'a> {
    With { target: run.pidfd.as_ref().map(AsFd::as_fd), ..With::default() }
}

#[test]
fn a_command_is_in_the_container_and_as_confined() {
    let f = Fixture::new("exec-in");
    let main = running(&f);
    let mut process = shell("cat /proc/self/status; ps | grep -c 'cat$'; pwd; cat; exit 7");
    process.cwd = "/data".into();
    process.seccomp = Some(forbid(83));
    process.user.run_as = RunAs::Name { name: "app".into(), gid: None };
    let mut run = Run::ready_with(&exec(process), &enter(&main));
    assert_eq!(run.identity.groups, [50, 1001]);
    for name in ["mnt", "pid", "net", "ipc", "uts", "cgroup", "user"] {
        assert_eq!(run.namespace(name), main.namespace(name), "{name}");
    }
    run.write("through the pipe");
    let end = run.finish();
    assert_eq!(end.code, 7);
    assert_eq!(status(&end.out, "Uid"), "1000\t1000\t1000\t1000");
    assert_eq!(status(&end.out, "CapInh"), "0".repeat(16));
    assert_eq!((status(&end.out, "NoNewPrivs").as_str(), status(&end.out, "Seccomp").as_str()), ("1", "2"));
    assert!(end.out.ends_with("1\n/data\nthrough the pipe"), "{}", end.out);
    assert_eq!(main.kill(), 137);
}

#[test]
fn a_command_joins_its_group_from_outside_the_cgroup_namespace() {
    let f = Fixture::new("exec-cgroup");
    let groups = Groups::new("exec");
    let mut spec = f.idle();
    spec.cgroup = groups.join();
    let mut main = Run::ready(&container(spec));
    main.go().unwrap();
    assert_eq!(main.line(), "up");
    let spec = ExecSpec { process: shell("cat /proc/self/cgroup"), cgroup: groups.join(), user_namespace: false };
    let run = Run::ready_with(&InitSpec::Exec(Box::new(spec)), &enter(&main));
    for pids in groups.pids() {
        let mut pids: Vec<&str> = pids.lines().collect();
        pids.sort_unstable();
        let mut wanted = [main.pid.to_string(), run.pid.to_string()];
        wanted.sort_unstable();
        assert_eq!(pids, wanted);
    }
    let out = run.finish().out;
    assert!(out.contains("memory:/\n") && out.contains("0::/\n"), "{out}");
    main.kill();
}

#[test]
fn a_command_has_a_terminal_of_the_container() {
    let f = Fixture::new("exec-tty");
    let main = running(&f);
    let mut process = shell("tty; stty size; sleep 0 </dev/tty && echo controlling");
    process.terminal = Some(TerminalSize { rows: 5, cols: 6 });
    let mut run = Run::ready_with(&exec(process), &With { null: true, ..enter(&main) });
    let mut master = run.take_terminal();
    run.go().unwrap();
    let out = hear_terminal(&mut master, None);
    assert!(out.contains("/dev/pts/0\r\n5 6\r\n") && out.contains("controlling"), "{out}");
    assert_eq!(run.ended().code, 0);
    drop(main);
}

#[test]
fn commands_fail_with_words() {
    let f = Fixture::new("exec-fails");
    let main = running(&f);
    let fails = |change: &dyn Fn(&mut Process)| {
        let mut process = shell("true");
        change(&mut process);
        let mut run = Run::start(&exec(process), &enter(&main));
        let failed = run.until_ready().and_then(|()| run.go()).unwrap_err();
        assert_ne!(run.end_of_all(), 0);
        failed
    };
    let e = fails(&|p| p.cwd = "/no/such".into());
    assert!(e.errno == 2 && e.detail.contains("/no/such"), "{e:?}");
    assert!(!f.path("upper/no").exists(), "exec creates nothing");
    let e = fails(&|p| p.args[0] = "no-such".into());
    assert!(e.step == "program" && e.detail.contains("127"), "{e:?}");

    let fd = main.pidfd.as_ref().unwrap().try_clone().unwrap();
    main.kill();
    let mut run = Run::start(&exec(shell("true")), &With { target: Some(fd.as_fd()), ..With::default() });
    let e = run.until_ready().unwrap_err();
    assert!(e.errno == 3 && e.detail.contains("not running"), "{e:?}");
    assert_ne!(run.end_of_all(), 0);
}

#[test]
fn a_frozen_conversation_ends_with_the_daemon() {
    let f = Fixture::new("exec-eof");
    let main = running(&f);
    let mut run = Run::ready_with(&exec(shell("touch /started")), &enter(&main));
    run.hang_up();
    assert_ne!(run.ended().code, 0);
    assert!(!f.path("upper/started").exists());
    drop(main);
}
