//! Known attacks on runtimes, tried on `berth-init`. Needs root and busybox-static.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test says what went wrong by panicking")]

use crate::init;
use crate::init::fixture::{container, program};
use crate::init::run::With;
use crate::init::{Fixture, Run, bind, caps, mount, no_cgroup, shell};
use berth_model::RunAs;
use berth_monitor_api::spec::{ExecSpec, InitSpec, MountKind, PidNamespace, Process};
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

fn exec(process: Process) -> InitSpec {
    InitSpec::Exec(Box::new(ExecSpec { process, cgroup: no_cgroup(), user_namespace: false }))
}

/// CVE-2019-5736: the runtime's program, reached through /proc/PID/exe, is overwritten for the next start.
#[test]
fn the_program_of_init_cannot_be_changed() {
    let f = Fixture::new("exe");
    // The container's program is the container's idea of init: a link to what runs it.
    let mut main = Run::ready(&container(f.idle()));
    main.go().unwrap();
    assert_eq!(main.line(), "up");
    let mut process = init::process(&["/proc/self/exe", "x"]);
    process.capabilities = caps(u64::MAX >> 23);
    let with = With { target: main.pidfd.as_ref().map(AsFd::as_fd), ..With::default() };
    let mut run = Run::ready_with(&exec(process), &with);
    // While it waits for go, its file is open to the host's root: not even that can write.
    let exe = format!("/proc/{}/exe", run.pid);
    assert!(fs::read_link(&exe).unwrap().display().to_string().contains("memfd:"));
    assert!(fs::OpenOptions::new().write(true).open(&exe).is_err());
    let before = fs::read(&exe).unwrap();
    let keep = program();
    let _ = run.go();
    let _ = run.end_of_all();
    let image = fs::read(format!("/proc/self/fd/{}", keep.as_raw_fd())).unwrap();
    assert_eq!(before, image, "still the sealed program");
    drop(main);
}

#[test]
fn init_refuses_to_run_from_a_file() {
    let dir = std::env::temp_dir().join(format!("berth-init-file-{}", std::process::id()));
    let keep = program();
    let image = fs::read(format!("/proc/self/fd/{}", keep.as_raw_fd())).unwrap();
    fs::write(&dir, image).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    let file = fs::File::open(&dir).unwrap();
    let f = Fixture::new("file");
    let with = With { program: Some(file.as_fd()), ..With::default() };
    let mut run = Run::start(&container(f.script("touch /started")), &with);
    assert!(run.until_ready().unwrap_err().detail.contains("sealed"));
    assert_eq!(run.end_of_all(), 1);
    fs::remove_file(dir).unwrap();
}

/// CVE-2024-21626: a descriptor of a host directory leaks, and the working directory names it.
#[test]
fn descriptors_of_the_host_do_not_leak() {
    let f = Fixture::new("leak");
    let host = fs::File::open("/").unwrap();
    let with = || With { leak: Some(host.as_fd()), ..With::default() };
    let run = Run::ready_with(&container(f.script("ls /proc/self/fd")), &with());
    let out = run.finish().out;
    assert!(!out.contains('9'), "{out}");
    for fd in 3..20 {
        let mut spec = f.script("pwd; ls ../../../../../../../..; cat ../../../../../etc/hostname");
        spec.process.cwd = format!("/proc/self/fd/{fd}").into();
        let mut run = Run::start(&container(spec), &with());
        let failed = run.until_ready().and_then(|()| run.go());
        assert!(failed.is_err(), "cwd /proc/self/fd/{fd} was accepted");
        assert_ne!(run.end_of_all(), 0);
    }
}

