//! Monitors and daemons that are stopped, killed or away: what the design says is kept is kept, and every stop comes to its end.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

use crate::daemon;
use crate::daemon::client::{log_text, within};
use crate::daemon::{Cri, Node, container, eventually, is_alive, pod, shell, signal};
use berth_proto::cri::{ContainerState, PodSandboxState};
use nix::sys::signal::Signal;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tonic::Code;

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

async fn gone(pid: i32) {
    eventually(&format!("process {pid} ends"), async || (!is_alive(pid)).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ends_while_the_daemon_is_away_is_told_as_it_was() {
    let mut node = Node::with_tools().await;
    let (cri, sandbox) = (node.cri(), pod(&node, "pod"));
    let pod = cri.run(&sandbox).await;
    let gate = node.base().join("gate");
    std::fs::create_dir(&gate).unwrap();
    let mut waiting = Vec::new();
    for (name, end) in [("seven", "exit 7"), ("zero", "exit 0"), ("killed", "kill -9 $PPID; sleep 100")] {
        let script = format!("while ! test -e /gate/open; do sleep 0.02; done; echo last words; {end}");
        let script = if name == "killed" { format!("sh -c '{script}'; exit 9") } else { script };
        let mut config = shell(&node, name, &script);
        config.mounts = vec![daemon::requests::bind(&gate, "/gate")];
        let id = cri.launch(&pod, &config, &sandbox).await;
        waiting.push((name, id.clone(), cri.pid(&id).await));
    }
    // The kernel spares the first process of a pid namespace from signals of its own, so this one goes from outside.
    let killed = waiting[2].2;
    node.kill();
    let away = now();
    std::fs::write(gate.join("open"), "").unwrap();
    gone(waiting[0].2).await;
    gone(waiting[1].2).await;
    signal(killed, Signal::SIGKILL);
    gone(killed).await;
    let over = now();
    node.start().await;
    let cri = node.cri();
    for ((name, id, _), code) in waiting.iter().zip([7, 0, 137]) {
        let status = cri.exited(id).await;
        assert_eq!(status.exit_code, code, "{name}");
        assert!((away..=over).contains(&status.finished_at), "{name}: {status:?}");
        assert!(log_text(&status.log_path).contains("last words"), "{name}");
    }
    assert_eq!(cri.pod_status(&pod).await.unwrap().state(), PodSandboxState::SandboxReady);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_monitor_takes_its_containers_with_it() {
    let mut node = Node::with_tools().await;
    let (cri, sandbox) = (node.cri(), pod(&node, "pod"));
    let pod_id = cri.run(&sandbox).await;
    let id = cri.launch(&pod_id, &container(&node, "c", &["/web", "sleep"]), &sandbox).await;
    let (pid, monitor) = (cri.pid(&id).await, cri.monitor_pid(&pod_id).await);
    let command = {
        let (cri, id) = (cri.clone(), id.clone());
        tokio::spawn(async move { cri.try_exec(&id, &["sleep", "100"], 0).await })
    };
    eventually("the command runs", async || cri.code(&id, "ps | grep -q '[s]leep 100'").await.0.eq(&0).then_some(()))
        .await;
    signal(monitor, Signal::SIGKILL);
    let status = cri.exited(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (255, "MonitorLost"));
    gone(pid).await;
    within(Duration::from_secs(60), "the command's end", command).await.unwrap().unwrap_err();
    eventually("the pod is NOTREADY", async || {
        let state = cri.pod_status(&pod_id).await.unwrap().state();
        (state == PodSandboxState::SandboxNotready).then_some(())
    })
    .await;
    assert_eq!(node.figure("berth_events_total{event=\"monitor_lost\"}"), 1.0);
    cri.try_remove_pod(&pod_id).await.unwrap();

    // Killed while the daemon is away: what ended before has its true code, from the record that the monitor left.
    let sandbox = pod(&node, "away");
    let pod_id = cri.run(&sandbox).await;
    let ended = cri.launch(&pod_id, &shell(&node, "ended", "sleep 0.5; exit 7"), &sandbox).await;
    let running = cri.launch(&pod_id, &container(&node, "running", &["/web", "sleep"]), &sandbox).await;
    let (first, second) = (cri.pid(&ended).await, cri.pid(&running).await);
    let monitor = cri.monitor_pid(&pod_id).await;
    node.kill();
    gone(first).await;
    let record = node.root().join("run/pods").join(&pod_id).join("exits").join(&ended);
    eventually("the monitor has noted it", async || record.exists().then_some(())).await;
    signal(monitor, Signal::SIGKILL);
    gone(monitor).await;
    node.start().await;
    let cri = node.cri();
    assert_eq!(cri.exited(&ended).await.exit_code, 7);
    assert_eq!(cri.exited(&running).await.reason, "MonitorLost");
    gone(second).await;
    assert_eq!(cri.pod_status(&pod_id).await.unwrap().state(), PodSandboxState::SandboxNotready);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_monitor_holds_up_nothing_that_must_end() {
    let mut node = Node::with_tools().await;
    let (cri, sandbox) = (node.cri(), pod(&node, "pod"));
    let pod_id = cri.run(&sandbox).await;
    let id = cri.launch(&pod_id, &container(&node, "c", &["/web", "sleep"]), &sandbox).await;
    let (pid, monitor) = (cri.pid(&id).await, cri.monitor_pid(&pod_id).await);
    signal(monitor, Signal::SIGSTOP);
    within(Duration::from_secs(30), "the stop", cri.try_stop(&id, 1)).await.unwrap();
    let status = cri.status(&id).await.unwrap();
    assert_eq!((status.state(), status.exit_code), (ContainerState::ContainerExited, 137));
    gone(pid).await;
    within(Duration::from_secs(30), "the removal", cri.try_remove_pod(&pod_id)).await.unwrap();
    gone(monitor).await;

    // A daemon that finds it stopped starts all the same, and takes it in when it goes on.
    let sandbox = pod(&node, "silent");
    let pod_id = cri.run(&sandbox).await;
    let id = cri.launch(&pod_id, &shell(&node, "seven", "sleep 0.5; exit 7"), &sandbox).await;
    let other = cri.launch(&pod_id, &container(&node, "other", &["/web", "sleep"]), &sandbox).await;
    let (pid, monitor) = (cri.pid(&other).await, cri.monitor_pid(&pod_id).await);
    signal(monitor, Signal::SIGSTOP);
    node.kill();
    within(Duration::from_secs(10), "the daemon's start", node.start()).await;
    let cri = node.cri();
    assert_eq!(cri.pid(&other).await, pid);
    let started = cri.create(&pod_id, &container(&node, "later", &["/web", "sleep"]), &sandbox).await;
    let mut runtime = cri.runtime();
    let refused = runtime.start_container(berth_proto::cri::StartContainerRequest { container_id: started.clone() });
    assert_eq!(within(Duration::from_secs(10), "a start", refused).await.unwrap_err().code(), Code::Unavailable);
    signal(monitor, Signal::SIGCONT);
    assert_eq!(cri.exited(&id).await.exit_code, 7);
    cri.try_start(&started).await.unwrap();
    assert_eq!(cri.sh(&started, "echo here").await, "here");
    // And one that never goes on can be removed.
    signal(monitor, Signal::SIGSTOP);
    node.kill_and_start().await;
    within(Duration::from_secs(30), "the removal", node.cri().try_remove_pod(&pod_id)).await.unwrap();
    gone(monitor).await;
    gone(pid).await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_of_daemon_or_monitor_inside_a_step_is_only_a_pause() {
    let places =
        ["run/namespaces/enter", "start/spawn/enter", "start/exec/enter", "stop/containers/enter", "pull/fetch/enter"];
    let mut node = Node::with_tools().await;
    for place in places {
        node.hold_at(place);
        node.kill_and_start().await;
        let cri = node.cri();
        for of_monitor in [false, true] {
            let sandbox = pod(&node, "pod");
            let config = container(&node, "c", &["/web", "sleep"]);
            let mut paused = node.pid();
            let call = if place.starts_with("run") {
                if of_monitor {
                    continue;
                }
                node.arm();
                let (cri, sandbox) = (cri.clone(), sandbox.clone());
                tokio::spawn(async move { cri.try_run(&sandbox).await.map(drop) })
            } else if place.starts_with("pull") {
                if of_monitor {
                    continue;
                }
                node.arm();
                let (cri, web) = (cri.clone(), node.web());
                tokio::spawn(async move { cri.try_pull(&web, "default").await.map(drop) })
            } else {
                let pod = cri.run(&sandbox).await;
                let id = cri.create(&pod, &config, &sandbox).await;
                if of_monitor {
                    paused = cri.monitor_pid(&pod).await;
                }
                if place.starts_with("stop") {
                    cri.try_start(&id).await.unwrap();
                }
                node.arm();
                let (cri, start) = (cri.clone(), place.starts_with("start"));
                tokio::spawn(async move { if start { cri.try_start(&id).await } else { cri.try_stop_pod(&pod).await } })
            };
            node.held().await;
            signal(paused, Signal::SIGSTOP);
            node.release();
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert!(!call.is_finished() || of_monitor, "{place}");
            signal(paused, Signal::SIGCONT);
            let answer = within(Duration::from_secs(20), place, call).await.unwrap();
            answer.unwrap_or_else(|e| panic!("{place}, monitor: {of_monitor}: {e}"));
            node.remove_pods().await;
        }
    }
    node.finish().await;
}

/// Runs pods through their lives until told to stop, as a kubelet: what fails is asked for again, on a new connection.
async fn client(node_files: (PathBuf, PathBuf, String), name: String, stop: Arc<AtomicBool>, lives: Arc<AtomicU32>) {
    let (socket, logs, image) = node_files;
    let mut attempt = 0;
    while !stop.load(Ordering::Relaxed) {
        let metadata = berth_proto::cri::PodSandboxMetadata {
            name: name.clone(),
            uid: name.clone(),
            namespace: "default".into(),
            attempt,
        };
        let sandbox = berth_proto::cri::PodSandboxConfig {
            metadata: Some(metadata),
            log_directory: logs.display().to_string(),
            ..Default::default()
        };
        let config = berth_proto::cri::ContainerConfig {
            metadata: Some(berth_proto::cri::ContainerMetadata { name: "c".into(), attempt: 0 }),
            image: Some(berth_proto::cri::ImageSpec { image: image.clone(), ..Default::default() }),
            command: vec!["/web".into(), "sleep".into()],
            log_path: format!("{name}-{attempt}.log"),
            ..Default::default()
        };
        attempt += 1;
        let pod = again(&socket, async |cri| {
            let answer = cri.try_run(&sandbox).await;
            // The one thing that a retry must never hear.
            assert_ne!(answer.as_ref().err().map(tonic::Status::code), Some(Code::AlreadyExists), "{answer:?}");
            answer
        })
        .await;
        let id = again(&socket, async |cri| cri.try_create(&pod, &config, &sandbox).await).await;
        again(&socket, async |cri| match cri.try_start(&id).await {
            // It runs already, or its start was cut short and it says so.
            Err(e) if e.code() == Code::FailedPrecondition => Ok(()),
            other => other,
        })
        .await;
        again(&socket, async |cri| cri.try_stop(&id, 5).await).await;
        let status = again(&socket, async |cri| cri.status(&id).await).await;
        assert_eq!(status.state(), ContainerState::ContainerExited);
        assert!([0, 128, 137, 143].contains(&status.exit_code), "{status:?}");
        again(&socket, async |cri| cri.try_stop_pod(&pod).await).await;
        again(&socket, async |cri| cri.try_remove_pod(&pod).await).await;
        lives.fetch_add(1, Ordering::Relaxed);
    }
}

async fn again<T>(socket: &std::path::Path, call: impl AsyncFn(Cri) -> daemon::client::Answer<T>) -> T {
    let end = Instant::now() + Duration::from_secs(40);
    let mut last = String::new();
    while Instant::now() < end {
        if let Ok(cri) = Cri::connect(socket).await {
            match call(cri).await {
                Ok(value) => return value,
                Err(e) => last = e.to_string(),
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("40 seconds of retries: {last}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_at_random_moments_lose_and_leave_nothing() {
    let mut node = Node::with_tools().await;
    let (cri, sandbox) = (node.cri(), pod(&node, "bystander"));
    let pod_id = cri.run(&sandbox).await;
    let script = "n=0; while true; do echo line $n; n=$((n + 1)); sleep 0.02; done";
    let id = cri.launch(&pod_id, &shell(&node, "ticker", script), &sandbox).await;
    let pid = cri.pid(&id).await;
    let (stop, lives) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let logs = node.base().join("logs");
    let clients = ["left", "right"].map(|name| {
        let files = (node.socket(), logs.clone(), node.tools());
        let (stop, lives) = (stop.clone(), lives.clone());
        // Made where it runs: it is not `Send`.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(client(files, name.into(), stop, lives));
        })
    });
    let mut random = u64::from(std::process::id()) | 1;
    println!("seed {random}");
    let end = Instant::now() + Duration::from_secs(20);
    let mut kills = 0;
    while Instant::now() < end && !clients.iter().any(std::thread::JoinHandle::is_finished) {
        // xorshift64
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        tokio::time::sleep(Duration::from_millis(20 + random % 700)).await;
        node.kill_and_start().await;
        kills += 1;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.join().unwrap();
    }
    println!("{kills} kills, {} lives", lives.load(Ordering::Relaxed));
    assert!(kills >= 3, "the machine is too slow to prove anything: {kills} kills in 20 seconds");
    let cri = node.cri();
    assert_eq!(cri.pods().await.len(), 1, "only the bystander is left");
    node.nothing_but(&[&pod_id], &[&id]);
    assert_eq!(cri.pid(&id).await, pid);
    let log = cri.status(&id).await.unwrap().log_path;
    for (number, line) in log_text(&log).lines().enumerate() {
        assert_eq!(line, format!("line {number}"));
    }
    node.finish().await;
}

/// The groups of a process: hierarchy's controllers and group.
fn groups(pid: i32) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let parts = text.lines().map(|line| line.splitn(3, ':').skip(1).map(str::to_owned).collect::<Vec<_>>());
    parts.map(|p| (p[0].clone(), p[1].clone())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_daemon_is_never_among_the_pods() {
    let mut node = Node::with_tools().await;
    let sandbox = pod(&node, "apart");
    let id = node.cri().run(&sandbox).await;
    let container = node.cri().launch(&id, &shell(&node, "main", "sleep 1000"), &sandbox).await;
    let of_container = groups(node.cri().pid(&container).await);
    for _ in 0..2 {
        let own = groups(node.pid());
        let mut moved = 0;
        for (controllers, group) in &own {
            let (_, pods) = of_container.iter().find(|(c, _)| c == controllers).unwrap();
            // What the machine has no hierarchy of a runtime's for (name=...) keeps both where they were.
            if pods.contains(node.name()) {
                assert!(
                    !format!("{pods}/").starts_with(&format!("{}/", group.trim_end_matches('/'))),
                    "{controllers}: {group} is above {pods}"
                );
                moved += usize::from(group.ends_with("-runtime/daemon"));
            }
        }
        assert!(moved > 0, "started in the root groups, it leaves them: {own:?}");
        node.kill_and_start().await;
    }
    node.finish().await;
}
