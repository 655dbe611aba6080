//! The tree that `berth-init` gives to a container. Needs root and busybox-static.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test says what went wrong by panicking")]

use crate::init;
use crate::init::fixture::container;
use crate::init::run::{With, hear_terminal};
use crate::init::{Fixture, Run, bind, host, mount};
use berth_model::{MountOptions, Propagation};
use berth_monitor_api::spec::{Bind, DeviceNode, MountKind, TerminalSize};
use berth_sys::seccomp_load::{self, Instruction};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;

#[test]
fn mounts_go_where_the_spec_says() {
    let f = Fixture::new("mounts");
    let source = f.dir("source");
    f.file("source/file", "from the host");
    symlink("/run", f.path("lower/var-run")).unwrap();
    let mut spec = f.script(
        "cat /data/file /single; echo; touch /data/new /ro/no || echo ro; cat /proc/self/mountinfo; ls /var-run/secrets; pwd",
    );
    let ro = Bind { readonly: true, options: MountOptions::ALL, ..bind(&source) };
    spec.mounts.extend([
        mount("/data", MountKind::Bind(bind(&source))),
        mount("/ro", MountKind::Bind(ro)),
        mount("/single", MountKind::Bind(bind(&f.path("source/file")))),
        mount("/scratch", MountKind::Tmpfs { size: 65536, mode: 0o1777, noexec: true }),
        mount("/var-run/secrets", MountKind::Bind(bind(&source))),
        mount("/dev/mqueue", MountKind::Mqueue),
    ]);
    spec.rootfs.readonly = true;
    spec.process.cwd = "/made/for/cwd".into();
    let end = Run::ready(&container(spec)).finish();
    let out = &end.out;
    assert!(out.starts_with("from the hostfrom the host\n") && out.contains("\nro\n"), "{out}");
    assert!(f.path("source/new").exists() && !f.path("source/no").exists());
    let line = |target: &str| {
        let line = out.lines().find(|l| l.split(' ').nth(4) == Some(target));
        line.unwrap_or_else(|| panic!("no {target}: {out}")).to_owned()
    };
    assert!(line("/").split(' ').nth(5).unwrap().starts_with("ro,"), "{}", line("/"));
    assert!(line("/ro").contains(" ro,nosuid,nodev,noexec,"), "{}", line("/ro"));
    assert!(line("/scratch").contains(" rw,nosuid,nodev,noexec,") && line("/scratch").contains("size=64k"));
    assert!(line("/proc").contains(" rw,nosuid,nodev,noexec,") && line("/sys").contains(" ro,nosuid,nodev,noexec,"));
    assert!(line("/dev/mqueue").contains("- mqueue"));
    assert!(line("/run/secrets").contains("source"), "a dangling link of the image is followed inside the root");
    assert!(out.contains("\nfile\nnew\n") && out.ends_with("/made/for/cwd\n"), "{out}");
    assert!(!out.contains("shared:") && !out.contains("master:"), "nothing is shared with the host: {out}");
}

#[test]
fn paths_are_hidden_and_protected() {
    let f = Fixture::new("hidden");
    f.file("lower/secret/key", "secret");
    f.file("lower/plain", "secret");
    f.file("lower/second", "secret");
    f.file("lower/keep/file", "seen");
    let mut spec = f.script(
        "cat /plain /second /secret/key 2>&1; ls /secret; cat /keep/file; \
         echo x >/keep/file; echo x >/plain && echo swallowed; touch /secret/x; echo 1 >/proc/sys/kernel/hostname; \
         wc -c </proc/kcore; ls /proc/scsi | wc -l",
    );
    spec.masked_paths =
        ["/plain", "/second", "/secret", "/proc/kcore", "/proc/scsi", "/no/such", "/proc/acpi"].map(Into::into).into();
    spec.readonly_paths = ["/keep", "/proc/sys", "/proc/nothing"].map(Into::into).into();
    spec.process.capabilities = init::caps(init::DEFAULT_CAPS | init::SYS_ADMIN);
    let out = Run::ready(&container(spec)).finish().out;
    assert!(!out.contains("secret\n") && out.contains("No such file"), "{out}");
    assert!(out.contains("seen") && out.contains("swallowed"), "{out}");
    for refused in ["/keep/file: Read-only", "/secret/x: Read-only", "/proc/sys/kernel/hostname: Read-only"] {
        assert!(out.contains(refused), "{refused}: {out}");
    }
}