/// CVE-2021-30465, CVE-2024-45310, CVE-2026-41579: mount points and /dev behind links of the image.
#[test]
fn links_of_the_image_lead_nowhere_else() {
    let f = Fixture::new("links");
    let outside = f.dir("outside");
    let source = f.dir("source");
    f.file("source/here", "");
    let mut spec = f.script("ls /escape /up/up-target 2>&1; ls -d /fake-dev/null; cat /proc/self/mountinfo");
    symlink(&outside, f.path("lower/escape")).unwrap();
    symlink("../../../../../../../..", f.path("lower/up")).unwrap();
    symlink("/fake-dev", f.path("lower/dev")).unwrap();
    spec.mounts.extend([
        mount("/escape/sub", MountKind::Bind(bind(&source))),
        mount("/up/up-target", MountKind::Bind(bind(&source))),
    ]);
    let out = Run::ready(&container(spec)).finish().out;
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "nothing was made on the host");
    assert!(!std::path::Path::new("/up-target").exists() && !std::path::Path::new("/fake-dev").exists());
    assert!(out.contains("/fake-dev/null") && out.contains(" /up-target "), "{out}");
}

/// CVE-2019-16884, CVE-2019-19921, CVE-2023-27561, CVE-2023-28642: /proc or /sys is not where it seems.
#[test]
fn a_false_proc_is_refused() {
    let f = Fixture::new("proc-link");
    fs::create_dir(f.path("lower/elsewhere")).unwrap();
    symlink("elsewhere", f.path("lower/proc")).unwrap();
    let failed = Run::fails(&container(f.script("true")));
    assert!(failed.step == "mounts" && failed.detail.contains("/proc"), "{failed:?}");
    fs::remove_file(f.path("lower/proc")).unwrap();

    for (target, allowed) in
        [("/proc", false), ("/proc/sys/kernel", false), ("/proc/self/attr", false), ("/proc/meminfo", true)]
    {
        let mut spec = f.script("cat /proc/meminfo");
        let source = if allowed { f.file("source", "replaced") } else { f.dir("dir") };
        spec.mounts.push(mount(target, MountKind::Bind(bind(&source))));
        if allowed {
            assert_eq!(Run::ready(&container(spec)).finish().out, "replaced");
        } else {
            let failed = Run::fails(&container(spec));
            assert!(failed.detail.contains("/proc"), "{failed:?}");
        }
    }
    symlink("/proc/sys", f.path("lower/innocent")).unwrap();
    let mut spec = f.script("true");
    spec.mounts.push(mount("/innocent/kernel", MountKind::Bind(bind(&f.dir("dir")))));
    assert!(Run::fails(&container(spec)).detail.contains("procfs"));

    // Hiding in a /proc that is not one would leave the real one open.
    let mut spec = f.script("true");
    spec.mounts.remove(0);
    f.file("lower/proc/kcore", "");
    spec.masked_paths = vec!["/proc/kcore".into()];
    assert!(Run::fails(&container(spec)).detail.contains("not the kernel's"));
}

/// CVE-2025-31133: masking takes its null device from the container's /dev, where a link waits.
#[test]
fn masks_do_not_come_from_the_container() {
    let f = Fixture::new("mask-null");
    let trap = f.dir("dev");
    symlink("/proc/sys/kernel/core_pattern", trap.join("null")).unwrap();
    let mut spec = f.script("stat -c '%t:%T' /plain; readlink /dev/null; cat /plain");
    f.file("lower/plain", "secret");
    spec.mounts.retain(|m| m.kind != MountKind::Dev);
    spec.mounts.push(mount("/dev", MountKind::Bind(bind(&trap))));
    spec.masked_paths = vec!["/plain".into()];
    let out = Run::ready(&container(spec)).finish().out;
    assert_eq!(out, "1:3\n/proc/sys/kernel/core_pattern\n");
}

