//! What confines a container, asked for by the CRI and read from the kernel.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

use crate::daemon;
use crate::daemon::client::refused;
use crate::daemon::requests::{bind, int64, pod_security, resources, security};
use crate::daemon::{Node, container, host, is_alive, pod, proc_status, shell};
use berth_proto::cri::security_profile::ProfileType;
use berth_proto::cri::*;
use tonic::Code;

/// A container that waits, to be looked into.
fn idle(node: &Node, name: &str) -> ContainerConfig {
    container(node, name, &["/web", "sleep"])
}

fn options(config: &mut ContainerConfig) -> &mut NamespaceOption {
    security(config).namespace_options.get_or_insert_default()
}

fn namespace(pid: i32, kind: &str) -> String {
    std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().display().to_string()
}

fn own_pid() -> i32 {
    i32::try_from(std::process::id()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_and_groups_are_those_of_request_and_image() {
    let node = Node::with_tools().await;
    let (cri, sandbox) = (node.cri(), pod(&node, "pod"));
    let pod = cri.run(&sandbox).await;
    let launch = async |name: &str, change: &dyn Fn(&mut LinuxContainerSecurityContext)| {
        let mut config = idle(&node, name);
        change(security(&mut config));
        let id = cri.launch(&pod, &config, &sandbox).await;
        let pid = cri.pid(&id).await;
        let user = cri.status(&id).await.unwrap().user.unwrap().linux.unwrap();
        let ids = format!("{}:{}", proc_status(pid, "Uid"), proc_status(pid, "Gid"));
        let groups = proc_status(pid, "Groups");
        let first = |text: &str| text.split(' ').next().unwrap().parse::<i64>().unwrap();
        assert_eq!((user.uid, user.gid), (first(&proc_status(pid, "Uid")), first(&proc_status(pid, "Gid"))));
        // A command has the same identity.
        assert_eq!(cri.sh(&id, "id -u").await, user.uid.to_string());
        (ids, groups)
    };
    let (ids, _) = launch("root", &|_| {}).await;
    assert_eq!(ids, "0 0 0 0:0 0 0 0");
    let (ids, groups) = launch("uid", &|s| (s.run_as_user, s.run_as_group) = (int64(1000), int64(3000))).await;
    assert_eq!((ids.as_str(), groups.as_str()), ("1000 1000 1000 1000:3000 3000 3000 3000", "2000 2001 3000"));
    let (ids, groups) = launch("name", &|s| {
        s.run_as_username = "low".into();
        s.supplemental_groups = vec![4000];
    })
    .await;
    assert_eq!((ids.as_str(), groups.as_str()), ("1001 1001 1001 1001:1002 1002 1002 1002", "1002 2001 4000"));
    let (_, groups) = launch("strict", &|s| {
        s.run_as_user = int64(1000);
        s.supplemental_groups = vec![4000];
        s.supplemental_groups_policy = SupplementalGroupsPolicy::Strict as i32;
    })
    .await;
    assert_eq!(groups, "1000 4000");
    let mut unknown = idle(&node, "unknown");
    security(&mut unknown).run_as_username = "nobody-here".into();
    let words = ["nobody-here", "/etc/passwd", "image"];
    refused(cri.try_create(&pod, &unknown, &sandbox).await, Code::FailedPrecondition, &words);
    // Where the pod brings a file of its own, that one counts, and it is read when all is mounted.
    for (name, line, starts) in [("known", "nobody-here:x:77:78::/:\n", true), ("lost", "root:x:0:0::/:\n", false)] {
        let file = node.base().join(format!("passwd-{name}"));
        std::fs::write(&file, line).unwrap();
        let mut config = idle(&node, name);
        security(&mut config).run_as_username = "nobody-here".into();
        let host_path = file.to_string_lossy().into_owned();
        config.mounts = vec![Mount { container_path: "/etc/passwd".into(), host_path, ..Default::default() }];
        let id = cri.create(&pod, &config, &sandbox).await;
        if starts {
            cri.try_start(&id).await.unwrap();
            assert_eq!(proc_status(cri.pid(&id).await, "Uid"), "77 77 77 77");
        } else {
            let message = cri.try_start(&id).await.unwrap_err().message().to_owned();
            assert!(message.contains("nobody-here"), "{message}");
        }
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn capabilities_privileges_and_root_file_system() {
    const DEFAULT: &str = "00000000a80425fb";
    let node = Node::with_tools().await;
    let cri = node.cri();
    let mut sandbox = pod(&node, "pod");
    pod_security(&mut sandbox).privileged = true;
    let pod = cri.run(&sandbox).await;
    let caps = async |name: &str, add: &[&str], drop: &[&str], user: i64| {
        let mut config = idle(&node, name);
        let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        security(&mut config).capabilities =
            Some(Capability { add_capabilities: list(add), drop_capabilities: list(drop), ..Default::default() });
        security(&mut config).run_as_user = int64(user);
        security(&mut config).no_new_privs = true;
        let pid = cri.pid(&cri.launch(&pod, &config, &sandbox).await).await;
        assert_eq!(proc_status(pid, "NoNewPrivs"), "1");
        assert_eq!(proc_status(pid, "CapInh"), "0000000000000000");
        (proc_status(pid, "CapEff"), proc_status(pid, "CapBnd"))
    };
    assert_eq!(caps("default", &[], &[], 0).await, (DEFAULT.to_owned(), DEFAULT.to_owned()));
    assert_eq!(caps("none", &[], &["ALL"], 0).await.0, "0000000000000000");
    assert_eq!(caps("one", &["NET_ADMIN"], &["ALL"], 0).await.1, "0000000000001000");
    assert_eq!(caps("less", &["cap_sys_ptrace"], &["CHOWN"], 0).await.0, "00000000a80c25fa");
    assert_eq!(caps("user", &[], &[], 1000).await.0, "0000000000000000");

    let plain = cri.launch(&pod, &idle(&node, "plain"), &sandbox).await;
    assert_eq!(proc_status(cri.pid(&plain).await, "NoNewPrivs"), "0");
    assert_eq!(proc_status(cri.pid(&plain).await, "Seccomp"), "0");
    cri.sh(&plain, "touch /here && test ! -e /dev/kmsg && ! mknod /tmp/disk b 8 0 2>/dev/null || ! head -c1 /tmp/disk")
        .await;
    assert_ne!(cri.code(&plain, "echo 1 > /proc/sys/net/ipv4/ip_forward").await.0, 0, "/proc/sys is read-only");

    let mut config = idle(&node, "privileged");
    security(&mut config).privileged = true;
    let id = cri.launch(&pod, &config, &sandbox).await;
    let pid = cri.pid(&id).await;
    assert_eq!(proc_status(pid, "CapEff"), proc_status(node.pid(), "CapBnd"));
    cri.sh(&id, "test -e /dev/kmsg && mount -t tmpfs none /tmp && cat /proc/kallsyms > /dev/null").await;

    let mut config = idle(&node, "readonly");
    security(&mut config).readonly_rootfs = true;
    config.mounts = vec![bind(node.base(), "/data")];
    let id = cri.launch(&pod, &config, &sandbox).await;
    let (code, text) = cri.code(&id, "touch /here").await;
    assert!(code != 0 && text.contains("Read-only"), "{text}");
    cri.sh(&id, "touch /data/from-inside /dev/shm/x && rm /data/from-inside").await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seccomp_profiles_filter() {
    let node = Node::with_tools().await;
    let (cri, sandbox) = (node.cri(), pod(&node, "pod"));
    let pod = cri.run(&sandbox).await;
    let profile = node.base().join("no-mkdir.json");
    let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls":
        [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]}"#;
    std::fs::write(&profile, text).unwrap();
    let launch = async |name: &str, kind: ProfileType, path: &str| {
        let mut config = idle(&node, name);
        security(&mut config).seccomp =
            Some(SecurityProfile { profile_type: kind as i32, localhost_ref: path.to_owned() });
        cri.launch(&pod, &config, &sandbox).await
    };
    let id = launch("default", ProfileType::RuntimeDefault, "").await;
    assert_eq!(proc_status(cri.pid(&id).await, "Seccomp"), "2");
    // unshare(2) without CAP_SYS_ADMIN is what every default profile refuses; a command is confined too.
    assert_eq!(cri.sh(&id, "grep Seccomp: /proc/self/status").await, "Seccomp:\t2");
    assert_ne!(cri.code(&id, "mount -t tmpfs none /tmp").await.0, 0);
    let id = launch("unconfined", ProfileType::Unconfined, "").await;
    assert_eq!(proc_status(cri.pid(&id).await, "Seccomp"), "0");
    let id = launch("localhost", ProfileType::Localhost, &format!("localhost/{}", profile.display())).await;
    let (code, text) = cri.code(&id, "mkdir /tmp/x").await;
    assert!(code != 0 && text.contains("Permission denied"), "{text}");
    let mut config = idle(&node, "missing");
    let path = node.base().join("no-such.json").display().to_string();
    security(&mut config).seccomp =
        Some(SecurityProfile { profile_type: ProfileType::Localhost as i32, localhost_ref: path });
    let message = cri.try_create(&pod, &config, &sandbox).await.unwrap_err().message().to_owned();
    assert!(message.contains("no-such.json"), "{message}");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn namespaces_are_shared_as_asked() {
    let node = Node::with_tools().await;
    let cri = node.cri();
    let mut sandbox = pod(&node, "host");
    *pod_security(&mut sandbox).namespace_options.as_mut().unwrap() = NamespaceOption {
        network: NamespaceMode::Node as i32,
        pid: NamespaceMode::Node as i32,
        ipc: NamespaceMode::Node as i32,
        ..Default::default()
    };
    let pod_id = cri.run(&sandbox).await;
    assert_eq!(cri.pod_status(&pod_id).await.unwrap().network.unwrap().ip, "");
    let mut config = idle(&node, "on-node");
    *options(&mut config) = pod_security(&mut sandbox).namespace_options.clone().unwrap();
    let id = cri.launch(&pod_id, &config, &sandbox).await;
    let pid = cri.pid(&id).await;
    for kind in ["net", "pid", "ipc", "uts"] {
        assert_eq!(namespace(pid, kind), namespace(own_pid(), kind), "{kind}");
    }
    assert_ne!(namespace(pid, "mnt"), namespace(own_pid(), "mnt"));
    assert_eq!(cri.sh(&id, "hostname").await, host("hostname", &[]).trim());

    let mut sandbox = pod(&node, "shared");
    let mode = NamespaceMode::Pod as i32;
    pod_security(&mut sandbox).namespace_options.as_mut().unwrap().pid = mode;
    let pod_id = cri.run(&sandbox).await;
    let mut ids = Vec::new();
    for name in ["one", "two"] {
        let mut config = idle(&node, name);
        options(&mut config).pid = mode;
        ids.push(cri.launch(&pod_id, &config, &sandbox).await);
    }
    let (one, two) = (cri.pid(&ids[0]).await, cri.pid(&ids[1]).await);
    for kind in ["net", "pid", "ipc", "uts"] {
        assert_eq!(namespace(one, kind), namespace(two, kind), "{kind}");
        assert_ne!(namespace(one, kind), namespace(own_pid(), kind), "{kind}");
    }
    assert_eq!(cri.sh(&ids[0], "hostname").await, "shared");
    assert!(cri.sh(&ids[0], "cat /proc/1/comm").await.contains("berth-pod-init"));
    // The end of one container leaves the other.
    cri.try_stop(&ids[0], 5).await.unwrap();
    assert!(is_alive(two));
    // A container may join another's.
    let mut config = idle(&node, "target");
    *options(&mut config) =
        NamespaceOption { pid: NamespaceMode::Target as i32, target_id: ids[1].clone(), ..Default::default() };
    let id = cri.launch(&pod_id, &config, &sandbox).await;
    assert_eq!(namespace(cri.pid(&id).await, "pid"), namespace(two, "pid"));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_namespaces_map_ids_and_volumes() {
    let node = Node::with_tools().await;
    let cri = node.cri();
    let mapping = IdMapping { host_id: 2_000_000, container_id: 0, length: 65_536 };
    let mut sandbox = pod(&node, "mapped");
    pod_security(&mut sandbox).namespace_options.as_mut().unwrap().userns_options =
        Some(UserNamespace { mode: NamespaceMode::Pod as i32, uids: vec![mapping], gids: vec![mapping] });
    let pod = cri.run(&sandbox).await;
    let volume = node.base().join("volume");
    std::fs::create_dir(&volume).unwrap();
    std::fs::write(volume.join("theirs"), "hello").unwrap();
    let mut config = idle(&node, "c");
    *options(&mut config) = pod_security(&mut sandbox).namespace_options.clone().unwrap();
    config.mounts =
        vec![Mount { uid_mappings: vec![mapping], gid_mappings: vec![mapping], ..bind(&volume, "/volume") }];
    let id = cri.launch(&pod, &config, &sandbox).await;
    let pid = cri.pid(&id).await;
    assert_eq!(proc_status(pid, "Uid"), "2000000 2000000 2000000 2000000");
    assert_ne!(namespace(pid, "user"), namespace(own_pid(), "user"));
    assert_eq!(cri.sh(&id, "id -u; stat -c %u /volume/theirs /bin/busybox").await, "0\n0\n0");
    cri.sh(&id, "touch /volume/ours && chown 1000 /volume/ours && touch /root/x").await;
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(volume.join("ours")).unwrap().uid(), 1000, "idmapped: as if there were no namespace");
    assert_eq!(std::fs::metadata(volume.join("theirs")).unwrap().uid(), 0);
    let mut bad = config.clone();
    bad.metadata.as_mut().unwrap().name = "bad".into();
    bad.linux.as_mut().unwrap().security_context.as_mut().unwrap().run_as_user = int64(70_000);
    refused(cri.try_create(&pod, &bad, &sandbox).await, Code::InvalidArgument, &["run_as_user", "65536"]);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mounts_propagate_and_are_read_only_as_asked() {
    let node = Node::with_tools().await;
    let cri = node.cri();
    let mut sandbox = pod(&node, "pod");
    pod_security(&mut sandbox).privileged = true;
    let pod = cri.run(&sandbox).await;
    let shared = node.base().join("shared");
    std::fs::create_dir_all(shared.join("below")).unwrap();
    let path = shared.display().to_string();
    host("mount", &["-t", "tmpfs", "berth-e2e", &path]);
    host("mount", &["--make-shared", &path]);
    std::fs::create_dir_all(shared.join("below")).unwrap();
    host("mount", &["-t", "tmpfs", "berth-e2e", &format!("{path}/below")]);
    let mut config = idle(&node, "c");
    let with = |target: &str, propagation: MountPropagation| Mount {
        propagation: propagation as i32,
        ..bind(&shared, target)
    };
    config.mounts = vec![
        with("/private", MountPropagation::PropagationPrivate),
        with("/slave", MountPropagation::PropagationHostToContainer),
        with("/both", MountPropagation::PropagationBidirectional),
        Mount { readonly: true, ..bind(&shared, "/ro") },
        Mount { readonly: true, recursive_read_only: true, ..bind(&shared, "/rro") },
    ];
    security(&mut config).privileged = true;
    let id = cri.launch(&pod, &config, &sandbox).await;
    std::fs::create_dir(shared.join("later")).unwrap();
    host("mount", &["-t", "tmpfs", "berth-e2e-later", &format!("{path}/later")]);
    std::fs::write(shared.join("later/file"), "").unwrap();
    assert_eq!(
        cri.sh(
            &id,
            "test ! -e /private/later/file && test -e /slave/later/file && test -e /both/later/file && echo so"
        )
        .await,
        "so"
    );
    cri.sh(&id, "mkdir /both/inner && mount -t tmpfs none /both/inner && touch /both/inner/file").await;
    assert!(shared.join("inner/file").exists(), "what a container mounts in a bidirectional mount comes out");
    assert_ne!(cri.code(&id, "touch /ro/x").await.0, 0);
    cri.sh(&id, "touch /ro/below/x").await;
    assert_ne!(cri.code(&id, "touch /rro/x").await.0, 0);
    assert_ne!(cri.code(&id, "touch /rro/below/y").await.0, 0, "read-only with all below");
    cri.try_remove_pod(&pod).await.unwrap();
    host("umount", &["-R", &path]);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sysctls_devices_and_masked_paths() {
    let node = Node::with_tools().await;
    let cri = node.cri();
    let mut sandbox = pod(&node, "pod");
    sandbox.linux.as_mut().unwrap().sysctls = [("net.core.somaxconn", "777"), ("kernel.shm_rmid_forced", "1")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
    let pod = cri.run(&sandbox).await;
    let mut config = idle(&node, "c");
    config.devices = vec![
        Device { host_path: "/dev/null".into(), container_path: "/dev/mine".into(), permissions: "rw".into() },
        Device { host_path: "/dev/zero".into(), container_path: "/dev/readable".into(), permissions: "r".into() },
    ];
    security(&mut config).masked_paths = ["/proc/meminfo", "/sys/firmware", "/no/such"].map(str::to_owned).into();
    security(&mut config).readonly_paths = vec!["/proc/sys".into(), "/tmp".into()];
    let id = cri.launch(&pod, &config, &sandbox).await;
    let read = "cat /proc/sys/net/core/somaxconn /proc/sys/kernel/shm_rmid_forced";
    assert_eq!(cri.sh(&id, read).await, "777\n1");
    cri.sh(&id, "echo gone > /dev/mine && head -c 4 /dev/readable | wc -c").await;
    assert_eq!(cri.sh(&id, "wc -c < /proc/meminfo").await, "0");
    assert_ne!(cri.code(&id, "touch /tmp/x").await.0, 0);
    let unasked = "mknod /root/disk b 254 0 && head -c 1 /root/disk";
    let (code, text) = cri.code(&id, unasked).await;
    assert!(code != 0 && text.contains("not permitted"), "a device that nobody gave: {text}");
    for node in ["null", "zero", "full", "random", "urandom", "tty", "ptmx", "shm", "mqueue", "pts", "fd", "stdin"] {
        cri.sh(&id, &format!("test -e /dev/{node} -o -L /dev/{node}")).await;
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_are_the_kernels_and_can_be_changed() {
    let node = Node::with_tools().await;
    let (cri, sandbox) = (node.cri(), pod(&node, "pod"));
    let pod = cri.run(&sandbox).await;
    let mut config = idle(&node, "c");
    *resources(&mut config) = LinuxContainerResources {
        memory_limit_in_bytes: 64 << 20,
        cpu_quota: 50_000,
        cpu_period: 100_000,
        cpu_shares: 512,
        oom_score_adj: 500,
        cpuset_cpus: "0".into(),
        ..Default::default()
    };
    let id = cri.launch(&pod, &config, &sandbox).await;
    let pid = cri.pid(&id).await;
    let read = |controller: &str, file: &str| group_file(pid, controller, file);
    assert_eq!(read("memory", "memory.limit_in_bytes"), (64 << 20).to_string());
    assert_eq!((read("cpu", "cpu.cfs_quota_us"), read("cpu", "cpu.shares")), ("50000".into(), "512".into()));
    assert_eq!(read("pids", "pids.max"), "200", "the node's own limit");
    assert_eq!(read("cpuset", "cpuset.cpus"), "0");
    assert_eq!(std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim(), "500");
    let update = async |linux: LinuxContainerResources| {
        let request =
            UpdateContainerResourcesRequest { container_id: id.clone(), linux: Some(linux), ..Default::default() };
        cri.runtime().update_container_resources(request).await
    };
    update(LinuxContainerResources { memory_limit_in_bytes: 96 << 20, cpu_quota: 20_000, ..Default::default() })
        .await
        .unwrap();
    assert_eq!(read("memory", "memory.limit_in_bytes"), (96 << 20).to_string());
    assert_eq!((read("cpu", "cpu.cfs_quota_us"), read("cpu", "cpu.shares")), ("20000".into(), "512".into()));
    let told = cri.status(&id).await.unwrap().resources.unwrap().linux.unwrap();
    assert_eq!((told.memory_limit_in_bytes, told.cpu_quota, told.cpu_shares), (96 << 20, 20_000, 512));
    let bad = update(LinuxContainerResources { cpuset_cpus: "77".into(), ..Default::default() }).await;
    assert!(bad.is_err());
    assert_eq!(read("cpuset", "cpuset.cpus"), "0", "what was refused changed nothing");
    node.finish().await;
}

/// A file of the process's control group on this machine's hierarchy of that controller.
fn group_file(pid: i32, controller: &str, file: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let has = |line: &&str| line.split(':').nth(1).unwrap().split(',').any(|c| c == controller);
    let path =
        text.lines().find(has).unwrap_or_else(|| panic!("no {controller} in {text}")).splitn(3, ':').nth(2).unwrap();
    let path = format!("/sys/fs/cgroup/{controller}{path}/{file}");
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}")).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_ports_lead_to_the_pod() {
    let node = Node::with_tools().await;
    let cri = node.cri();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut sandbox = pod(&node, "served");
    sandbox.port_mappings = vec![PortMapping { host_port: i32::from(port), container_port: 80, ..Default::default() }];
    let pod = cri.run(&sandbox).await;
    let mut config = shell(&node, "c", "exec /web serve");
    config.envs = vec![KeyValue { key: "GREETING".into(), value: b"hello \xff".to_vec() }];
    cri.launch(&pod, &config, &sandbox).await;
    let ip = cri.pod_status(&pod).await.unwrap().network.unwrap().ip;
    for address in [format!("127.0.0.1:{port}"), format!("{ip}:80")] {
        let what = format!("{address} answers");
        let text = daemon::eventually(&what, async || daemon::page(&address, "/").await).await;
        assert_eq!(text, "Hello from served, a pod run by Berth.\n");
    }
    let mut second = pod_with_port(&node, "second", port);
    let answer = cri.try_run(&second).await;
    assert!(answer.is_err(), "a port that is taken: {answer:?}");
    cri.try_remove_pod(&pod).await.unwrap();
    second.metadata.as_mut().unwrap().attempt = 1;
    let id = cri.run(&second).await;
    cri.try_remove_pod(&id).await.unwrap();
    node.finish().await;
}

fn pod_with_port(node: &Node, name: &str, port: u16) -> PodSandboxConfig {
    let mut sandbox = pod(node, name);
    sandbox.port_mappings = vec![PortMapping { host_port: i32::from(port), container_port: 80, ..Default::default() }];
    sandbox
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_sees_its_cgroup_as_the_root() {
    let node = Node::with_tools().await;
    let script = "cut -d: -f3 /proc/self/cgroup; grep -E ' - cgroup2? ' /proc/self/mountinfo | cut -d' ' -f4; \
                  cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null";
    let mut config = shell(&node, "own", script);
    resources(&mut config).memory_limit_in_bytes = 64 << 20;
    let (status, log) = node.cri().to_the_end(&node, config).await;
    let lines: Vec<&str> = log.lines().collect();
    let (limit, roots) = lines.split_last().unwrap();
    assert!(roots.len() >= 2 && roots.iter().all(|path| *path == "/"), "paths and mounts agree: {log}");
    assert_eq!(*limit, (64 << 20).to_string(), "{} {log}", status.reason);
    node.finish().await;
}