#[test]
fn devices_are_made_with_their_owners() {
    let f = Fixture::new("devices");
    let mut spec = f.script(
        "cd /dev; stat -c '%n %F %t:%T %a %u:%g' null zero full random urandom tty my/loop; \
         for l in fd stdin stdout stderr ptmx; do echo $l $(readlink $l); done; echo x >null; head -c 3 zero | wc -c; ls pts",
    );
    let node = DeviceNode {
        path: "/dev/my/loop".into(),
        host_path: "/dev/loop0".into(),
        block: true,
        major: 7,
        minor: 5,
        mode: 0o640,
        uid: 1000,
        gid: 6,
    };
    let null = DeviceNode { path: "/dev/null".into(), block: false, major: 1, minor: 3, ..node.clone() };
    let ptmx = DeviceNode { path: "/dev/ptmx".into(), block: false, major: 5, minor: 2, ..node.clone() };
    spec.devices = vec![node.clone(), null, ptmx];
    let out = Run::ready(&container(spec)).finish().out;
    for line in [
        "null character special file 1:3 666 0:0",
        "full character special file 1:7 666 0:0",
        "urandom character special file 1:9 666 0:0",
        "tty character special file 5:0 666 0:0",
        "my/loop block special file 7:5 640 1000:6",
        "fd /proc/self/fd",
        "stdout /proc/self/fd/1",
        "ptmx pts/ptmx",
        "3\nptmx",
    ] {
        assert!(out.contains(line), "{line}: {out}");
    }
    let mut spec = f.script("true");
    spec.devices = vec![DeviceNode { path: "/dev/zero".into(), ..node.clone() }];
    assert!(Run::fails(&container(spec)).detail.contains("another file"));
    let mut spec = f.script("true");
    spec.devices = vec![DeviceNode { path: "/dev/../etc/x".into(), ..node }];
    assert!(Run::fails(&container(spec)).detail.contains("not below /dev"));
}

/// A tmpfs with a tmpfs in it, on a directory of the fixture.
fn nested(f: &Fixture, shared: bool) -> std::path::PathBuf {
    let top = f.dir("top");
    let name = top.to_str().unwrap();
    host("mount", &["-t", "tmpfs", "tmpfs", name]);
    host("mount", &[if shared { "--make-shared" } else { "--make-private" }, name]);
    let below = f.dir("top/below");
    host("mount", &["-t", "tmpfs", "tmpfs", below.to_str().unwrap()]);
    top
}

#[test]
fn recursive_read_only_reaches_every_mount() {
    let f = Fixture::new("rro");
    let top = nested(&f, false);
    for (recursive, wanted) in [(true, "no no"), (false, "no yes")] {
        let mut spec = f.script("t() { touch $1/f 2>/dev/null && echo -n 'yes ' || echo -n 'no '; }; t /v; t /v/below");
        let volume = Bind { readonly: true, recursive_readonly: recursive, ..bind(&top) };
        spec.mounts.push(mount("/v", MountKind::Bind(volume)));
        assert_eq!(Run::ready(&container(spec)).finish().out.trim(), wanted);
    }
    let mut spec = f.script("grep -c ' /v/below ' /proc/self/mountinfo");
    spec.mounts.push(mount("/v", MountKind::Bind(Bind { recursive: false, ..bind(&top) })));
    assert_eq!(Run::ready(&container(spec)).finish().out, "0\n", "without the mounts below");
}

#[test]
fn propagation_is_as_asked_and_no_more() {
    let f = Fixture::new("propagation");
    let top = nested(&f, true);
    let late = f.dir("top/late");
    let seen = |propagation: Propagation| {
        let mut spec = f.script(
            "echo up; read go; grep -q ' /v/late ' /proc/self/mountinfo && echo in || echo out; \
             mkdir -p /v/own; mount -t tmpfs own /v/own && echo mounted; read go",
        );
        spec.process.capabilities = init::caps(init::DEFAULT_CAPS | init::SYS_ADMIN);
        spec.process.no_new_privs = false;
        spec.mounts.push(mount("/v", MountKind::Bind(Bind { propagation, ..bind(&top) })));
        spec.rootfs_propagation = propagation;
        let mut run = Run::ready(&container(spec));
        run.go().unwrap();
        assert_eq!(run.line(), "up");
        host("mount", &["-t", "tmpfs", "tmpfs", late.to_str().unwrap()]);
        run.write("go\n");
        let from_host = run.line();
        assert_eq!(run.line(), "mounted");
        let to_host = f.mounts().iter().any(|m| m.ends_with("top/own"));
        run.write("go\n");
        assert_eq!(run.ended().code, 0);
        host("umount", &[late.to_str().unwrap()]);
        if to_host {
            host("umount", &[f.path("top/own").to_str().unwrap()]);
        }
        (from_host, to_host)
    };
    assert_eq!(seen(Propagation::Private), ("out".into(), false));
    assert_eq!(seen(Propagation::HostToContainer), ("in".into(), false));
    assert_eq!(seen(Propagation::Bidirectional), ("in".into(), true));

    let own = f.dir("own");
    host("mount", &["-t", "tmpfs", "tmpfs", own.to_str().unwrap()]);
    host("mount", &["--make-private", own.to_str().unwrap()]);
    for propagation in [Propagation::HostToContainer, Propagation::Bidirectional] {
        let mut spec = f.script("true");
        spec.mounts.push(mount("/v", MountKind::Bind(Bind { propagation, ..bind(&own) })));
        let failed = Run::fails(&container(spec));
        assert!(failed.detail.contains("shared") && failed.detail.contains("/v"), "{failed:?}");
    }
}