/// CVE-2025-52565: the terminal device that the container offers is not one.
#[test]
fn a_false_terminal_is_refused() {
    let f = Fixture::new("false-tty");
    let trap = f.dir("dev");
    fs::create_dir(trap.join("pts")).unwrap();
    for make in [&|| symlink("/etc/passwd", trap.join("pts/ptmx")).unwrap() as (), &|| {
        init::host("mknod", &[trap.join("pts/ptmx").to_str().unwrap(), "c", "1", "3"]);
    }] as [&dyn Fn(); 2]
    {
        make();
        let mut spec = f.script("true");
        spec.mounts.retain(|m| m.kind != MountKind::Dev);
        spec.mounts.push(mount("/dev", MountKind::Bind(bind(&trap))));
        spec.process.terminal = Some(berth_monitor_api::spec::TerminalSize::default());
        let mut run = Run::start(&container(spec), &With { null: true, ..With::default() });
        let failed = run.until_ready().unwrap_err();
        assert!(failed.detail.contains("ptmx"), "{failed:?}");
        run.end_of_all();
        fs::remove_file(trap.join("pts/ptmx")).unwrap();
    }
}

/// CVE-2016-9962: a container looks into the process that joins its PID namespace.
#[test]
fn the_joining_process_cannot_be_inspected() {
    let f = Fixture::new("ptrace");
    let looker = || {
        f.script(
            "echo up; read pid; ls /proc/$pid/root/ >/dev/null 2>&1 && echo open-root; \
             for fd in /proc/$pid/fd/*; do stat -L $fd; done 2>/dev/null | grep -c Inode; cat /proc/$pid/environ 2>&1 | grep -c denied; read x",
        )
    };
    let look = |main: &mut Run, waiting: &Run| {
        let inner = init::status(&waiting.proc("status"), "NSpid");
        main.write(&format!("{}\n", inner.split('\t').next_back().unwrap()));
        assert_eq!((main.line().as_str(), main.line().as_str()), ("0", "1"), "no descriptor, no memory");
    };
    let start = |spec| {
        let mut main = Run::ready(&container(spec));
        main.go().unwrap();
        assert_eq!(main.line(), "up");
        main
    };
    let mut main = start(looker());
    let fd = main.pidfd.as_ref().unwrap().try_clone().unwrap();
    let with = || With { target: Some(fd.as_fd()), ..With::default() };
    let waiting = Run::ready_with(&exec(shell("true")), &with());
    look(&mut main, &waiting);
    assert_eq!(waiting.finish().code, 0);
    main.write("x\n");
    assert_eq!(main.ended().code, 0);

    // The same while another container is made in its PID namespace.
    let mut main = start(looker());
    let fd = main.pidfd.as_ref().unwrap().try_clone().unwrap();
    let mut spec = f.script("true");
    spec.namespaces.pid = PidNamespace::Target;
    (spec.rootfs.upper, spec.rootfs.work) = (f.dir("upper2"), f.dir("work2"));
    let with = With { target: Some(fd.as_fd()), ..With::default() };
    let waiting = Run::ready_with(&container(spec), &with);
    look(&mut main, &waiting);
    assert_eq!(waiting.finish().code, 0);
    main.write("x\n");
    assert_eq!(main.ended().code, 0);
}

/// With CAP_SYS_PTRACE the kernel lets a container look; then there must be nothing of the host to find.
#[test]
fn the_joining_process_holds_nothing_of_the_host() {
    let f = Fixture::new("ptrace-cap");
    let mut spec = f.script(
        "echo up; read pid; for fd in /proc/$pid/fd/*; do [ -d $fd/. ] && stat -L -c '%d:%i' $fd/. ; done; \
         stat -c '%d:%i' /; echo end; read x",
    );
    spec.process.capabilities = caps(init::DEFAULT_CAPS | init::SYS_PTRACE);
    let mut main = Run::ready(&container(spec));
    main.go().unwrap();
    assert_eq!(main.line(), "up");
    let fd = main.pidfd.as_ref().unwrap().try_clone().unwrap();
    let waiting = Run::ready_with(&exec(shell("true")), &With { target: Some(fd.as_fd()), ..With::default() });
    let inner = init::status(&waiting.proc("status"), "NSpid");
    main.write(&format!("{}\n", inner.split('\t').next_back().unwrap()));
    let mut found: Vec<String> = std::iter::from_fn(|| Some(main.line()).filter(|l| l != "end")).collect();
    assert!(found.len() > 1, "it could not look: {found:?}");
    found.dedup();
    assert_eq!(found.len(), 1, "a directory that is not the container's root: {found:?}");
    assert_eq!(waiting.finish().code, 0);
    drop(main);
}

