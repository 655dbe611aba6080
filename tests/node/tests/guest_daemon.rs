//! The daemon where most nodes are: cgroup v2 with systemd as pid 1. One pod per cgroup driver, its limits as the kernel has
//! them, out of memory, a daemon killed and started again, and nothing left over. Runs in the guest tier.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

use crate::daemon;
use crate::daemon::requests::resources;
use crate::daemon::{Node, container, eventually, host, is_alive, pod, shell};
use berth_proto::cri::ContainerState;
use nix::sys::signal::Signal;

const SYSTEMD: &str = "Systemd";
const CGROUPFS: &str = "Cgroupfs";

/// A daemon with this driver; the parent of pods that name none is its own.
async fn node(driver: &str) -> Node {
    let mut node = Node::with_tools().await;
    node.document(
        "60-driver.yaml",
        &format!(
            "apiVersion: berth.dev/v1alpha1\nkind: RuntimeConfig\nmetadata: {{name: driver}}\n\
             spec: {{runtime: {{cgroupManager: {driver}}}}}\n"
        ),
    );
    node.kill();
    node.start().await;
    assert_eq!(node.info().await.cgroup_driver, driver.to_lowercase());
    node
}

/// The v2 group of a process.
fn group(pid: i32) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    text.trim().strip_prefix("0::").unwrap_or_else(|| panic!("pure cgroup v2 is expected: {text}")).to_owned()
}

fn limit(pid: i32, file: &str) -> String {
    std::fs::read_to_string(format!("/sys/fs/cgroup{}/{file}", group(pid))).unwrap().trim().to_owned()
}

async fn a_pod_lives_and_ends(driver: &str) {
    let mut node = node(driver).await;
    let sandbox = pod(&node, "limits");
    let mut config = container(&node, "web", &["/web"]);
    let limits = resources(&mut config);
    (limits.memory_limit_in_bytes, limits.cpu_quota, limits.cpu_period) = (128 << 20, 50_000, 100_000);
    let id = node.cri().run(&sandbox).await;
    let web = node.cri().launch(&id, &config, &sandbox).await;
    let pid = node.cri().pid(&web).await;
    assert_eq!(limit(pid, "memory.max"), (128u64 << 20).to_string());
    assert_eq!(limit(pid, "cpu.max"), "50000 100000");
    let name = group(pid);
    let expected = if driver == SYSTEMD { format!("berth-{web}.scope") } else { web.clone() };
    assert!(name.ends_with(&expected), "{name} is not named as the {driver} driver names groups");
    assert_eq!(node.cri().sh(&web, "cat /proc/self/cgroup").await.trim(), "0::/", "a cgroup namespace of its own");

    node.kill();
    node.start().await;
    assert_eq!(node.cri().pid(&web).await, pid, "the container lived through the daemon's death");
    node.cri().try_stop(&web, 5).await.unwrap();
    assert_eq!(node.cri().exited(&web).await.exit_code, 0);
    node.cri().try_remove_pod(&id).await.unwrap();
    assert!(!std::path::Path::new(&format!("/sys/fs/cgroup{name}")).exists(), "the group is gone");
    node.finish().await;
}

async fn memory_runs_out(driver: &str) {
    let node = node(driver).await;
    let mut sandbox = pod(&node, "oom");
    // As the kubelet has it: systemd may remove a scope with its count of kills at once, and the pod's slice is what still tells of them.
    let slice = (driver == SYSTEMD).then(|| format!("{}-oom.slice", node.name().replace('-', "_")));
    if let Some(slice) = &slice {
        host("systemctl", &["start", slice]);
        sandbox.linux.get_or_insert_default().cgroup_parent.clone_from(slice);
    }
    let mut greedy = container(&node, "greedy", &["/web", "alloc", "64"]);
    resources(&mut greedy).memory_limit_in_bytes = 16 << 20;
    resources(&mut greedy).memory_swap_limit_in_bytes = 16 << 20;
    let id = node.cri().run(&sandbox).await;
    let greedy = node.cri().launch(&id, &greedy, &sandbox).await;
    let status = node.cri().exited(&greedy).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
    let modest = node.cri().launch(&id, &shell(&node, "modest", "exit 3"), &sandbox).await;
    let status = node.cri().exited(&modest).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (3, "Error"));
    node.cri().try_remove_pod(&id).await.unwrap();
    if let Some(slice) = &slice {
        host("systemctl", &["stop", slice]);
    }
    node.finish().await;
}

/// Somebody else's program right beside the pods' groups, which the daemon must leave alone.
struct Neighbour {
    program: std::process::Child,
    group: String,
}

impl Neighbour {
    async fn new(node: &Node, driver: &str) -> Self {
        if driver == SYSTEMD {
            let slice = format!("{}.slice", node.name().replace('-', "_"));
            let unit = format!("{}-neighbour.scope", node.name());
            let mut command = std::process::Command::new("systemd-run");
            command.args([
                "--scope",
                "--quiet",
                &format!("--slice={slice}"),
                &format!("--unit={unit}"),
                "sleep",
                "1000",
            ]);
            let neighbour = Self { program: command.spawn().unwrap(), group: format!("/{slice}/{unit}") };
            let pid = i32::try_from(neighbour.program.id()).unwrap();
            eventually("the neighbour is in its scope", async || (group(pid) == neighbour.group).then_some(())).await;
            return neighbour;
        }
        let group = format!("/{}/{}", node.name(), "5a".repeat(32));
        let program = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let directory = format!("/sys/fs/cgroup{group}");
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(format!("{directory}/cgroup.procs"), program.id().to_string()).unwrap();
        Self { program, group }
    }

