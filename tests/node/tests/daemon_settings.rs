//! Settings that change while the daemon runs: each shows in what the kernel, a client or a container sees, and what cannot be applied
//! is told while the former setting stays in force.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

use crate::daemon::cli::{self, try_run};
use crate::daemon::client::refused;
use crate::daemon::requests::security;
use crate::daemon::{Node, crictl, eventually, page, pod, proc_status, shell};
use berth_proto::cri::security_profile::ProfileType;
use berth_proto::cri::*;
use berth_test_registry::{Options, Registry};
use std::net::TcpListener;
use std::path::Path;
use tonic::Code;

/// The document of these tests, beside the node's own.
fn spec(node: &Node, spec: &str) {
    let head = "apiVersion: berth.dev/v1alpha1\nkind: RuntimeConfig\nmetadata: {name: late}\nspec:\n";
    node.document("60-late.yaml", &format!("{head}{spec}"));
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn problem(node: &Node, field: &str) -> String {
    let what = format!("a problem with {field}");
    eventually(&what, async || {
        node.info().await.settings_problems.into_iter().find(|p| p.starts_with(&format!("{field}:")))
    })
    .await
}

async fn no_problem(node: &Node) {
    eventually("no problems", async || node.info().await.settings_problems.is_empty().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_move_to_another_address_or_stay() {
    let node = Node::new().await;
    let first = node.info().await.metrics_address;
    assert!(page(&first, "/metrics").await.unwrap().contains("berth_"));
    let (one, two) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
    spec(&node, &format!("  metrics: {{address: \"{one}\"}}\n"));
    eventually("the new address answers", async || page(&one, "/metrics").await.filter(|t| t.contains("berth_"))).await;
    eventually("the old one is given up", async || page(&first, "/metrics").await.is_none().then_some(())).await;
    assert_eq!(node.info().await.metrics_address, one);

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    spec(&node, &format!("  metrics: {{address: \"{address}\"}}\n"));
    let told = problem(&node, "spec.metrics.address").await;
    assert!(told.contains(&address) && told.to_lowercase().contains("in use"), "{told}");
    let text = page(&one, "/metrics").await.unwrap();
    assert!(text.contains("\nberth_settings_problems 1\n"), "the former address serves, and its figures say so");
    spec(&node, &format!("  metrics: {{address: \"{two}\"}}\n"));
    eventually("the third address answers", async || page(&two, "/metrics").await).await;
    no_problem(&node).await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_pods_have_the_new_mtu() {
    let node = Node::with_tools().await;
    let (cri, old, new) = (node.cri(), pod(&node, "old"), pod(&node, "new"));
    let mtu = async |pod: &str, config: &PodSandboxConfig| {
        let container = cri.launch(pod, &shell(&node, "c", "sleep 1000"), config).await;
        cri.sh(&container, "cat /sys/class/net/eth0/mtu").await.trim().to_owned()
    };
    let old_id = cri.run(&old).await;
    let before = mtu(&old_id, &old).await;
    assert_ne!(before, "1300");
    spec(&node, "  network: {mtu: 1300}\n");
    eventually("the bridge has it", async || {
        let bridge = node.info().await.bridge;
        let now = std::fs::read_to_string(format!("/sys/class/net/{bridge}/mtu")).unwrap();
        (now.trim() == "1300").then_some(())
    })
    .await;
    let new_id = cri.run(&new).await;
    assert_eq!(mtu(&new_id, &new).await, "1300");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_follow_the_streaming_address_and_certificate() {
    let node = Node::with_tools().await;
    let (cri, config) = (node.cri(), pod(&node, "pod"));
    let id = cri.run(&config).await;
    let container = cri.launch(&id, &shell(&node, "c", "sleep 1000"), &config).await;
    let exec =
        |options: &[&str]| crictl::try_run(&node, &[&["exec"], options, &[&container, "echo", "hello"]].concat());
    let url = async || {
        let request = ExecRequest {
            container_id: container.clone(),
            cmd: vec!["true".into()],
            stdout: true,
            ..Default::default()
        };
        cri.runtime().exec(request).await.unwrap().into_inner().url
    };
    assert_eq!(exec(&[]).out, "hello\n");
    let port = free_port();
    spec(&node, &format!("  runtime: {{streaming: {{bind: \"127.0.0.1:{port}\"}}}}\n"));
    let begin = format!("http://127.0.0.1:{port}/");
    eventually("the new address", async || url().await.starts_with(&begin).then_some(())).await;
    assert_eq!(exec(&[]).out, "hello\n");

    // Two authorities: a client that trusts one of them tells which certificate is served. crictl wants one of its own to show.
    let mut authorities = Vec::new();
    for name in ["one", "two"] {
        let authority = Registry::start(Options { tls: true, ..Options::default() }).await.unwrap();
        let file = |kind: &str, text: &str| {
            let path = node.base().join(format!("{name}-{kind}.pem"));
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let (cert, key) = authority.client_identity().unwrap();
        let files = [file("ca", authority.ca_pem().unwrap()), file("cert", cert), file("key", key)];
        authorities.push((files, authority));
    }
    let (cert, key) = (node.base().join("tls.crt"), node.base().join("tls.key"));
    let serve = |which: usize| {
        let (chain, secret) = authorities[which].1.server_identity().unwrap();
        for (file, text) in [(&cert, chain), (&key, secret)] {
            let draft = file.with_extension("draft");
            std::fs::write(&draft, text).unwrap();
            std::fs::rename(&draft, file).unwrap();
        }
    };
    serve(0);
    spec(
        &node,
        &format!(
            "  runtime: {{streaming: {{bind: \"127.0.0.1:{port}\", tlsCertFile: {}, tlsKeyFile: {}}}}}\n",
            cert.display(),
            key.display()
        ),
    );
    eventually("TLS", async || url().await.starts_with("https://").then_some(())).await;
    let trusting = |which: usize| {
        let [ca, cert, key] = &authorities[which].0;
        exec(&["--tls-ca", ca, "--tls-cert", cert, "--tls-key", key])
    };
    assert_eq!(trusting(0).out, "hello\n", "{:?}", trusting(0));
    assert!(trusting(1).err.contains("certificate"), "{:?}", trusting(1));
    // Renewed in place, as certificates are. The document does not change.
    serve(1);
    eventually("the renewed certificate", async || (trusting(1).out == "hello\n").then_some(())).await;
    assert!(trusting(0).err.contains("certificate"), "{:?}", trusting(0));
    node.finish().await;
}

/// Nobody streams anything here: whoever changes the settings is told, and what was wrong is over with them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streaming_settings_are_proven_when_they_change() {
    let node = Node::new().await;
    let missing = node.base().join("none.pem").display().to_string();
    spec(&node, &format!("  runtime: {{streaming: {{tlsCertFile: {missing}, tlsKeyFile: {missing}}}}}\n"));
    problem(&node, "spec.runtime.streaming").await;
    spec(&node, "  runtime: {streaming: {tokenTTL: 30s}}\n");
    no_problem(&node).await;
    // An address that the machine does not have (RFC 5737).
    spec(&node, "  runtime: {streaming: {bind: 192.0.2.1}}\n");
    problem(&node, "spec.runtime.streaming").await;
    spec(&node, "  runtime: {streaming: {bind: 127.0.0.2}}\n");
    no_problem(&node).await;
    node.finish().await;
}

const NO_MKDIR: &str = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]}"#;

fn profiles(text: &str, runtime: &str) -> String {
    format!("  profiles:\n  - {{name: team/no-mkdir.json, type: Seccomp, source: {{inline: '{text}'}}}}\n{runtime}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seccomp_profiles_are_documents() {
    let node = Node::with_tools().await;
    let (cri, config) = (node.cri(), pod(&node, "pod"));
    let id = cri.run(&config).await;
    let asking = |name: &str, kind: ProfileType, reference: &str| {
        let mut container = shell(&node, name, "sleep 1000");
        let profile = SecurityProfile { profile_type: kind as i32, localhost_ref: reference.into() };
        security(&mut container).seccomp = Some(profile);
        container
    };
    // As the kubelet sends it, for a profile that lies on no disk.
    let reference = "/var/lib/kubelet/seccomp/team/no-mkdir.json";
    assert!(!Path::new(reference).exists());
    let named = asking("named", ProfileType::Localhost, reference);
    refused(cri.try_create(&id, &named, &config).await, Code::InvalidArgument, &["team/no-mkdir.json"]);
    spec(&node, &profiles(NO_MKDIR, ""));
    eventually("it is in force", async || {
        cli::run(&node, &["config", "explain", "spec.profiles"]).contains("no-mkdir").then_some(())
    })
    .await;
    let container = cri.launch(&id, &named, &config).await;
    let (code, text) = cri.code(&container, "mkdir /tmp/x").await;
    assert!(code != 0 && text.contains("Permission denied"), "{text}");

    // What RuntimeDefault means. A container that asks for nothing else has it from its next start on.
    let default = cri.launch(&id, &asking("before", ProfileType::RuntimeDefault, ""), &config).await;
    cri.sh(&default, "mkdir /tmp/x").await;
    spec(&node, &profiles(NO_MKDIR, "  runtime: {defaultProfiles: {seccomp: team/no-mkdir.json}}\n"));
    eventually("the default is in force", async || {
        let said = cli::run(&node, &["config", "explain", "spec.runtime.defaultProfiles.seccomp"]);
        said.contains("no-mkdir").then_some(())
    })
    .await;
    let default = cri.launch(&id, &asking("after", ProfileType::RuntimeDefault, ""), &config).await;
    assert_eq!(cri.code(&default, "mkdir /tmp/x").await.0, 1);
    let free = cri.launch(&id, &asking("free", ProfileType::Unconfined, ""), &config).await;
    assert_eq!(proc_status(cri.pid(&free).await, "Seccomp"), "0");
    cri.sh(&free, "mkdir /tmp/y").await;

    // What cannot be used is refused as a whole, here and on the command line, and what is in force stays.
    for (bad, words) in [
        (profiles(r#"{"defaultAction": "SCMP_ACT_SURE"}"#, ""), ["team/no-mkdir.json", "SCMP_ACT_SURE"]),
        (
            profiles(NO_MKDIR, "  runtime: {defaultProfiles: {seccomp: gone.json}}\n"),
            ["defaultProfiles.seccomp", "gone.json"],
        ),
    ] {
        spec(&node, &bad);
        let told = eventually("it is refused", async || {
            Some(node.info().await.refused_documents).filter(|t| t.contains(words[0]) && t.contains(words[1]))
        })
        .await;
        let file = node.root().join("etc/60-late.yaml").display().to_string();
        let said = try_run(&node, &["config", "check", "-f", &file]);
        assert_eq!(said.code, 1, "{told}");
        assert!(words.iter().all(|w| said.err.contains(w)), "{} {}", said.out, said.err);
    }
    assert_eq!(cri.code(&default, "mkdir /tmp/z").await.0, 1, "a command has the profile in force");
    node.finish().await;
}
