//! What the CRI demands of each answer: idempotence, codes, names of fields, joining, exit codes, limits.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

use crate::daemon::client::{log_text, refused, within};
use crate::daemon::requests::{bind, int64, pod_security, resources, security};
use crate::daemon::{Node, container, eventually, is_alive, pod, shell};
use berth_proto::cri::*;
use std::time::{Duration, Instant};
use tonic::Code;

const NOBODY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// What makes a good request a bad one.
type Change<T> = Box<dyn Fn(&mut T)>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stop_and_remove_of_nothing_succeed_and_status_says_not_found() {
    let node = Node::with_tools().await;
    let cri = node.cri();
    cri.try_stop(NOBODY, 0).await.unwrap();
    cri.try_remove(NOBODY).await.unwrap();
    cri.try_stop_pod(NOBODY).await.unwrap();
    cri.try_remove_pod(NOBODY).await.unwrap();
    refused(cri.status(NOBODY).await, Code::NotFound, &[NOBODY]);
    refused(cri.pod_status(NOBODY).await, Code::NotFound, &[NOBODY]);
    refused(cri.try_start(NOBODY).await, Code::NotFound, &[NOBODY]);
    refused(cri.try_exec(NOBODY, &["true"], 1).await, Code::NotFound, &[NOBODY]);
    let sandbox = pod(&node, "web");
    refused(cri.try_create(NOBODY, &shell(&node, "c", "true"), &sandbox).await, Code::NotFound, &[NOBODY]);
    assert_eq!(cri.image("localhost/no/such:image").await, None);
    let image = Some(ImageSpec { image: "localhost/no/such:image".into(), ..Default::default() });
    cri.images().remove_image(RemoveImageRequest { image }).await.unwrap();

    // And of something, again and again.
    let pod = cri.run(&sandbox).await;
    let id = cri.launch(&pod, &container(&node, "c", &["/web", "sleep"]), &sandbox).await;
    for _ in 0..2 {
        cri.try_stop(&id, 10).await.unwrap();
        assert_eq!(cri.status(&id).await.unwrap().state(), ContainerState::ContainerExited);
    }
    refused(cri.try_start(&id).await, Code::FailedPrecondition, &[&id]);
    refused(cri.try_exec(&id, &["true"], 1).await, Code::FailedPrecondition, &[&id]);
    for _ in 0..2 {
        cri.try_remove(&id).await.unwrap();
        cri.try_stop_pod(&pod).await.unwrap();
    }
    let late = cri.try_create(&pod, &shell(&node, "late", "true"), &sandbox).await;
    refused(late, Code::FailedPrecondition, &["NOTREADY"]);
    for _ in 0..2 {
        cri.try_remove_pod(&pod).await.unwrap();
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_sandboxes_are_refused_by_the_field() {
    let node = Node::new().await;
    let cri = node.cri();
    let good = pod(&node, "good");
    let cases: Vec<(&str, Change<PodSandboxConfig>)> = vec![
        ("config.metadata", Box::new(|c| c.metadata = None)),
        ("config.metadata.name", Box::new(|c| c.metadata.as_mut().unwrap().name.clear())),
        ("config.metadata.uid", Box::new(|c| c.metadata.as_mut().unwrap().uid.clear())),
        ("config.metadata.namespace", Box::new(|c| c.metadata.as_mut().unwrap().namespace = "a\0b".into())),
        ("hostname", Box::new(|c| c.hostname = "a\nb".into())),
        (
            "dns_config.servers",
            Box::new(|c| {
                c.dns_config = Some(DnsConfig { servers: vec!["1.1.1.1\noptions x".into()], ..Default::default() });
            }),
        ),
        (
            "port_mappings[0].container_port",
            Box::new(|c| {
                c.port_mappings = vec![PortMapping { host_port: 70, container_port: 70_000, ..Default::default() }];
            }),
        ),
        (
            "port_mappings[0].host_ip",
            Box::new(|c| {
                c.port_mappings = vec![PortMapping {
                    host_port: 70,
                    container_port: 70,
                    host_ip: "here".into(),
                    ..Default::default()
                }];
            }),
        ),
        (
            "sysctls",
            Box::new(|c| {
                c.linux.as_mut().unwrap().sysctls = [("kernel.core_pattern".to_owned(), "|/x".to_owned())].into();
            }),
        ),
        ("cgroup_parent", Box::new(|c| c.linux.as_mut().unwrap().cgroup_parent = "/a/../../b".into())),
        (
            "namespace_options.network",
            Box::new(|c| {
                pod_security(c).namespace_options.as_mut().unwrap().network = 17;
            }),
        ),
        (
            "userns_options",
            Box::new(|c| {
                let mapping = IdMapping { host_id: 4_294_900_000, container_id: 0, length: 70_000 };
                pod_security(c).namespace_options.as_mut().unwrap().userns_options =
                    Some(UserNamespace { mode: 0, uids: vec![mapping], gids: vec![mapping] });
            }),
        ),
    ];
    for (field, spoil) in cases {
        let mut config = good.clone();
        spoil(&mut config);
        refused(cri.try_run(&config).await, Code::InvalidArgument, &[field]);
    }
    let none = cri.runtime().run_pod_sandbox(RunPodSandboxRequest::default()).await;
    refused(none, Code::InvalidArgument, &["config"]);
    node.nothing_but(&[], &[]);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_containers_are_refused_by_the_field() {
    let node = Node::with_tools().await;
    let cri = node.cri();
    let sandbox = pod(&node, "pod");
    let pod = cri.run(&sandbox).await;
    let good = shell(&node, "good", "true");
    let cases: Vec<(&str, Change<ContainerConfig>)> = vec![
        ("config.metadata", Box::new(|c| c.metadata = None)),
        ("config.image", Box::new(|c| c.image = None)),
        ("log_path", Box::new(|c| c.log_path = "../../etc/cron.d/x".into())),
        ("envs[0].key", Box::new(|c| c.envs = vec![KeyValue { key: "A=B".into(), value: b"c".to_vec() }])),
        ("mounts[0].container_path", Box::new(|c| c.mounts = vec![bind("/tmp", "/proc/self")])),
        ("mounts[0].container_path", Box::new(|c| c.mounts = vec![bind("/tmp", "/")])),
        ("mounts[0].host_path", Box::new(|c| c.mounts = vec![bind("tmp", "/data")])),
        (
            "mounts[1].propagation",
            Box::new(|c| {
                c.mounts = vec![bind("/tmp", "/data"), Mount { propagation: 9, ..bind("/tmp", "/more") }];
            }),
        ),
        (
            "devices[0].container_path",
            Box::new(|c| {
                c.devices = vec![Device {
                    container_path: "/etc/null".into(),
                    host_path: "/dev/null".into(),
                    permissions: "r".into(),
                }];
            }),
        ),
        (
            "capabilities",
            Box::new(|c| {
                security(c).capabilities =
                    Some(Capability { add_capabilities: vec!["NO_SUCH".into()], ..Default::default() });
            }),
        ),
        ("run_as_user", Box::new(|c| security(c).run_as_user = int64(4_294_967_296))),
        ("run_as_group", Box::new(|c| security(c).run_as_group = int64(5))),
        ("seccomp", Box::new(|c| security(c).seccomp_profile_path = "strange".into())),
        (
            "target_id",
            Box::new(|c| {
                let options = security(c).namespace_options.as_mut().unwrap();
                (options.pid, options.target_id) = (NamespaceMode::Target as i32, NOBODY.into());
            }),
        ),
        ("privileged", Box::new(|c| security(c).privileged = true)),
        ("oom_score_adj", Box::new(|c| resources(c).oom_score_adj = 5000)),
        ("cpuset_cpus", Box::new(|c| resources(c).cpuset_cpus = "0-x".into())),
        (
            "RROUnsupported",
            Box::new(|c| {
                c.mounts = vec![Mount { recursive_read_only: true, ..bind("/tmp", "/data") }];
            }),
        ),
        ("stop_signal", Box::new(|c| c.stop_signal = 99)),
    ];
    for (field, spoil) in cases {
        let mut config = good.clone();
        spoil(&mut config);
        refused(cri.try_create(&pod, &config, &sandbox).await, Code::InvalidArgument, &[field]);
    }
    let mut missing = good.clone();
    missing.mounts = vec![bind(node.base().join("not-there"), "/data")];
    refused(
        cri.try_create(&pod, &missing, &sandbox).await,
        Code::InvalidArgument,
        &["config.mounts[0].host_path", "not-there"],
    );
    let mut missing = good.clone();
    missing.image.as_mut().unwrap().image = "localhost:1/none:v1".into();
    refused(cri.try_create(&pod, &missing, &sandbox).await, Code::NotFound, &["localhost:1/none:v1"]);
    refused(cri.try_stop("", 0).await, Code::InvalidArgument, &["id"]);
    refused(cri.try_stop(NOBODY, -1).await, Code::InvalidArgument, &["timeout"]);
    node.nothing_but(&[&pod], &[]);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_joins_what_is_under_way_and_another_request_is_told() {
    let mut node = Node::with_tools().await;
    node.hold_at("run/namespaces/leave");
    node.kill_and_start().await;
    let cri = node.cri();
    let sandbox = pod(&node, "web");
    node.arm();
    // The first client goes away in the middle, as a kubelet whose deadline passed.
    let abandoned = {
        let (cri, sandbox) = (cri.clone(), sandbox.clone());
        tokio::spawn(async move { cri.try_run(&sandbox).await })
    };
    node.held().await;
    abandoned.abort();
    assert!(abandoned.await.unwrap_err().is_cancelled());
    let retry = {
        let (cri, sandbox) = (cri.clone(), sandbox.clone());
        tokio::spawn(async move { cri.try_run(&sandbox).await })
    };
    let mut other = sandbox.clone();
    other.hostname = "other".into();
    refused(cri.try_run(&other).await, Code::AlreadyExists, &["under way", "attempt"]);
    assert_eq!(cri.pods().await, [], "what is under way is not listed");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!retry.is_finished(), "the retry waits for the first");
    node.release();
    let id = retry.await.unwrap().unwrap();
    assert_eq!(cri.run(&sandbox).await, id, "once more, when it is there");
    assert_eq!(cri.pods().await.len(), 1);
    refused(cri.try_run(&other).await, Code::AlreadyExists, &[&id, "READY", "remove it"]);
    // Containers likewise.
    let config = container(&node, "c", &["/web", "sleep"]);
    let first = cri.create(&id, &config, &sandbox).await;
    assert_eq!(cri.create(&id, &config, &sandbox).await, first);
    let mut changed = config.clone();
    changed.args.push("5".into());
    refused(cri.try_create(&id, &changed, &sandbox).await, Code::AlreadyExists, &[&first, "attempt"]);
    cri.try_start(&first).await.unwrap();
    cri.try_stop(&first, 5).await.unwrap();
    refused(cri.try_create(&id, &config, &sandbox).await, Code::AlreadyExists, &[&first, "Exited", "next attempt"]);
    cri.try_stop_pod(&id).await.unwrap();
    refused(cri.try_run(&sandbox).await, Code::AlreadyExists, &[&id, "NOTREADY"]);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_away_stops_no_start_midway() {
    let mut node = Node::with_tools().await;
    node.hold_at("start/exec/enter");
    node.kill_and_start().await;
    let (cri, sandbox) = (node.cri(), pod(&node, "web"));
    let pod = cri.run(&sandbox).await;
    let id = cri.create(&pod, &container(&node, "c", &["/web", "sleep"]), &sandbox).await;
    node.arm();
    let call = {
        let (cri, id) = (cri.clone(), id.clone());
        tokio::spawn(async move { cri.try_start(&id).await })
    };
    node.held().await;
    call.abort();
    // Lists and statuses answer while the start is held.
    let listed = within(Duration::from_secs(30), "a list", cri.containers()).await;
    assert_eq!(listed.len(), 1);
    node.release();
    eventually("the container executes its program", async || {
        let line = std::fs::read(format!("/proc/{}/cmdline", cri.pid(&id).await)).unwrap_or_default();
        (line == b"/web\0sleep\0").then_some(())
    })
    .await;
    refused(cri.try_start(&id).await, Code::FailedPrecondition, &["Running"]);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ends_are_told_as_they_were() {
    let node = Node::with_tools().await;
    let (cri, sandbox) = (node.cri(), pod(&node, "pod"));
    let pod = cri.run(&sandbox).await;
    for (name, script, code, reason) in [
        ("zero", "exit 0", 0, "Completed"),
        ("three", "echo out; echo err >&2; exit 3", 3, "Error"),
        ("init-code", "exit 128", 128, "Error"),
        ("killed", "kill -9 $$", 137, "Error"),
    ] {
        let mut config = shell(&node, name, script);
        if name == "killed" {
            // A first process of its own pid namespace cannot kill itself.
            security(&mut config).namespace_options.as_mut().unwrap().pid = NamespaceMode::Node as i32;
        }
        let id = cri.launch(&pod, &config, &sandbox).await;
        let status = cri.exited(&id).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (code, reason), "{name}");
        assert!(status.created_at <= status.started_at && status.started_at <= status.finished_at, "{status:?}");
        if name == "three" {
            let log = std::fs::read_to_string(&status.log_path).unwrap();
            assert!(log.contains(" stdout F out\n") && log.contains(" stderr F err\n"), "{log}");
        }
    }
    let id = cri.create(&pod, &container(&node, "missing", &["/no/such/program"]), &sandbox).await;
    refused(cri.try_start(&id).await, Code::InvalidArgument, &["/no/such/program", "No such file"]);
    let status = cri.exited(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"));
    assert!(status.message.contains("/no/such/program"), "{status:?}");

    // SIGTERM ends what listens, SIGKILL what does not, after its grace period.
    let id = cri.launch(&pod, &container(&node, "stubborn", &["/web", "stubborn"]), &sandbox).await;
    let begun = Instant::now();
    cri.try_stop(&id, 1).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1), "it had its grace period");
    assert_eq!(cri.status(&id).await.unwrap().exit_code, 137);
    // A later stop with a shorter grace wins.
    let id = cri.launch(&pod, &container(&node, "stubborn-2", &["/web", "stubborn"]), &sandbox).await;
    let patient = {
        let (cri, id) = (cri.clone(), id.clone());
        tokio::spawn(async move { cri.try_stop(&id, 600).await })
    };
    tokio::time::sleep(Duration::from_millis(200)).await;
    cri.try_stop(&id, 0).await.unwrap();
    within(Duration::from_secs(60), "the patient stop", patient).await.unwrap().unwrap();
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_over_its_memory_limit_is_oomkilled() {
    let node = Node::with_tools().await;
    let (cri, sandbox) = (node.cri(), pod(&node, "pod"));
    let pod = cri.run(&sandbox).await;
    let mut config = container(&node, "greedy", &["/web", "alloc", "100"]);
    resources(&mut config).memory_limit_in_bytes = 32 << 20;
    let id = cri.launch(&pod, &config, &sandbox).await;
    let status = cri.exited(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
    assert!(log_text(&status.log_path).contains("16 MiB"), "it had some of it");
    assert_eq!(cri.pod_status(&pod).await.unwrap().state(), PodSandboxState::SandboxReady);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exec_has_a_time_limit_an_output_limit_and_waits_for_nobody_else() {
    let node = Node::with_tools().await;
    let (cri, sandbox) = (node.cri(), pod(&node, "pod"));
    let pod = cri.run(&sandbox).await;
    let id = cri.launch(&pod, &container(&node, "c", &["/web", "sleep"]), &sandbox).await;
    let pid = cri.pid(&id).await;

    // A tree with a double fork: all of it goes, and the container stays.
    let tree = "(sleep 4711 & ) ; sleep 4711 & sleep 4711";
    let begun = Instant::now();
    refused(cri.try_exec(&id, &["sh", "-c", tree], 1).await, Code::DeadlineExceeded, &["1 second"]);
    assert!(begun.elapsed() < Duration::from_secs(60));
    eventually("the command's tree is gone", async || {
        let processes = cri.sh(&id, "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' || true").await;
        (!processes.contains("4711")).then_some(())
    })
    .await;
    assert!(is_alive(pid));

    // What is left in the background and holds the pipe is not waited for.
    let begun = Instant::now();
    let ended = cri.try_exec(&id, &["sh", "-c", "echo done; sleep 90 &"], 80).await.unwrap();
    assert_eq!((ended.exit_code, ended.stdout.as_slice()), (0, &b"done\n"[..]));
    assert!(begun.elapsed() < Duration::from_secs(60));

    // 17 MiB are cut so that the answer fits into the 16 MiB that a kubelet receives, and the command ends by itself.
    let ended = cri.try_exec(&id, &["/web", "spew", "17825792", "99"], 60).await.unwrap();
    assert_eq!((ended.exit_code, ended.stdout.len()), (0, (16 << 20) - (64 << 10)));
    assert_eq!(cri.code(&id, "exit 42").await.0, 42);
    refused(cri.try_exec(&id, &[], 1).await, Code::InvalidArgument, &["cmd"]);
    refused(cri.try_exec(&id, &["/no/such"], 1).await, Code::InvalidArgument, &["/no/such", "No such file"]);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_rotate_and_lose_nothing() {
    let node = Node::with_tools().await;
    let (cri, sandbox) = (node.cri(), pod(&node, "pod"));
    let pod = cri.run(&sandbox).await;
    let script = "n=0; while true; do echo line $n; n=$((n + 1)); done";
    let id = cri.launch(&pod, &shell(&node, "loud", script), &sandbox).await;
    let log = cri.status(&id).await.unwrap().log_path;
    let mut rotated = Vec::new();
    for number in 0..5 {
        tokio::time::sleep(Duration::from_millis(60)).await;
        let old = format!("{log}.{number}");
        std::fs::rename(&log, &old).unwrap();
        cri.runtime().reopen_container_log(ReopenContainerLogRequest { container_id: id.clone() }).await.unwrap();
        assert!(std::fs::exists(&log).unwrap());
        rotated.push(old);
    }
    cri.try_stop(&id, 0).await.unwrap();
    refused(
        cri.runtime().reopen_container_log(ReopenContainerLogRequest { container_id: id.clone() }).await,
        Code::FailedPrecondition,
        &["not running"],
    );
    rotated.push(log);
    let text: String = rotated.iter().map(|path| log_text(path)).collect();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() > 100);
    for (number, line) in lines[..lines.len() - 1].iter().enumerate() {
        assert_eq!(*line, format!("line {number}"));
    }
    node.finish().await;
}
