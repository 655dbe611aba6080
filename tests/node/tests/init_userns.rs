//! Pods with a user namespace. Needs root and busybox-static.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test says what went wrong by panicking")]

use crate::init;
use crate::init::fixture::container;
use crate::init::run::{With, hear_terminal};
use crate::init::{Fixture, Run, bind, mount, no_cgroup, shell, status};
use berth_model::{IdMapping, Propagation, RunAs};
use berth_monitor_api::spec::{
    Bind, ContainerSpec, DeviceNode, ExecSpec, InitSpec, MountKind, PidInit, PidNamespace, Shm, TerminalSize,
    UserNamespace,
};
use berth_sys::seccomp_load::{self, Instruction};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

const BASE: u32 = 300_000;

fn pod(f: &Fixture, change: impl Fn(&mut berth_monitor_api::spec::SandboxSpec)) -> Run {
    // As on a node: nobody but the host's root may pass.
    std::fs::set_permissions(&f.dir, std::fs::Permissions::from_mode(0o700)).unwrap();
    let map = IdMapping { container: 0, host: BASE, length: 65536 };
    let mut spec = f.sandbox();
    spec.user = Some(UserNamespace { path: f.file("ns/user", ""), uid: map, gid: map });
    change(&mut spec);
    let mut run = Run::start(&InitSpec::Sandbox(spec), &With::default());
    run.until_done().unwrap_or_else(|e| panic!("{e:?}"));
    run
}

fn inside(f: &Fixture, script: &str) -> ContainerSpec {
    let mut spec = f.joined(f.script(script));
    spec.namespaces.user = Some(f.path("ns/user"));
    spec.rootfs.idmapped = true;
    spec.rootfs.owner = Some((BASE, BASE));
    spec.mounts.push(mount("/dev/mqueue", MountKind::Mqueue));
    spec
}

#[test]
fn root_in_the_pod_is_nobody_on_the_node() {
    let f = Fixture::new("userns");
    let pod = pod(&f, |spec| {
        spec.sysctls = [("net.ipv4.ip_unprivileged_port_start".to_owned(), "7".to_owned())].into();
        spec.shm = Some(Shm { path: f.path("shm"), size: 65536, label: None });
        f.dir("shm");
    });
    assert_eq!((f.mounts().len(), pod.pid), (5, 0), "{:?}", f.mounts());
    let meta = std::fs::metadata(f.path("shm")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (BASE, BASE));

    let mut spec = inside(
        &f,
        "cat /proc/self/status /proc/self/uid_map /proc/self/setgroups; stat -c '%n %u:%g' / /etc /bin/busybox /dev/shm; \
         hostname; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; echo new >/etc/new; echo more >>/etc/group; \
         echo x >/dev/null && head -c 2 /dev/zero | wc -c; mknod /tmp/n c 1 3 || echo no-mknod; \
         mkdir /mine && chown 1000:1000 /mine; ls /sys/class/net; echo again >/dev/stdout",
    );
    spec.process.oom_score_adj = Some(400);
    spec.mounts.push(mount("/dev/shm", MountKind::Bind(bind(&f.path("shm")))));
    let end = Run::ready(&container(spec)).finish();
    let out = &end.out;
    assert_eq!(status(out, "Uid"), "0\t0\t0\t0", "{out}");
    assert_eq!(status(out, "CapEff"), format!("{:016x}", init::DEFAULT_CAPS));
    assert!(out.contains("300000") && out.contains("allow\n"), "{out}");
    for line in ["/ 0:0", "/etc 0:0", "/bin/busybox 0:0", "/dev/shm 0:0", "pod-name\n7\n2\n", "no-mknod", "lo\nagain\n"]
    {
        assert!(out.contains(line), "{line}: {out}");
    }
    let owner = |path: &str| std::fs::symlink_metadata(f.path(path)).unwrap().uid();
    assert_eq!(owner("upper/etc/new"), BASE);
    assert_eq!(owner("upper/etc/group"), BASE, "a copied-up file");
    assert_eq!(owner("upper/mine"), BASE + 1000);
    assert_eq!(owner("lower/etc/group"), 0, "the image is as it was");
}

