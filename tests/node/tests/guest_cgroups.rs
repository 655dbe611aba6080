//! Control groups where nodes have them: cgroup v2 alone, with systemd. These tests run in the guest only.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test says what went wrong by panicking")]

use crate::cgroups::{Parent, Shell, WAIT, block_on, device_script, until};
use berth_cgroups::{CgroupPath, Cgroups, DevicePolicy, Driver, Layout};
use berth_model::{ErrorKind, Resources};
use berth_monitor_api::spec::{CgroupJoin, MountKind};
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

const MIB: i64 = 1 << 20;

fn limits() -> Resources {
    Resources {
        memory_limit: Some(128 * MIB),
        memory_swap_limit: Some(128 * MIB),
        cpu_quota: Some(50_000),
        cpu_period: Some(100_000),
        cpu_shares: Some(1024),
        cpuset_cpus: "0".into(),
        pids: Some(50),
        ..Resources::default()
    }
}

/// What the kernel should say for them.
fn expected(back: &Resources) -> Resources {
    Resources { hugepages: back.hugepages.clone(), ..limits() }
}

/// A container by systemd: paused, moved, released.
struct Scope {
    cgroups: Cgroups,
    path: CgroupPath,
}

impl Scope {
    fn new(parent: &str) -> Self {
        let cgroups = Cgroups::probe(Driver::Systemd).unwrap();
        let id = berth_node_tests::unique("id");
        let path = cgroups.path(parent, "berth-test.slice", &id).unwrap();
        Self { cgroups, path }
    }

    async fn start(&self, resources: &Resources, script: &str) -> Shell {
        assert_eq!(self.cgroups.join(&self.path), CgroupJoin::Moved);
        let devices = DevicePolicy::standard();
        self.cgroups.create(&self.path, resources, &devices).unwrap();
        let mut shell = Shell::new(&CgroupJoin::Moved, script);
        self.cgroups.start_scope(&self.path, shell.0.id(), resources, &devices).await.unwrap();
        shell.go();
        shell
    }

    fn directory(&self) -> std::path::PathBuf {
        std::path::Path::new("/sys/fs/cgroup").join(self.path.dir())
    }

