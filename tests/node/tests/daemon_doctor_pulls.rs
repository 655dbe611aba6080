//! `berth doctor` on pulls that fail: each cause is a real registry that behaves so, and no credential is told.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

use crate::daemon;
use crate::daemon::doctor::doctor;
use crate::daemon::{Node, images};
use berth_test_registry::{AuthMode, Fault, Options, Registry, When};

const SECRET: &str = "swordfish-4711";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_cause_of_a_failed_pull_is_told() {
    let node = Node::new().await;
    let cri = node.cri();
    let auth = AuthMode::Basic { username: "user".into(), password: SECRET.into() };
    let closed = Registry::start(Options { auth, ..Options::default() }).await.unwrap();
    closed.push_image(&images::web("app", "v1")).unwrap();
    let limited = Registry::start(Options::default()).await.unwrap();
    limited.push_image(&images::web("app", "v1")).unwrap();
    limited.inject(When::any(), Fault::Status { code: 429, retry_after: Some(3600) });
    let untrusted = Registry::start(Options { tls: true, ..Options::default() }).await.unwrap();
    untrusted.push_image(&images::web("app", "v1")).unwrap();
    let gone = Registry::start(Options::default()).await.unwrap();
    let unreachable = gone.reference("app:v1");
    drop(gone);
    let lying = Registry::start(Options::default()).await.unwrap();
    let image = lying.push_image(&images::web("app", "v1")).unwrap();
    lying.inject(When::path("/blobs/"), Fault::Corrupt);
    let proxied = "apiVersion: berth.dev/v1alpha1\nkind: RuntimeConfig\nmetadata: {name: proxy}\nspec: {proxy: {https: \"http://127.0.0.1:1\", noProxy: \".invalid,localhost,127.0.0.0/8\"}}\n";
    node.document("61-proxy.yaml", proxied);
    let denied = "apiVersion: berth.dev/v1alpha1\nkind: ImagePolicy\nmetadata: {name: deny}\nspec: {mode: Enforce, registries: {deny: [\"forbidden.example\"]}}\n";
    node.document("60-deny.yaml", denied);
    daemon::eventually("the policy is in force", async || {
        let documents = node.info().await.documents.join(" ");
        (documents.contains("deny") && documents.contains("proxy")).then_some(())
    })
    .await;
    let missing = node.registry().reference("no-such-image:v1");
    for reference in [
        closed.reference("app:v1"),
        limited.reference("app:v1"),
        untrusted.reference("app:v1"),
        unreachable.clone(),
        missing.clone(),
        "forbidden.example/app:v1".to_owned(),
        "no-such-host.invalid/app:v1".to_owned(),
        "behind-the-proxy.example/app:v1".to_owned(),
        lying.reference("app:v1"),
    ] {
        cri.try_pull(&reference, "default").await.unwrap_err();
    }
    let found = doctor(&node, &["image-pulls"]);
    found.finding("pull-auth", &[&closed.host()]);
    found.finding("pull-rate-limit", &[&limited.host()]);
    found.finding("pull-tls", &[&untrusted.host()]);
    found.finding("pull-unreachable", &[unreachable.split('/').next().unwrap()]);
    found.finding("pull-not-found", &[&missing]);
    found.finding("pull-denied", &["forbidden.example", "deny"]);
    found.finding("pull-dns", &["no-such-host.invalid"]);
    found.finding("pull-proxy", &["behind-the-proxy.example"]);
    found.finding("pull-failed", &[&lying.host()]);
    drop(image);
    assert!(!format!("{:?}", found.findings).contains(SECRET), "a credential is told");
    // A name that no document configures has no series of its own.
    assert!(node.figure("berth_registry_pulls_total{registry=\"other\",result=\"error\"}") >= 6.0);
    node.finish().await;
}
