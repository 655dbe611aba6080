//! AppArmor as a node has it: the default profile in force and denying, profiles of users by name, and nothing at all where the
//! promised profile cannot be had. Runs in the guest tier. What a process is labelled with is read from /proc by the test.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

use crate::daemon;
use crate::daemon::client::refused;
use crate::daemon::requests::{bind, pod_security, security};
use crate::daemon::{Node, eventually, host, pod, shell};
use berth_node_tests::unique;
use berth_proto::cri::security_profile::ProfileType;
use berth_proto::cri::*;
use std::io::Write as _;
use std::process::{Command, Stdio};
use tokio::sync::{Mutex, MutexGuard};
use tonic::Code;

const DEFAULT: &str = "berth-default";
const PARSER: &str = "/usr/sbin/apparmor_parser";
/// With CAP_SYS_ADMIN and without seccomp, AppArmor alone stands between a container and a mount.
const MOUNT: &str = "mkdir -p /tmp/m && mount -t tmpfs none /tmp/m";

/// The kernel has one set of profiles for all tests.
async fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::const_new(());
    ONE.lock().await
}

/// AppArmor's label of a process, as the kernel has it.
fn label(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/attr/current")).unwrap().trim().to_owned()
}

fn loaded(name: &str) -> bool {
    let list = std::fs::read_to_string("/sys/kernel/security/apparmor/profiles").unwrap();
    list.lines().any(|line| line.starts_with(&format!("{name} (")))
}