    fn property(&self, name: &str) -> String {
        let scope = self.path.scope().unwrap();
        let output = Command::new("systemctl").args(["show", "--value", "-p", name, scope]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    async fn end(&self) {
        let (cgroups, path) = (self.cgroups.clone(), self.path.clone());
        tokio::task::spawn_blocking(move || cgroups.kill(&path, WAIT)).await.unwrap().unwrap();
        self.cgroups.remove(&self.path).await.unwrap();
        assert!(!self.directory().exists(), "{} is left", self.path);
        assert_eq!(self.property("LoadState"), "not-found", "systemd still knows the scope");
    }
}

#[test]
fn guest_cgroupfs_limits_devices_and_oom_on_v2() {
    let parent = Parent::new();
    assert_eq!(parent.cgroups.layout(), Layout::V2);
    assert!(
        ["cpu", "cpuset", "memory", "pids", "io"].iter().all(|c| parent.cgroups.controllers().iter().any(|k| k == c))
    );
    let path = parent.group("a1");
    let mut resources = limits();
    resources.unified.insert("memory.high".into(), "100663296".into());
    parent.cgroups.create(&path, &resources, &DevicePolicy::standard()).unwrap();
    let back = parent.cgroups.read_back(&path).unwrap();
    assert_eq!(back, Resources { unified: resources.unified.clone(), ..expected(&back) });
    let script = format!("cat /proc/self/cgroup; {}", device_script());
    let (_, text) = Shell::run(&parent.cgroups.join(&path), &script).output();
    assert_eq!(text, format!("0::{path}\nmade\nrefused\nnull\n"));
    parent.end(&path);

    let small = Resources { memory_limit: Some(16 * MIB), ..Resources::default() };
    parent.cgroups.create(&path, &small, &DevicePolicy::all()).unwrap();
    let (_, text) = Shell::run(&parent.cgroups.join(&path), &device_script()).output();
    assert_eq!(text, "made\nkmsg\nnull\n", "without rules it can be opened, so the refusal above is theirs");
    let (status, _) = Shell::run(&parent.cgroups.join(&path), "exec tail /dev/zero").output();
    assert_eq!((status.signal(), parent.cgroups.oom_kills(&path).unwrap()), (Some(9), 1));
    parent.end(&path);
}

#[test]
fn guest_cgroupfs_update_refuses_what_would_kill() {
    let parent = Parent::new();
    let path = parent.group("b1");
    parent.cgroups.create(&path, &limits(), &DevicePolicy::all()).unwrap();
    let before = parent.cgroups.read_back(&path).unwrap();
    let script = "x=$(head -c 30000000 /dev/zero | tr '\\0' a); read -r _; echo ${#x}";
    let mut shell = Shell::run(&parent.cgroups.join(&path), script);
    until("the memory", || parent.cgroups.usage(&path).unwrap().memory.unwrap().rss > 30_000_000);
    let update = Resources { memory_limit: Some(20 * MIB), cpu_shares: Some(100), ..Resources::default() };
    let e = block_on(parent.cgroups.update(&path, &update)).unwrap_err();
    assert!(e.kind() == ErrorKind::FailedPrecondition && e.message().contains("bytes, peak"), "{e}");
    assert_eq!(parent.cgroups.read_back(&path).unwrap(), before);
    let update = Resources { cpu_quota: Some(20_000), cpuset_mems: "900".into(), ..Resources::default() };
    block_on(parent.cgroups.update(&path, &update)).unwrap_err();
    assert_eq!(parent.cgroups.read_back(&path).unwrap(), before);
    let update = Resources { memory_limit: Some(90 * MIB), ..Resources::default() };
    block_on(parent.cgroups.update(&path, &update)).unwrap();
    shell.go();
    let (status, text) = shell.output();
    assert!(status.success() && text.contains("30000000"), "{text}");
    parent.end(&path);
}

#[test]
fn guest_cgroupfs_page_cache_gives_way_to_a_lower_limit() {
    let parent = Parent::new();
    let path = parent.group("b2");
    parent.cgroups.create(&path, &limits(), &DevicePolicy::all()).unwrap();
    // Not in tmpfs: the binaries of the system are on a real file system.
    let script = "cat /usr/bin/* /usr/lib/*/* 2>/dev/null | head -c 80000000 >/dev/null; read -r _";
    let shell = Shell::run(&parent.cgroups.join(&path), script);
    until("some page cache, and nobody who reads on", || {
        let usage = parent.cgroups.usage(&path).unwrap();
        usage.memory.unwrap().cache > 30 << 20 && usage.pids.unwrap().current == 1
    });
    let update = Resources { memory_limit: Some(24 * MIB), ..Resources::default() };
    block_on(parent.cgroups.update(&path, &update)).unwrap();
    assert_eq!(parent.cgroups.oom_kills(&path).unwrap(), 0);
    drop(shell);
    parent.end(&path);
}

#[test]
fn guest_systemd_scope_lives_and_ends() {
    let scope = Scope::new("/berth-lives.slice");
    assert!(scope.path.to_string().starts_with("/berth.slice/berth-lives.slice/berth-"), "{}", scope.path);
    block_on(async {
        let script = format!("cat /proc/self/cgroup; {}; read -r _", device_script());
        let mut shell = scope.start(&limits(), &script).await;
        let back = scope.cgroups.read_back(&scope.path).unwrap();
        assert_eq!(back, expected(&back));
        assert_eq!(scope.property("MemoryMax"), (128 * MIB).to_string());
        assert_eq!(scope.property("TasksMax"), "50");
        assert_eq!(scope.property("Delegate"), "yes");

        // What systemd does not know is lost when it reads its files again.
        assert!(Command::new("systemctl").arg("daemon-reload").status().unwrap().success());
        assert_eq!(scope.cgroups.read_back(&scope.path).unwrap(), back);
        let update = Resources { memory_limit: Some(200 * MIB), cpu_quota: Some(70_000), ..Resources::default() };
        scope.cgroups.update(&scope.path, &update).await.unwrap();
        assert!(Command::new("systemctl").arg("daemon-reload").status().unwrap().success());
        let back = scope.cgroups.read_back(&scope.path).unwrap();
        assert_eq!((back.memory_limit, back.cpu_quota, back.pids), (Some(200 * MIB), Some(70_000), Some(50)));

        let exec = scope.cgroups.join_exec(&scope.path, shell.0.id()).unwrap();
        let (_, text) = Shell::run(&exec, "cat /proc/self/cgroup").output();
        assert_eq!(text, format!("0::{}\n", scope.path));
        shell.go();
        let (_, text) = shell.output();
        assert_eq!(
            text,
            format!("0::{}\nmade\nrefused\nnull\n", scope.path),
            "devices are refused after the reloads, too"
        );
        scope.end().await;
    });
}

#[test]
fn guest_systemd_scopes_in_parallel() {
    block_on(async {
        let scopes: Vec<_> = (0..8).map(|_| std::sync::Arc::new(Scope::new(""))).collect();
        let tasks: Vec<_> = scopes
            .iter()
            .cloned()
            .map(|scope| {
                tokio::spawn(async move {
                    let shell = scope.start(&limits(), "trap '' TERM; while :; do sleep 1; done").await;
                    assert!(scope.cgroups.is_populated(&scope.path).unwrap());
                    scope.end().await;
                    drop(shell);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

#[test]
fn guest_systemd_refusals_leave_nothing() {
    let scope = Scope::new("");
    block_on(async {
        // A process that is gone.
        let gone = Shell::new(&CgroupJoin::Moved, "");
        let pid = gone.0.id();
        drop(gone);
        let policy = DevicePolicy::standard();
        let e = scope.cgroups.start_scope(&scope.path, pid, &limits(), &policy).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::FailedPrecondition, "{e}");
        scope.end().await;
        // The same name twice.
        let shell = scope.start(&limits(), "exec sleep 1000").await;
        let other = Shell::new(&CgroupJoin::Moved, "");
        let e = scope.cgroups.start_scope(&scope.path, other.0.id(), &limits(), &policy).await.unwrap_err();
        assert!(e.message().contains("exists") || e.message().contains("already"), "{e}");
        assert_eq!(scope.cgroups.pids(&scope.path).unwrap(), [shell.0.id()]);
        scope.end().await;
        drop(shell);
        // And again after its end.
        let shell = scope.start(&limits(), "exec sleep 1000").await;
        scope.end().await;
        drop(shell);
        scope.end().await;
    });
    let parent = scope.cgroups.path("/kubepods/pod1", "", "a1").unwrap_err();
    assert!(parent.message().contains("same cgroup driver"), "{parent}");
}

#[test]
fn guest_systemd_oom_kill_is_seen_through_the_descriptor() {
    let scope = Scope::new("");
    block_on(async {
        let small = Resources { memory_limit: Some(24 * MIB), ..Resources::default() };
        // The shell survives its child and keeps the scope.
        let mut shell = scope.start(&small, "tail /dev/zero; echo $?; read -r _").await;
        let counter = scope.cgroups.oom_fd(&scope.path).unwrap().unwrap();
        until("the kill", || scope.cgroups.oom_kills(&scope.path).unwrap() == 1);
        let text = std::io::read_to_string(std::fs::File::from(counter)).unwrap();
        assert!(text.lines().any(|line| line == "oom_kill 1"), "{text}");
        shell.go();
        let (status, text) = shell.output();
        assert!(status.success() && text.contains("137"), "the scope was stopped by systemd's OOM policy: {text}");
        scope.end().await;
    });
}

#[test]
fn guest_defaults_and_mounts() {
    assert_eq!(Cgroups::default_driver(), Driver::Systemd);
    let scope = Scope::new("");
    let own = MountKind::Cgroup { readonly: true, v1: vec![], v1_links: vec![], v2_bind: None };
    assert_eq!(scope.cgroups.container_mount(&scope.path, true, true), own);
    let host =
        MountKind::Cgroup { readonly: false, v1: vec![], v1_links: vec![], v2_bind: Some("/sys/fs/cgroup".into()) };
    assert_eq!(scope.cgroups.container_mount(&scope.path, false, false), host);
}

#[test]
fn guest_systemd_own_leaf_is_below_the_service() {
    let cgroups = Cgroups::probe(Driver::Systemd).unwrap();
    let shell = Shell::run(&CgroupJoin::Moved, "exec sleep 1000");
    let name = berth_node_tests::unique("leaf");
    let leaf = cgroups.own_leaf("", &name, &[shell.0.id()]).unwrap();
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = own.lines().find(|line| line.starts_with("0::")).unwrap();
    assert_eq!(format!("0::{leaf}"), format!("{own}/{name}"));
    assert_eq!(cgroups.pids(&leaf).unwrap(), [shell.0.id()]);
    cgroups.kill(&leaf, WAIT).unwrap();
    drop(shell);
    block_on(cgroups.remove(&leaf)).unwrap();
    assert!(!std::path::Path::new("/sys/fs/cgroup").join(leaf.dir()).exists());
}
