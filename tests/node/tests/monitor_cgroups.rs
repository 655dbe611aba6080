//! The monitor and real cgroups: where it lives, what the OOM killer did, what outlives a main process.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // A test may fail at any line.

use crate::monitor::*;
use berth_monitor_api::spec::CgroupJoin;
use berth_oci::monitor::{LaunchOptions, SpawnRequest};
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// A group of the test's own, removed however the test ends.
struct Group(PathBuf);

impl Group {
    fn new(tree: &Path) -> Self {
        let path = tree.join(berth_node_tests::unique("berth-monitor-test-"));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The last process may still be on its way out.
        for _ in 0..200 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        eprintln!("{} cannot be removed", self.0.display());
        assert!(std::thread::panicking(), "a group is left behind");
    }
}

/// The v2 tree: all of it, or the part of a hybrid host.
fn v2() -> PathBuf {
    let trees = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(PathBuf::from);
    trees
        .into_iter()
        .find(|tree| tree.join("cgroup.procs").exists() && tree.join("cgroup.controllers").exists())
        .unwrap()
}

/// The tree with the memory controller, and its names for limit and counter.
fn memory() -> (PathBuf, &'static str, &'static str) {
    let v1 = PathBuf::from("/sys/fs/cgroup/memory");
    if v1.exists() {
        return (v1, "memory.limit_in_bytes", "memory.oom_control");
    }
    (v2(), "memory.max", "memory.events")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kernels_oom_killer_is_counted() {
    let (tree, limit, events) = memory();
    let group = Group::new(&tree);
    std::fs::write(group.file(limit), "16777216").unwrap();
    let mut pod = Pod::start().await;
    let counter = File::open(group.file(events)).unwrap();
    let procs = group.file("cgroup.procs").display().to_string();
    // tail keeps the whole line in memory.
    let spec = shell(&format!("echo $$ > {procs}; exec tail -n 1 /dev/zero"));
    let request = SpawnRequest { oom: Some(counter.as_fd()), ..pod.request("hungry", &spec) };
    go(&mut pod.monitor.spawn(request).await.unwrap()).await;
    let exit = pod.exit_of("hungry").await;
    assert_eq!((exit.code, exit.signaled, exit.oom_kills), (137, true, 1));
    pod.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_outlives_the_main_process() {
    let group = Group::new(&v2());
    let mut pod = Pod::start().await;
    let kill = File::options().write(true).open(group.file("cgroup.kill")).unwrap();
    let procs = group.file("cgroup.procs");
    let spec = shell(&format!("echo $$ > {}; (setsid sleep 600 &); (setsid sleep 600 &); exit 4", procs.display()));
    let request = SpawnRequest { kill: Some(kill.as_fd()), ..pod.request("task", &spec) };
    go(&mut pod.monitor.spawn(request).await.unwrap()).await;
    assert_eq!(pod.exit_of("task").await.code, 4);
    until("the group is empty", || std::fs::read_to_string(&procs).unwrap().is_empty());
    until("the monitor has reaped them", || children(pod.process.pid).is_empty());
    pod.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_is_born_in_its_group() {
    let (tree, _, _) = memory();
    let mut groups = vec![Group::new(&v2())];
    let mut v1_tasks = Vec::new();
    if tree != v2() {
        let group = Group::new(&tree);
        v1_tasks.push(group.file("tasks"));
        groups.push(group);
    }
    let options = LaunchOptions { cgroup: CgroupJoin::Own { v2: Some(groups[0].0.clone()), v1_tasks } };
    let (id, dir, launcher) = (pod_id(), tempfile::tempdir().unwrap(), launcher());
    let (monitor, process) = launcher.launch(&id, dir.path(), &options).await.unwrap();
    for group in &groups {
        let members = std::fs::read_to_string(group.file("cgroup.procs")).unwrap();
        assert_eq!(members.trim(), process.pid.to_string(), "{}", group.0.display());
    }
    let comm = std::fs::read_to_string(format!("/proc/{}/comm", process.pid)).unwrap();
    assert_eq!(comm, "berth-monitor\n");
    monitor.shutdown().await.unwrap();
    process.ended().await;

    let cgroup = CgroupJoin::Own { v2: None, v1_tasks: vec!["/nonexistent/tasks".into()] };
    let error = launcher.launch(&id, dir.path(), &LaunchOptions { cgroup }).await.unwrap_err();
    assert!(error.message().contains("/nonexistent/tasks: No such file"), "{error}");
}