    /// Whether it is where it was. It is gone then.
    fn ends(mut self) -> bool {
        let untouched = self.program.try_wait().unwrap().is_none()
            && group(i32::try_from(self.program.id()).unwrap()) == self.group;
        let _ = self.program.kill();
        self.program.wait().unwrap();
        // With the group above, which could not go before this one; systemd removes both itself.
        for group in [self.group.as_str(), self.group.rsplit_once('/').unwrap().0] {
            let _ = std::fs::remove_dir(format!("/sys/fs/cgroup{group}"));
        }
        untouched
    }
}

/// No record, no monitor: only the groups' names tell of what runs, one below the daemon's own parent, one where a kubelet wanted it.
async fn a_pod_that_lost_all_goes(driver: &str) {
    let mut node = node(driver).await;
    let own = pod(&node, "own");
    let mut elsewhere = pod(&node, "elsewhere");
    let parent = if driver == SYSTEMD {
        format!("{}-lost.slice", node.name().replace('-', "_"))
    } else {
        format!("/{}-lost", node.name())
    };
    elsewhere.linux.get_or_insert_default().cgroup_parent.clone_from(&parent);
    let mut lost = Vec::new();
    for sandbox in [&own, &elsewhere] {
        let id = node.cri().run(sandbox).await;
        let app = node.cri().launch(&id, &container(&node, "app", &["sleep", "1000"]), sandbox).await;
        let pid = node.cri().pid(&app).await;
        lost.push((id.clone(), node.cri().monitor_pid(&id).await, pid, group(pid)));
    }
    let neighbour = Neighbour::new(&node, driver).await;
    node.kill();
    for (id, monitor, pid, _) in &lost {
        daemon::killed(*monitor).await;
        std::fs::remove_dir_all(node.root().join("lib/pods").join(id)).unwrap();
        assert!(is_alive(*pid), "the program ended with its monitor, and this test shows nothing");
    }
    node.start().await;
    let untouched = neighbour.ends();
    for (_, _, pid, group) in &lost {
        assert!(!is_alive(*pid), "its program runs on: {}", node.log_tail());
        assert!(
            !std::path::Path::new(&format!("/sys/fs/cgroup{group}")).exists(),
            "{group} stays: {}",
            node.log_tail()
        );
    }
    assert!(untouched, "a neighbour was touched");
    assert_eq!(node.figure("berth_leaks_total{kind=\"cgroup\"}"), 2.0, "{}", node.log_tail());
    if driver == SYSTEMD {
        host("systemctl", &["stop", &parent]);
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guest_a_pod_that_lost_all_goes_with_systemd() {
    a_pod_that_lost_all_goes(SYSTEMD).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guest_a_pod_that_lost_all_goes_with_cgroupfs() {
    a_pod_that_lost_all_goes(CGROUPFS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guest_a_pod_lives_and_ends_with_systemd() {
    a_pod_lives_and_ends(SYSTEMD).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guest_a_pod_lives_and_ends_with_cgroupfs() {
    a_pod_lives_and_ends(CGROUPFS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guest_memory_runs_out_with_systemd() {
    memory_runs_out(SYSTEMD).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guest_memory_runs_out_with_cgroupfs() {
    memory_runs_out(CGROUPFS).await;
}

/// Pods without a slice of their own: the count of a kill goes with the scope, and systemd removes that at once. Twenty in a row, five
/// at a time, each told; and a container that somebody else kills meanwhile is not taken for one of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guest_each_of_many_oom_kills_is_told_without_a_slice() {
    let node = node(SYSTEMD).await;
    let mut pods = Vec::new();
    for n in 0..5 {
        let sandbox = pod(&node, &format!("crowd{n}"));
        pods.push((node.cri().run(&sandbox).await, sandbox));
    }
    for round in 0..4 {
        let mut greedy = Vec::new();
        for (id, sandbox) in &pods {
            let mut config = container(&node, &format!("greedy{round}"), &["/web", "alloc", "64"]);
            resources(&mut config).memory_limit_in_bytes = 16 << 20;
            resources(&mut config).memory_swap_limit_in_bytes = 16 << 20;
            greedy.push(node.cri().create(id, &config, sandbox).await);
        }
        let (id, sandbox) = &pods[round % pods.len()];
        let victim = node.cri().launch(id, &shell(&node, &format!("victim{round}"), "sleep 1000"), sandbox).await;
        let victims = node.cri().pid(&victim).await;
        let start = async |n: usize| node.cri().try_start(&greedy[n]).await.unwrap();
        tokio::join!(start(0), start(1), start(2), start(3), start(4));
        daemon::signal(victims, Signal::SIGKILL);
        for id in &greedy {
            let status = node.cri().exited(id).await;
            assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"), "round {round}");
        }
        let status = node.cri().exited(&victim).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (137, "Error"), "round {round}");
    }
    let log = std::fs::read_to_string(node.log()).unwrap();
    let by_log = log.matches("is known from the kernel's log alone").count();
    println!("{by_log} of 20 kills were known from the kernel's log alone");
    for (id, _) in &pods {
        node.cri().try_remove_pod(id).await.unwrap();
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guest_a_kill_of_the_monitor_is_told_with_systemd() {
    let node = node(SYSTEMD).await;
    let sandbox = pod(&node, "lost");
    let id = node.cri().run(&sandbox).await;
    let web = node.cri().launch(&id, &container(&node, "web", &["/web"]), &sandbox).await;
    daemon::signal(node.cri().monitor_pid(&id).await, Signal::SIGKILL);
    let status = node.cri().exited(&web).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (255, "MonitorLost"));
    assert_eq!(status.state, ContainerState::ContainerExited as i32);
    node.cri().try_remove_pod(&id).await.unwrap();
    node.finish().await;
}