#[test]
fn users_namespaces_and_volumes_of_the_pod() {
    let f = Fixture::new("userns-more");
    pod(&f, |_| {});
    let volume = f.dir("volume");
    f.file("volume/file", "root's");
    let mut spec = inside(
        &f,
        "id; stat -c '%u' /v/file; echo x >/v/new || echo denied; touch /v/n2; cat /dev/full | wc -c | head -c 0",
    );
    spec.mounts.push(mount("/v", MountKind::Bind(Bind { idmapped: true, ..bind(&volume) })));
    spec.process.user.run_as = RunAs::Uid { uid: 1000, gid: None };
    spec.process.user.supplemental_groups = vec![2000];
    std::fs::set_permissions(&volume, std::fs::Permissions::from_mode(0o777)).unwrap();
    spec.process.args[2] = "id; stat -c '%u' /v/file; echo x >/v/new; echo out >/dev/stdout".into();
    let mut run = Run::ready(&container(spec));
    let own = std::fs::read_link("/proc/self/ns/user").unwrap().display().to_string();
    assert_ne!(run.namespace("user"), own);
    for name in ["net", "ipc", "uts"] {
        let pinned = std::fs::metadata(f.path(&format!("ns/{name}"))).unwrap().ino();
        assert!(run.namespace(name).contains(&pinned.to_string()), "{name}");
    }
    run.stdin = None;
    let out = run.finish().out;
    assert!(out.contains("uid=1000(app) gid=1001(app) groups=50(staff),1001(app),2000\n0\nout\n"), "{out}");
    assert_eq!(std::fs::metadata(f.path("volume/new")).unwrap().uid(), 1000, "an id-mapped volume keeps container ids");

    let mut spec = inside(&f, "true");
    let bidirectional = Bind { propagation: Propagation::Bidirectional, ..bind(&volume) };
    spec.mounts.push(mount("/v", MountKind::Bind(bidirectional)));
    assert!(Run::fails(&container(spec)).detail.contains("user namespace"));
}

#[test]
fn exec_terminal_devices_and_shared_pids() {
    let f = Fixture::new("userns-exec");
    let pod = pod(&f, |spec| spec.pid_init = Some(PidInit { cgroup: no_cgroup(), oom_score_adj: 0 }));
    assert_eq!(status(&pod.proc("status"), "Uid").split('\t').next(), Some(BASE.to_string().as_str()));
    let mut spec = inside(&f, "echo up; cat >/dev/null");
    spec.namespaces.pid = PidNamespace::Target;
    spec.masked_paths = ["/proc/kcore", "/proc/keys", "/proc/scsi", "/sys/firmware"].map(Into::into).into();
    spec.readonly_paths = ["/proc/sys", "/proc/bus"].map(Into::into).into();
    spec.rootfs.readonly = true;
    spec.devices = vec![DeviceNode {
        path: "/dev/second/zero".into(),
        host_path: "/dev/zero".into(),
        block: false,
        major: 1,
        minor: 5,
        mode: 0o666,
        uid: 0,
        gid: 0,
    }];
    let target = pod.pidfd.as_ref().unwrap().as_fd();
    let mut main = Run::ready_with(&container(spec), &With { target: Some(target), ..With::default() });
    main.go().unwrap();
    assert_eq!(main.line(), "up");

    let mut process =
        shell("id -u; tty; head -c 4 /dev/second/zero | wc -c; wc -c </proc/keys; ps | grep -c berth-pod-init");
    process.terminal = Some(TerminalSize { rows: 1, cols: 2 });
    let spec = InitSpec::Exec(Box::new(ExecSpec { process, cgroup: no_cgroup(), user_namespace: true }));
    let target = main.pidfd.as_ref().unwrap().as_fd();
    let mut run = Run::ready_with(&spec, &With { target: Some(target), null: true, ..With::default() });
    assert_eq!(run.namespace("user"), main.namespace("user"));
    let mut master = run.take_terminal();
    run.go().unwrap();
    let out = hear_terminal(&mut master, None);
    assert_eq!(run.ended().code, 0);
    assert!(out.starts_with("0\r\n/dev/pts/0\r\n4\r\n0\r\n"), "{out}");
    drop(main);
    assert_eq!(pod.kill(), 137);
}

/// As in init_mounts.rs: fsconfig(2) does not take descriptors.
fn older_kernel() {
    let i = |code, jt, jf, k| Instruction { code, jt, jf, k };
    let (no, yes) = (i(0x06, 0, 0, 0x0005_0016), i(0x06, 0, 0, 0x7fff_0000));
    let program = [i(0x20, 0, 0, 0), i(0x15, 0, 3, 431), i(0x20, 0, 0, 24), i(0x15, 0, 1, 5), no, yes];
    seccomp_load::load(&program, 0).unwrap();
}

#[test]
fn older_kernels_shift_layers_too() {
    let f = Fixture::new("userns-old");
    pod(&f, |_| {});
    let spec = inside(&f, "stat -c '%u' /etc /bin/busybox; echo x >/new");
    let out = std::thread::spawn(move || {
        older_kernel();
        Run::ready(&container(spec)).finish().out
    });
    assert_eq!(out.join().unwrap(), "0\n0\n");
    assert_eq!(std::fs::metadata(f.path("upper/new")).unwrap().uid(), BASE);
}

#[test]
fn the_hosts_network_brings_the_hosts_sysfs() {
    let f = Fixture::new("userns-hostnet");
    pod(&f, |spec| spec.net = None);
    let mut spec =
        inside(&f, "ls /sys/class/net | head -n 1; touch /sys/fs/x 2>&1; grep -c ' /sys ' /proc/self/mountinfo");
    spec.namespaces.net = None;
    let end = Run::ready(&container(spec)).finish();
    assert!(end.out.contains("Read-only") && end.out.ends_with("1\n"), "{end:?}");
}
