//! ExecSync as a kubelet sees it: answers that its client takes in, and failures that are told by code.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

use crate::daemon;
use crate::daemon::client::{refused, within};
use crate::daemon::{Node, container, pod, shell};
use berth_node_tests::programs;
use berth_proto::cri::runtime_service_client::RuntimeServiceClient;
use berth_proto::cri::*;
use std::process::Command;
use std::time::Duration;
use tonic::Code;
use tonic::transport::Endpoint;

/// What a kubelet takes in (pkg/kubelet/cri/remote, maxMsgSize).
const KUBELET: usize = 16 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kubelet_takes_in_the_longest_answers() {
    let node = Node::with_tools().await;
    let cri = node.cri();
    let sandbox = pod(&node, "talks");
    let id = cri.run(&sandbox).await;
    let app = cri.launch(&id, &container(&node, "app", &["sleep", "1000"]), &sandbox).await;
    let endpoint = Endpoint::from_shared(format!("unix://{}", node.socket().display())).unwrap();
    let kubelet = RuntimeServiceClient::new(endpoint.connect().await.unwrap()).max_decoding_message_size(KUBELET);
    let run = async |script: &str| {
        let cmd = vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()];
        let request = ExecSyncRequest { container_id: app.clone(), cmd, timeout: 0 };
        let mut kubelet = kubelet.clone();
        let answer = kubelet.exec_sync(request);
        within(Duration::from_secs(60), script, answer).await.unwrap().into_inner()
    };
    let long = |bytes: &[u8]| bytes.len() > KUBELET - (128 << 10) && bytes.len() < KUBELET;
    let out = run("dd if=/dev/zero bs=1M count=20 2>/dev/null; exit 7").await;
    assert!(long(&out.stdout) && out.stderr.is_empty(), "{}", out.stdout.len());
    assert_eq!(out.exit_code, 7, "the command ran to its own end");
    let err = run("echo kept; dd if=/dev/zero bs=1M count=20 >&2 2>/dev/null").await;
    assert_eq!(err.stdout, b"kept\n");
    assert!(long(&err.stderr), "{}", err.stderr.len());
    let both = run("dd if=/dev/zero bs=1M count=20 2>/dev/null; dd if=/dev/zero bs=1M count=20 >&2 2>/dev/null").await;
    assert_eq!(both.stdout.len(), both.stderr.len(), "the room is shared");
    assert!(both.stdout.len() > KUBELET / 2 - (128 << 10), "{}", both.stdout.len());
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_that_cannot_be_executed_are_told_by_code() {
    let node = Node::with_tools().await;
    let cri = node.cri();
    let sandbox = pod(&node, "programs");
    let id = cri.run(&sandbox).await;
    let app = cri.launch(&id, &container(&node, "app", &["sleep", "1000"]), &sandbox).await;
    for (program, words) in [
        ("no-such-program", "No such file"),
        ("/no/such/program", "No such file"),
        ("/etc/passwd", "ermission denied"),
        ("/etc", "ermission denied"),
    ] {
        refused(cri.try_exec(&app, &[program], 10).await, Code::InvalidArgument, &[program, words]);
        let name = format!("c{}", program.replace('/', "-"));
        let broken = cri.create(&id, &container(&node, &name, &[program]), &sandbox).await;
        refused(cri.try_start(&broken).await, Code::InvalidArgument, &[program, words]);
        let status = cri.status(&broken).await.unwrap();
        assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"), "{program}");
        assert!(status.message.contains(words), "{}", status.message);
    }
    // What is at fault in the container itself is no such failure.
    let mut config = shell(&node, "nowhere", "true");
    config.working_dir = "/etc/passwd/nowhere".into();
    let nowhere = cri.create(&id, &config, &sandbox).await;
    let error = cri.try_start(&nowhere).await.unwrap_err();
    assert_ne!(error.code(), Code::InvalidArgument, "{error:?}");

    for (command, code) in [("no-such-program", 127), ("/etc/passwd", 126), ("false", 1), ("true", 0)] {
        let root = node.root();
        let mut berth = Command::new(programs().join("berth"));
        berth.arg("--root").arg(&root).args(["exec", "-c", "app", "programs", "--", command]);
        let output = tokio::task::spawn_blocking(move || berth.output().unwrap()).await.unwrap();
        assert_eq!(output.status.code(), Some(code), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_comes_too_late_is_told_so() {
    let node = Node::with_tools().await;
    let cri = node.cri();
    let sandbox = pod(&node, "ends");
    let id = cri.run(&sandbox).await;
    let mut late = 0;
    for round in 0..12 {
        let app = cri.launch(&id, &container(&node, &format!("app{round}"), &["sleep", "1000"]), &sandbox).await;
        let pid = cri.pid(&app).await;
        let commands: Vec<_> = (0..4u64)
            .map(|place| {
                let (cri, app) = (cri.clone(), app.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(2 * place)).await;
                    // Again and again, until the container has gone.
                    loop {
                        let answer = cri.try_exec(&app, &["sleep", "0"], 20).await;
                        if let Err(refusal) = answer {
                            break refusal;
                        }
                    }
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(20 + 3 * round)).await;
        daemon::signal(pid, nix::sys::signal::Signal::SIGKILL);
        for command in commands {
            let refusal = within(Duration::from_secs(30), "a refusal", command).await.unwrap();
            assert_eq!(refusal.code(), Code::FailedPrecondition, "round {round}: {}", refusal.message());
            assert!(refusal.message().contains("is not running"), "{}", refusal.message());
            late += usize::from(refusal.message().contains("while the command was started"));
        }
        cri.exited(&app).await;
    }
    println!("{late} commands came while the container ended");
    node.finish().await;
}
