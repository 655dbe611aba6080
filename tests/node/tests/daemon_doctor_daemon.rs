//! `berth doctor` on daemons that are down, stuck, open to all, or have documents that they cannot take: each finding is caused.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

use crate::daemon;
use crate::daemon::doctor::{command, doctor, report};
use crate::daemon::{Node, container, eventually, host, pod, signal};
use berth_node_tests::programs;
use nix::sys::signal::Signal;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

/// Copies one of the programs there. By a process of its own: what this one has open for writing a child of another test may have for a moment, and
/// nobody may run it then.
fn copied(program: &str, directory: &Path) {
    host("cp", &[programs().join(program).to_str().unwrap(), directory.to_str().unwrap()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sound_daemon_has_nothing() {
    let node = Node::with_tools().await;
    let id = node.cri().run(&pod(&node, "fine")).await;
    let found = doctor(&node, &["daemon", "documents", "image-pulls", "starts", "addresses", "leftovers"]);
    assert_eq!((found.code, found.ids().len()), (Some(0), 0), "{:#?}", found.findings);
    let all = doctor(&node, &[]);
    assert!(!all.ids().contains(&"network-not-ready"), "{:#?}", all.findings);
    let mut unknown = command(&node, &["colour"]);
    let output = unknown.output().unwrap();
    assert_eq!(output.status.code(), Some(2), "a doctor that cannot look ends with 2");
    assert!(String::from_utf8_lossy(&output.stderr).contains("image-pulls"), "it names the checks that there are");
    node.cri().try_remove_pod(&id).await.unwrap();
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_is_down_or_stopped() {
    let mut node = Node::new().await;
    signal(node.pid(), Signal::SIGSTOP);
    let found = doctor(&node, &["daemon"]);
    let stuck = found.finding("daemon-stuck", &["stopped", &node.pid().to_string()]);
    // What it says to do, mends.
    let fix = stuck["fix"].as_str().unwrap().to_owned();
    assert!(Command::new("sh").arg("-c").arg(&fix).status().unwrap().success(), "{fix}");
    eventually("the daemon answers again", async || doctor(&node, &["daemon"]).ids().is_empty().then_some(())).await;

    assert!(node.terminate().await.success());
    doctor(&node, &["daemon"]).finding("daemon-down", &["node.sock"]);
    node.document(
        "90-bad.yaml",
        "apiVersion: berth.dev/v1alpha1\nkind: RuntimeConfig\nmetadata: {name: x}\nspec: {colour: red}\n",
    );
    doctor(&node, &["documents"]).finding("document-refused", &["90-bad.yaml", "colour"]);
    node.remove_document("90-bad.yaml");
    node.start().await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_that_are_refused_or_wait() {
    let node = Node::new().await;
    node.document("60-driver.yaml", "apiVersion: berth.dev/v1alpha1\nkind: RuntimeConfig\nmetadata: {name: driver}\nspec: {runtime: {cgroupManager: Systemd}}\n");
    eventually("the change is seen", async || {
        doctor(&node, &["documents"]).ids().contains(&"document-pending").then_some(())
    })
    .await;
    doctor(&node, &["documents"]).finding("document-pending", &["cgroupManager"]);
    eventually("it is a figure", async || (node.figure("berth_settings_pending_restart") == 1.0).then_some(())).await;
    node.document(
        "60-driver.yaml",
        "apiVersion: berth.dev/v1alpha1\nkind: RuntimeConfig\nmetadata: {name: driver}\nspec: {wheels: 4}\n",
    );
    eventually("the refusal is seen", async || {
        doctor(&node, &["documents"]).ids().contains(&"document-refused").then_some(())
    })
    .await;
    doctor(&node, &["documents"]).finding("document-refused", &["60-driver.yaml", "wheels"]);
    eventually("it is a figure", async || (node.figure("berth_settings_refused") == 1.0).then_some(())).await;
    node.remove_document("60-driver.yaml");
    eventually("all is well again", async || doctor(&node, &["documents"]).ids().is_empty().then_some(())).await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_socket_a_silent_monitor_and_leftovers() {
    let mut node = Node::new().await;
    let open = std::fs::Permissions::from_mode(0o666);
    std::fs::set_permissions(node.socket(), open).unwrap();
    doctor(&node, &["daemon"]).finding("socket-open", &["berth.sock", "0666"]);
    std::fs::set_permissions(node.socket(), std::fs::Permissions::from_mode(0o600)).unwrap();

    let id = node.cri().run(&pod(&node, "silent")).await;
    let monitor = node.cri().monitor_pid(&id).await;
    signal(monitor, Signal::SIGSTOP);
    node.kill_and_start().await;
    doctor(&node, &["daemon"]).finding("monitor-silent", &["1 of 1"]);
    assert_eq!(node.figure("berth_monitors{protocol=\"none\"}"), 1.0);
    signal(monitor, Signal::SIGCONT);
    eventually("the monitor answers", async || doctor(&node, &["daemon"]).ids().is_empty().then_some(())).await;

    let stray = node.root().join("run/pods").join("ab".repeat(32));
    std::fs::create_dir(&stray).unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(3600);
    std::fs::File::open(&stray).unwrap().set_modified(long_ago).unwrap();
    doctor(&node, &["leftovers"]).finding("leftover", &[&stray.display().to_string()]);
    std::fs::remove_dir(&stray).unwrap();
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_without_descriptors_and_one_from_the_future() {
    let node = Node::new().await;
    let open = || std::fs::read_dir(format!("/proc/{}/fd", node.pid())).unwrap().count();
    let before = std::fs::read_to_string(format!("/proc/{}/limits", node.pid())).unwrap();
    let line = before.lines().find_map(|l| l.strip_prefix("Max open files")).unwrap();
    let soft = line.split_whitespace().next().unwrap().to_owned();
    let limit = |value: &str| {
        let set = format!("--nofile={value}:");
        let done = Command::new("prlimit").args(["--pid", &node.pid().to_string(), &set]).status().unwrap();
        assert!(done.success());
    };
    // Room for the doctor's own connections, and not more. Connections of the start may still be closing.
    eventually("the doctor counts them", async || {
        let few = open() + 3;
        limit(&few.to_string());
        let report = doctor(&node, &["files"]);
        let told = report.ids().contains(&"daemon-files");
        if told {
            report.finding("daemon-files", &[&few.to_string()]);
        }
        told.then_some(())
    })
    .await;
    limit(&soft);
    node.finish().await;

    // A daemon whose program was written tomorrow: by its age the clock is behind.
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    for program in ["berth", "berth-monitor", "berth-init"] {
        copied(program, dir.path());
    }
    host("touch", &["--date=1 day", dir.path().join("berth").to_str().unwrap()]);
    let root = dir.path().join("root");
    let mut daemon = Command::new(dir.path().join("berth"));
    daemon.args(["serve", "--root"]).arg(&root).env_remove("NOTIFY_SOCKET");
    let mut daemon = daemon.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let ask = || {
        let mut ask = Command::new(programs().join("berth"));
        ask.arg("--root").arg(&root).args(["doctor", "-o", "json", "daemon", "kernel", "network"]);
        report(ask)
    };
    eventually("the daemon answers", async || (root.is_dir() && !ask().ids().contains(&"daemon-down")).then_some(()))
        .await;
    let found = ask();
    found.finding("clock-behind", &["s behind"]);
    // Without a document the network is CNI's; nothing of it is there for this root's daemon but what the node has.
    found.finding("network-not-ready", &["CNI"]);
    signal(i32::try_from(daemon.id()).unwrap(), Signal::SIGTERM);
    assert!(daemon.wait().unwrap().success());
}

/// A monitor that runs while the program beside the daemon is another one already; and a doctor who is nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_monitor_and_a_doctor_who_is_not_root() {
    let mut node = Node::with_tools().await;
    node.cri().run(&pod(&node, "older")).await;
    assert!(!doctor(&node, &["daemon"]).ids().contains(&"monitor-old"));
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    for program in ["berth", "berth-monitor", "berth-init"] {
        copied(program, dir.path());
    }
    // Another build: a program is found by its length.
    let mut newer = std::fs::File::options().append(true).open(dir.path().join("berth-monitor")).unwrap();
    std::io::Write::write_all(&mut newer, b"newer").unwrap();
    drop(newer);
    node.use_programs(dir.path().to_owned());
    node.kill_and_start().await;
    doctor(&node, &["daemon"]).finding("monitor-old", &["1"]);
    node.use_programs(programs());
    node.kill_and_start().await;
    assert!(!doctor(&node, &["daemon"]).ids().contains(&"monitor-old"));

    let open = tempfile::tempdir_in("/var/tmp").unwrap();
    std::fs::set_permissions(open.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    copied("berth", open.path());
    let mut ask = Command::new(open.path().join("berth"));
    ask.arg("--root").arg(open.path()).args(["doctor", "-o", "json", "daemon"]);
    std::os::unix::process::CommandExt::uid(&mut ask, 65534);
    report(ask).finding("not-root", &["ordinary user"]);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starts_that_fail_and_loops() {
    let node = Node::with_tools().await;
    let cri = node.cri();
    let sandbox = pod(&node, "loops");
    let id = cri.run(&sandbox).await;
    for attempt in 0..3 {
        let mut config = container(&node, "app", &["sh", "-c", "exit 3"]);
        config.metadata.as_mut().unwrap().attempt = attempt;
        let app = cri.launch(&id, &config, &sandbox).await;
        cri.exited(&app).await;
        cri.try_remove(&app).await.unwrap();
    }
    let broken = cri.create(&id, &container(&node, "broken", &["/no/such/program"]), &sandbox).await;
    cri.try_start(&broken).await.unwrap_err();
    let mut hungry = container(&node, "hungry", &["/web", "alloc", "100"]);
    daemon::requests::resources(&mut hungry).memory_limit_in_bytes = 32 << 20;
    let hungry = cri.launch(&id, &hungry, &sandbox).await;
    assert_eq!(cri.exited(&hungry).await.reason, "OOMKilled");
    // A container that was stopped has not ended badly.
    let stopped = cri.launch(&id, &container(&node, "stopped", &["sleep", "1000"]), &sandbox).await;
    cri.try_stop(&stopped, 0).await.unwrap();
    let found = doctor(&node, &["starts"]);
    found.finding("crash-loop", &["default/loops/app", "3 times", "exit code 3"]);
    found.finding("start-failed", &["default/loops/broken", "/no/such/program"]);
    found.finding("oom-killed", &["default/loops/hungry"]);
    assert!(!found.findings.iter().any(|f| f["what"].as_str().unwrap().contains("stopped")), "{:#?}", found.findings);
    assert!(node.figure("berth_oom_kills_total") >= 1.0);
    node.finish().await;
}
