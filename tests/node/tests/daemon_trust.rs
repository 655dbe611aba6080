//! Image policy and settings at work: documents that change while the daemon runs, and figures that tell.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

use crate::daemon::client::refused;
use crate::daemon::{Cri, Node, eventually, images, pod, shell};
use tonic::Code;

/// The code and the words that the kubelet looks for.
const DENIED: &str = "SignatureValidationFailed: ";

fn policy(name: &str, mode: &str, rest: &str) -> String {
    format!(
        "apiVersion: berth.dev/v1alpha1\nkind: ImagePolicy\nmetadata:\n  name: {name}\nspec:\n  mode: {mode}\n{rest}"
    )
}

/// Waits until the daemon says that these documents are in force.
async fn in_force(node: &Node, wanted: &str) {
    let what = format!("{wanted} is in force");
    eventually(&what, async || node.info().await.documents.iter().any(|d| d.contains(wanted)).then_some(())).await;
}

fn decisions(node: &Node, stage: &str, verdict: &str) -> f64 {
    node.figure(&format!("berth_policy_decisions_total{{stage=\"{stage}\",verdict=\"{verdict}\"}}"))
}

async fn pull_is_denied(cri: &Cri, reference: &str, words: &[&str]) {
    let answer = cri.try_pull(reference, "default").await;
    assert!(answer.as_ref().is_err_and(|e| e.message().starts_with(DENIED)), "{answer:?}");
    refused(answer, Code::Unknown, words);
    assert_eq!(cri.image(reference).await, None, "nothing was fetched");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pulls_are_denied_by_registry_digest_and_tag() {
    let node = Node::new().await;
    let cri = node.cri();
    let host = node.registry().host();
    for (repository, tag) in [("untrusted/app", "v1"), ("loose/app", "v1"), ("moving/app", "latest")] {
        node.registry().push_image(&images::web(repository, tag)).unwrap();
    }
    let digest = node.registry().tag("loose/app", "v1").unwrap();
    node.document(
        "60-deny.yaml",
        &policy("deny-some", "Enforce", &format!("  registries:\n    deny: [\"{host}/untrusted\"]\n")),
    );
    let only =
        format!("  match:\n    images:\n      - pattern: {host}/loose/*\n  references:\n    requireDigest: true\n");
    node.document("61-digest.yaml", &policy("pinned", "Enforce", &only));
    node.document("62-tag.yaml", &policy("no-latest", "Enforce", "  references:\n    forbidTags: [latest]\n"));
    in_force(&node, "no-latest").await;
    let before = node.registry().requests().len();
    pull_is_denied(&cri, &node.registry().reference("untrusted/app:v1"), &["deny-some", "untrusted"]).await;
    pull_is_denied(&cri, &node.registry().reference("loose/app:v1"), &["pinned", "digest"]).await;
    pull_is_denied(&cri, &node.registry().reference("moving/app:latest"), &["no-latest", "latest"]).await;
    assert_eq!(node.registry().requests().len(), before, "the registry was not even asked");
    assert_eq!(decisions(&node, "pull", "deny"), 3.0);
    cri.pull(&node.registry().reference(&format!("loose/app@{digest}"))).await;
    cri.pull(&node.web()).await;
    assert_eq!(decisions(&node, "pull", "allow"), 2.0);
    assert_eq!(node.figure("berth_pulls_total{result=\"denied\"}"), 3.0);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_comes_later_holds_for_images_that_are_here() {
    let node = Node::with_tools().await;
    let cri = node.cri();
    let host = node.registry().host();
    let sandbox = pod(&node, "pod");
    let pod = cri.run(&sandbox).await;
    let id = cri.image(&node.tools()).await.unwrap().id;
    let before = cri.launch(&pod, &shell(&node, "before", "exec sleep 1000"), &sandbox).await;
    let deny = |mode: &str| policy("late", mode, &format!("  registries:\n    deny: [\"{host}\"]\n"));
    node.document("60-late.yaml", &deny("Enforce"));
    in_force(&node, "late").await;
    let mut by_id = shell(&node, "by-id", "true");
    by_id.image.as_mut().unwrap().image = id;
    for config in [&shell(&node, "by-name", "true"), &by_id] {
        let answer = cri.try_create(&pod, config, &sandbox).await;
        assert!(answer.as_ref().is_err_and(|e| e.message().starts_with(DENIED)), "{answer:?}");
        refused(answer, Code::Unknown, &["late"]);
    }
    node.nothing_but(&[&pod], &[&before]);
    assert_eq!(cri.sh(&before, "echo runs on").await, "runs on");
    assert_eq!(decisions(&node, "create", "deny"), 2.0);

    for (mode, verdict) in [("Warn", "warn"), ("Audit", "audit")] {
        node.document("60-late.yaml", &deny(mode));
        let passed = format!("it passes in mode {mode}");
        let created =
            eventually(&passed, async || cri.try_create(&pod, &shell(&node, verdict, "true"), &sandbox).await.ok());
        created.await;
        eventually("the mode's verdict is counted", async || {
            cri.try_pull(&node.web(), "default").await.unwrap();
            (decisions(&node, "pull", verdict) >= 1.0).then_some(())
        })
        .await;
    }
    assert!(decisions(&node, "create", "warn") >= 1.0);
    node.remove_document("60-late.yaml");
    eventually("the policy is gone", async || {
        let allowed = decisions(&node, "pull", "allow");
        cri.try_pull(&node.web(), "default").await.unwrap();
        (decisions(&node, "pull", "allow") > allowed).then_some(())
    })
    .await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_document_is_refused_and_the_former_ones_stay() {
    let mut node = Node::new().await;
    let host = node.registry().host();
    node.document("60-deny.yaml", &policy("guard", "Enforce", &format!("  registries:\n    deny: [\"{host}\"]\n")));
    in_force(&node, "guard").await;
    let refusals = || node.figure("berth_events_total{event=\"settings_refused\"}");
    assert_eq!(refusals(), 0.0);
    let typing_error = policy("guard", "Enforce", "  registries:\n    deney: []\n");
    node.document("60-deny.yaml", &typing_error);
    let told = eventually("the refusal is told", async || {
        let told = node.info().await.refused_documents;
        (!told.is_empty()).then_some(told)
    })
    .await;
    for word in ["60-deny.yaml", "deney", "line"] {
        assert!(told.contains(word), "{word} is not in {told:?}");
    }
    eventually("the refusal is counted", async || (refusals() >= 1.0).then_some(())).await;
    pull_is_denied(&node.cri(), &node.web(), &["guard"]).await;
    // Mended, it applies.
    node.document("60-deny.yaml", &policy("guard", "Audit", &format!("  registries:\n    deny: [\"{host}\"]\n")));
    eventually("nothing is refused any more", async || node.info().await.refused_documents.is_empty().then_some(()))
        .await;
    node.cri().pull(&node.web()).await;
    // A daemon that finds documents that it cannot read starts with those that were accepted last, and says so.
    node.document("60-deny.yaml", &typing_error);
    assert!(node.terminate().await.success());
    node.start().await;
    let told = node.info().await.refused_documents;
    assert!(told.contains("deney"), "{told:?}");
    in_force(&node, "guard").await;
    // Where none were ever accepted it does not start: it would run without the policy.
    assert!(node.terminate().await.success());
    std::fs::remove_file(node.root().join("lib/accepted-documents.json")).unwrap();
    let started = std::process::Command::new("timeout")
        .arg("30")
        .arg(berth_node_tests::programs().join("berth"))
        .args(["serve", "--root"])
        .arg(node.root())
        .output()
        .unwrap();
    assert_eq!(started.status.code(), Some(1), "{started:?}");
    let words = String::from_utf8_lossy(&started.stderr).into_owned();
    assert!(words.contains("deney"), "{words}");
    node.remove_document("60-deny.yaml");
    node.start().await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_that_come_and_go_add_no_series() {
    let node = Node::with_tools().await;
    let cri = node.cri();
    let live = async |name: String| {
        let sandbox = pod(&node, &name);
        let pod = cri.run(&sandbox).await;
        let id = cri.launch(&pod, &shell(&node, "c", "exit 3"), &sandbox).await;
        cri.exited(&id).await;
        cri.runtime().list_container_stats(berth_proto::cri::ListContainerStatsRequest::default()).await.unwrap();
        cri.try_remove(&id).await.unwrap();
        cri.try_remove_pod(&pod).await.unwrap();
    };
    live("first".into()).await;
    let before: Vec<String> = node.figures().into_keys().collect();
    for number in 0..30 {
        live(format!("pod-{number}")).await;
    }
    let after: Vec<String> = node.figures().into_keys().collect();
    let new: Vec<&String> = after.iter().filter(|name| !before.contains(name)).collect();
    assert!(new.is_empty(), "{new:#?}");
    assert_eq!(node.figure("berth_container_exits_total{reason=\"Error\"}"), 31.0);
    assert_eq!(node.figure("berth_pods{state=\"ready\"}"), 0.0);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registrys_authority_is_trusted_as_soon_as_a_document_says_so() {
    let node = Node::new().await;
    let options = berth_test_registry::Options { tls: true, ..Default::default() };
    let registry = berth_test_registry::Registry::start(options).await.unwrap();
    registry.push_image(&images::web("web", "v1")).unwrap();
    let image = registry.reference("web:v1");
    let refusal = node.cri().try_pull(&image, "default").await.unwrap_err();
    assert!(refusal.message().starts_with("RegistryUnavailable"), "{refusal:?}");

    let pem = registry.ca_pem().unwrap().trim().replace('\n', "\n          ");
    let document = format!(
        "apiVersion: berth.dev/v1alpha1\nkind: RuntimeConfig\nmetadata: {{name: registry}}\nspec:\n  registries:\n    \
         - host: '{}'\n      tls:\n        caPem: |\n          {pem}\n",
        registry.host()
    );
    node.document("70-registry.yaml", &document);
    in_force(&node, "RuntimeConfig/registry").await;
    let pulled = async || node.cri().try_pull(&image, "default").await.ok();
    eventually("the authority is trusted", pulled).await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_are_told_without_the_kubelets_word() {
    let node = Node::new().await;
    let host = node.registry().host();
    node.document("60-deny.yaml", &policy("guard", "Enforce", &format!("  registries:\n    deny: [\"{host}\"]\n")));
    in_force(&node, "guard").await;
    let berth = berth_node_tests::programs().join("berth");
    let output = std::process::Command::new(berth).arg("--root").arg(node.root()).args(["pull", &node.web()]).output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("is denied: ImagePolicy guard"), "{said}");
    assert!(!said.contains("SignatureValidationFailed"), "{said}");
    node.finish().await;
}