#[test]
fn layers_are_stacked_topmost_first() {
    let f = Fixture::new("layers");
    f.file("top/name", "top");
    f.file("middle/name", "middle");
    f.file("middle/deep", "middle");
    let stack = || {
        let mut spec =
            f.script("cat /name /deep; echo; echo new >/name; cat /name; grep -c ' / / ' /proc/self/mountinfo");
        spec.rootfs.lower = vec![f.path("top"), f.path("middle"), f.path("lower")];
        spec
    };
    assert_eq!(Run::ready(&container(stack())).finish().out, "topmiddle\nnew\n1\n");
    assert_eq!(std::fs::read_to_string(f.path("upper/name")).unwrap(), "new\n");
    assert_eq!(std::fs::read_to_string(f.path("top/name")).unwrap(), "top");
}

/// Makes the calling thread, and what it starts, a kernel without layers by descriptor: fsconfig(2) with FSCONFIG_SET_FD (5)
/// is EINVAL.
fn older_kernel() {
    let i = |code, jt, jf, k| Instruction { code, jt, jf, k };
    let program = [
        i(0x20, 0, 0, 0),           // A = nr
        i(0x15, 0, 3, 431),         // fsconfig?
        i(0x20, 0, 0, 24),          // A = args[1], low half
        i(0x15, 0, 1, 5),           // FSCONFIG_SET_FD?
        i(0x06, 0, 0, 0x0005_0016), // ERRNO(EINVAL)
        i(0x06, 0, 0, 0x7fff_0000), // ALLOW
    ];
    seccomp_load::load(&program, 0).unwrap();
}

#[test]
fn older_kernels_get_the_same_root() {
    let f = Fixture::new("old-kernel");
    f.file("top:odd,name/name", "top");
    let mut spec = f.script("cat /name; echo; echo new >/name; cat /name; grep -c overlay /proc/self/mountinfo");
    spec.rootfs.lower = vec![f.path("top:odd,name"), f.path("lower")];
    let out = std::thread::spawn(move || {
        older_kernel();
        Run::ready(&container(spec)).finish().out
    });
    assert_eq!(out.join().unwrap(), "top\nnew\n1\n");
    assert!(f.mounts().is_empty(), "the host saw nothing: {:?}", f.mounts());
}

#[test]
fn a_terminal_is_the_containers_own() {
    let f = Fixture::new("terminal");
    let mut spec = f.script(
        "tty; stty size; stat -c '%n %t:%T %u' /dev/console /dev/pts/0; ls -l /proc/self/fd/0; echo ask; read x; echo got-$x; \
         cat /proc/self/status | grep NSsid; sleep 0 </dev/tty && echo controlling",
    );
    spec.process.terminal = Some(TerminalSize { rows: 33, cols: 99 });
    spec.process.user.run_as = berth_model::RunAs::Uid { uid: 1000, gid: Some(5) };
    let mut run = Run::ready_with(&container(spec), &With { null: true, ..With::default() });
    let mut master = run.take_terminal();
    run.go().unwrap();
    let mut out = hear_terminal(&mut master, Some("ask"));
    master.write_all(b"word\n").unwrap();
    out += &hear_terminal(&mut master, None);
    assert_eq!(run.ended().code, 0);
    for wanted in
        ["/dev/pts/0\r\n33 99\r\n", "/dev/console 88:0 1000", "/dev/pts/0 88:0 1000", "got-word", "controlling"]
    {
        assert!(out.contains(wanted), "{wanted}: {out}");
    }
}

#[test]
fn null_streams_are_the_containers_device() {
    let f = Fixture::new("null");
    let spec = f.script("ls -lL /proc/self/fd/1 >/copy; stat -L -c '%d' /proc/self/fd/0 /dev/null >/same");
    let run = Run::ready_with(&container(spec), &With { null: true, ..With::default() });
    assert_eq!(run.finish().code, 0);
    let same = std::fs::read_to_string(f.path("upper/same")).unwrap();
    let lines: Vec<&str> = same.lines().collect();
    assert_eq!(lines[0], lines[1], "on the same /dev");
    assert_ne!(lines[0], host("stat", &["-c", "%d", "/dev/null"]).trim());
    assert!(Path::new("/dev/null").exists());
}