/// Runs the parser on a profile; it must succeed.
fn parse(option: &str, text: &str) {
    let mut child = Command::new(PARSER).args([option, "-K", "-q"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "apparmor_parser {option}: {text}");
}

fn unload(name: &str) {
    parse("-R", &format!("profile {name} {{ }}"));
    assert!(!loaded(name));
}

fn structured(kind: ProfileType, name: &str) -> Option<SecurityProfile> {
    Some(SecurityProfile { profile_type: kind as i32, localhost_ref: name.into() })
}

/// A container that could mount, were it not for AppArmor.
fn mighty(node: &Node, name: &str) -> ContainerConfig {
    let mut config = shell(node, name, "sleep 1000");
    security(&mut config).capabilities =
        Some(Capability { add_capabilities: vec!["SYS_ADMIN".into()], ..Default::default() });
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guest_apparmor_the_default_profile_denies() {
    let _alone = alone().await;
    let node = Node::with_tools().await;
    assert!(loaded(DEFAULT), "the daemon loads it when it starts");
    let sandbox = pod(&node, "default");
    let id = node.cri().run(&sandbox).await;
    // Nothing said, and the default asked for, in the new field and in the old one.
    let (unsaid, mut new, mut old) = (mighty(&node, "unsaid"), mighty(&node, "new"), mighty(&node, "old"));
    security(&mut new).apparmor = structured(ProfileType::RuntimeDefault, "");
    #[allow(deprecated, reason = "kubelets before 1.31 send it")]
    let deprecated = |config: &mut ContainerConfig, text: &str| security(config).apparmor_profile = text.into();
    deprecated(&mut old, "runtime/default");
    for config in [unsaid, new, old] {
        let container = node.cri().launch(&id, &config, &sandbox).await;
        let expected = format!("{DEFAULT} (enforce)");
        assert_eq!(label(node.cri().pid(&container).await), expected);
        assert_eq!(node.cri().sh(&container, "cat /proc/self/attr/current").await, expected, "the label of an exec");
        assert_eq!(node.cri().inspect(&container).await["record"]["labels"]["apparmor"], expected);
        let (code, text) = node.cri().code(&container, MOUNT).await;
        assert!(code != 0 && text.to_lowercase().contains("permission denied"), "{code} {text}");
        let write = "cat /proc/sys/vm/swappiness > /tmp/v && cat /tmp/v > /proc/sys/vm/swappiness";
        let (code, text) = node.cri().code(&container, write).await;
        assert!(code != 0 && text.contains("Permission denied"), "{code} {text}");
        node.cri()
            .sh(&container, "echo 0 > /proc/sys/kernel/shm_rmid_forced; sleep 100 & kill $!; echo x > /tmp/x")
            .await;
        node.cri().try_stop(&container, 1).await.unwrap();
    }
    // The same container without AppArmor can do both, so the refusals above are AppArmor's.
    let mut free = mighty(&node, "free");
    security(&mut free).apparmor = structured(ProfileType::Unconfined, "");
    let free = node.cri().launch(&id, &free, &sandbox).await;
    assert_eq!(label(node.cri().pid(&free).await), "unconfined");
    node.cri().sh(&free, MOUNT).await;
    node.cri().sh(&free, "cat /proc/sys/vm/swappiness > /tmp/v && cat /tmp/v > /proc/sys/vm/swappiness").await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guest_apparmor_privileged_is_unconfined() {
    let _alone = alone().await;
    let node = Node::with_tools().await;
    let mut sandbox = pod(&node, "mighty");
    pod_security(&mut sandbox).privileged = true;
    let mut config = shell(&node, "mighty", "sleep 1000");
    security(&mut config).privileged = true;
    security(&mut config).apparmor = structured(ProfileType::RuntimeDefault, "");
    let id = node.cri().run(&sandbox).await;
    let container = node.cri().launch(&id, &config, &sandbox).await;
    assert_eq!(label(node.cri().pid(&container).await), "unconfined");
    node.cri().sh(&container, MOUNT).await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guest_apparmor_profiles_of_users() {
    let _alone = alone().await;
    let node = Node::with_tools().await;
    let name = unique("test-profile-");
    parse(
        "-r",
        &format!("profile {name} flags=(attach_disconnected) {{ file, network, capability, deny /data/** w, }}"),
    );
    let data = node.base().join("data");
    std::fs::create_dir(&data).unwrap();
    let sandbox = pod(&node, "users");
    let id = node.cri().run(&sandbox).await;
    for (n, (prefix, old)) in [("", false), ("localhost/", false), ("localhost/", true)].into_iter().enumerate() {
        let mut config = shell(&node, &format!("c{n}"), "sleep 1000");
        config.mounts.push(bind(&data, "/data"));
        let reference = format!("{prefix}{name}");
        if old {
            #[allow(deprecated, reason = "kubelets before 1.31 send it")]
            let field = &mut security(&mut config).apparmor_profile;
            *field = reference;
        } else {
            security(&mut config).apparmor = structured(ProfileType::Localhost, &reference);
        }
        let container = node.cri().launch(&id, &config, &sandbox).await;
        assert_eq!(label(node.cri().pid(&container).await), format!("{name} (enforce)"));
        let (code, text) = node.cri().code(&container, "echo x > /data/file").await;
        assert!(code != 0 && text.contains("Permission denied"), "{code} {text}");
        node.cri().sh(&container, "echo x > /tmp/file").await;
        assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0);
    }
    let mut config = shell(&node, "missing", "sleep 1000");
    security(&mut config).apparmor = structured(ProfileType::Localhost, "no-such-profile");
    let answer = node.cri().try_create(&id, &config, &sandbox).await;
    refused(answer, Code::FailedPrecondition, &["no-such-profile", "not loaded", "apparmor_parser"]);
    // What runs keeps its profile, so it can only be unloaded afterwards.
    node.cri().try_remove_pod(&id).await.unwrap();
    unload(&name);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guest_apparmor_profiles_are_documents() {
    let _alone = alone().await;
    let node = Node::with_tools().await;
    let (name, other) = (unique("document-"), unique("other-"));
    let data = node.base().join("data");
    std::fs::create_dir(&data).unwrap();
    let spec = |denied: &str, more: &str| {
        let text =
            format!("profile {name} flags=(attach_disconnected) {{ file, network, capability, deny {denied}/** w, }}");
        let head = "apiVersion: berth.dev/v1alpha1\nkind: RuntimeConfig\nmetadata: {name: late}\nspec:\n";
        let entry = format!("  - {{name: {name}, type: AppArmor, source: {{inline: '{text}{more}'}}}}\n");
        node.document(
            "60-late.yaml",
            &format!("{head}  runtime: {{defaultProfiles: {{appArmor: {name}}}}}\n  profiles:\n{entry}"),
        );
    };
    let sandbox = pod(&node, "documents");
    let id = node.cri().run(&sandbox).await;
    let asking = |container: &str, kind: ProfileType, reference: &str| {
        let mut config = shell(&node, container, "sleep 1000");
        config.mounts.push(bind(&data, "/data"));
        security(&mut config).apparmor = structured(kind, reference);
        config
    };
    spec("/data", "");
    eventually("it is loaded", async || loaded(&name).then_some(())).await;
    for (n, config) in
        [asking("named", ProfileType::Localhost, &name), asking("default", ProfileType::RuntimeDefault, "")]
            .iter()
            .enumerate()
    {
        let container = node.cri().launch(&id, config, &sandbox).await;
        assert_eq!(label(node.cri().pid(&container).await), format!("{name} (enforce)"), "{n}");
        let (code, text) = node.cri().code(&container, "echo x > /data/file").await;
        assert!(code != 0 && text.contains("Permission denied"), "{code} {text}");
        // A changed text counts for what runs, too.
        spec("/elsewhere", "");
        eventually("the changed profile", async || {
            (node.cri().code(&container, "echo x > /data/file").await.0 == 0).then_some(())
        })
        .await;
        spec("/data", "");
        eventually("the former profile", async || {
            (node.cri().code(&container, "echo x > /data/file").await.0 != 0).then_some(())
        })
        .await;
    }
    // A text that brings another profile along could replace one of the node's.
    spec("/data", &format!(" profile {other} {{ }}"));
    let told = eventually("a problem", async || {
        node.info().await.settings_problems.into_iter().find(|p| p.starts_with("spec.profiles:"))
    })
    .await;
    assert!(told.contains(&other) && told.contains("entry of its own") && !loaded(&other), "{told}");
    let answer = node.cri().try_create(&id, &asking("late", ProfileType::Localhost, &name), &sandbox).await;
    refused(answer, Code::FailedPrecondition, &[&name, &other]);
    node.cri().try_remove_pod(&id).await.unwrap();
    unload(&name);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guest_apparmor_without_the_default_profile_nothing_starts() {
    let _alone = alone().await;
    let mut node = Node::with_tools().await;
    let sandbox = pod(&node, "closed");
    let id = node.cri().run(&sandbox).await;
    // Somebody unloaded it: it comes back.
    unload(DEFAULT);
    let first = node.cri().launch(&id, &shell(&node, "first", "sleep 1000"), &sandbox).await;
    assert_eq!(label(node.cri().pid(&first).await), format!("{DEFAULT} (enforce)"));
    node.cri().try_remove(&first).await.unwrap();

    // A parser that cannot do it, and a daemon that starts with it.
    let broken = node.base().join("broken-parser");
    std::fs::write(&broken, "#!/bin/sh\necho no policy today >&2\nexit 7\n").unwrap();
    host("chmod", &["755", broken.to_str().unwrap()]);
    node.kill();
    unload(DEFAULT);
    host("mount", &["--bind", broken.to_str().unwrap(), PARSER]);
    node.start().await;
    let second = shell(&node, "second", "sleep 1000");
    let answer = node.cri().try_create(&id, &second, &sandbox).await;
    let told = node.cri().runtime().status(StatusRequest::default()).await.unwrap().into_inner();
    let found = daemon::doctor::doctor(&node, &["daemon", "kernel"]);
    let mut free = shell(&node, "free", "sleep 1000");
    security(&mut free).apparmor = structured(ProfileType::Unconfined, "");
    let free = node.cri().try_create(&id, &free, &sandbox).await;
    // Before anything is asserted, the parser is mended for the tests after this one.
    host("umount", &[PARSER]);
    refused(answer, Code::FailedPrecondition, &[DEFAULT, "no policy today", "Unconfined"]);
    node.cri().try_start(&free.unwrap()).await.unwrap();
    let condition = |status: StatusResponse| {
        status.status.unwrap().conditions.into_iter().find(|c| c.r#type == "AppArmorReady").unwrap()
    };
    let bad = condition(told);
    assert!(!bad.status && bad.message.contains("no policy today"), "{bad:?}");
    found.finding("condition", &["AppArmorReady", "no policy today"]);
    found.finding("lsm", &["apparmor"]);

    let second = node.cri().launch(&id, &second, &sandbox).await;
    assert_eq!(label(node.cri().pid(&second).await), format!("{DEFAULT} (enforce)"));
    let good = condition(node.cri().runtime().status(StatusRequest::default()).await.unwrap().into_inner());
    assert!(good.status && good.message.is_empty(), "{good:?}");
    node.finish().await;
}