/// CVE-2026-47262 and worse: account files of a running container are whatever it likes.
#[test]
fn false_account_files_harm_nobody() {
    let f = Fixture::new("accounts");
    let mut spec = f.idle();
    spec.process.args[2] =
        "rm /etc/passwd /etc/group; echo up; while read cmd; do eval \"$cmd\"; echo done; done".into();
    let mut main = Run::ready(&container(spec));
    main.go().unwrap();
    assert_eq!(main.line(), "up");
    let attempt = |main: &mut Run, prepare: &str, user: &str| {
        main.write(&format!("{prepare}\n"));
        assert_eq!(main.line(), "done");
        let mut process = shell("id -u");
        process.user.run_as = RunAs::Name { name: user.into(), gid: None };
        let with = With { target: main.pidfd.as_ref().map(AsFd::as_fd), ..With::default() };
        let mut run = Run::start(&exec(process), &with);
        match run.until_ready() {
            Ok(()) => Ok(run.finish().out),
            Err(failed) => {
                run.end_of_all();
                Err(failed.detail)
            }
        }
    };
    let refused = attempt(&mut main, "mknod /etc/passwd p", "app").unwrap_err();
    assert!(refused.contains("not a regular file"), "{refused}");
    let refused = attempt(&mut main, "rm /etc/passwd; mkdir /etc/passwd", "app").unwrap_err();
    assert!(refused.contains("not a regular file"), "{refused}");
    let big = "rm -r /etc/passwd; dd if=/dev/zero of=/etc/passwd bs=1M seek=5000 count=0 2>/dev/null";
    assert!(attempt(&mut main, big, "app").unwrap_err().contains("longer than"));
    let link = "rm /etc/passwd; ln -s /proc/1/root/etc/passwd /etc/passwd";
    assert!(attempt(&mut main, link, "app").is_err());
    let wrong = "rm /etc/passwd; echo app:x:4294967296:0::/: >/etc/passwd";
    assert!(attempt(&mut main, wrong, "app").unwrap_err().contains("app"), "an id that does not fit is no id 0");
    assert_eq!(attempt(&mut main, "echo app:x:12:0::/: >/etc/passwd", "app").unwrap(), "12\n");
    drop(main);
}

/// CVE-2025-52881 and the like: nothing of exec goes through the container's /proc, so it may be missing or false.
#[test]
fn exec_does_not_need_the_containers_proc() {
    let f = Fixture::new("no-proc");
    let mut spec = f.idle();
    spec.process.args[2] =
        "umount -l /proc && mount -t tmpfs x /proc && mkdir -p /proc/self/attr && echo up; cat >/dev/null".into();
    spec.process.capabilities = caps(init::DEFAULT_CAPS | init::SYS_ADMIN);
    spec.process.no_new_privs = false;
    let mut main = Run::ready(&container(spec));
    main.go().unwrap();
    assert_eq!(main.line(), "up");
    let with = || With { target: main.pidfd.as_ref().map(AsFd::as_fd), ..With::default() };
    let mut process = shell("ls /proc /proc/self/attr; echo ok");
    process.oom_score_adj = Some(77);
    let mut run = Run::ready_with(&exec(process.clone()), &with());
    assert_eq!(run.proc("oom_score_adj").trim(), "77");
    run.stdin = None;
    assert!(run.finish().out.ends_with("ok\n"));
    // A label that cannot be set is refused; it does not end in a file of the container's.
    process.apparmor = Some("berth-default".into());
    let mut run = Run::start(&exec(process), &with());
    let failed = run.until_ready().unwrap_err();
    assert!(failed.detail.contains("AppArmor"), "{failed:?}");
    run.end_of_all();
    std::thread::sleep(Duration::from_millis(1));
    drop(main);
}
