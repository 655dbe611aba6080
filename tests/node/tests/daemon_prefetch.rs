//! Images that documents want on the node before a pod asks for them (`spec.images.prefetch`), with a whole daemon and real registries.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

use crate::daemon::{Node, cli, eventually, images};
use berth_proto::node::PrefetchedImage;
use berth_test_registry::{AuthMode, Fault, Options, Registry, When};

/// The document of these tests, beside the node's own.
fn spec(node: &Node, spec: &str) {
    let head = "apiVersion: berth.dev/v1alpha1\nkind: RuntimeConfig\nmetadata: {name: fetch}\nspec:\n";
    node.document("60-fetch.yaml", &format!("{head}{spec}"));
}

fn list(references: &[String]) -> String {
    format!("  images: {{prefetch: {references:?}}}\n")
}

async fn told(node: &Node, reference: &str) -> Option<PrefetchedImage> {
    node.info().await.prefetch.into_iter().find(|image| image.reference == reference)
}

async fn in_state(node: &Node, reference: &str, state: &str) -> PrefetchedImage {
    let what = format!("{reference} is {state}");
    eventually(&what, async || told(node, reference).await.filter(|image| image.state == state)).await
}

/// Documents are in force whatever becomes of the images.
async fn nothing_is_wrong_with_the_documents(node: &Node) {
    let info = node.info().await;
    assert!(info.documents.iter().any(|d| d.contains("60-fetch.yaml")), "{:?}", info.documents);
    assert!(info.refused_documents.is_empty() && info.settings_problems.is_empty(), "{info:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_are_fetched_and_what_cannot_be_had_is_told() {
    let mut node = Node::new().await;
    let cri = node.cri();
    for repository in ["base", "denied/app"] {
        node.registry().push_image(&images::web(repository, "v1")).unwrap();
    }
    let [base, denied, missing] =
        ["base:v1", "denied/app:v1", "missing:v1"].map(|name| node.registry().reference(name));
    let host = node.registry().host();
    let policy = format!(
        "apiVersion: berth.dev/v1alpha1\nkind: ImagePolicy\nmetadata: {{name: no-denied}}\n\
         spec: {{mode: Enforce, registries: {{deny: ['{host}/denied']}}}}\n"
    );
    node.document("61-policy.yaml", &policy);
    eventually("the policy is in force", async || {
        node.info().await.documents.iter().any(|d| d.contains("61-policy.yaml")).then_some(())
    })
    .await;
    spec(&node, &list(&[missing.clone(), denied.clone(), base.clone()]));
    in_state(&node, &base, "present").await;
    assert!(!cri.image(&base).await.unwrap().pinned, "it may go like any other");
    let image = in_state(&node, &denied, "failed").await;
    assert!(image.problem.contains("no-denied") && image.failures >= 1, "{image:?}");
    let image = in_state(&node, &missing, "failed").await;
    assert!(image.problem.contains("missing"), "{image:?}");
    nothing_is_wrong_with_the_documents(&node).await;
    let text = cli::run(&node, &["info"]);
    assert!(text.contains("Prefetched:     1 of 3; ") && text.contains(&image.problem), "{text}");
    for (state, count) in [("present", 1.0), ("failed", 2.0), ("waiting", 0.0)] {
        let series = format!("berth_prefetch_images{{state=\"{state}\"}}");
        eventually(&series, async || (node.figure(&series) == count).then_some(())).await;
    }

    // What was missing comes by itself, and what was denied once it is not any more.
    node.registry().push_image(&images::web("missing", "v1")).unwrap();
    node.remove_document("61-policy.yaml");
    for reference in [&missing, &denied] {
        let image = in_state(&node, reference, "present").await;
        assert_eq!((image.problem.as_str(), image.failures), ("", 0));
        assert!(cri.image(reference).await.is_some());
    }

    // What somebody removes stays away, until a daemon starts.
    cli::run(&node, &["rmi", &base]);
    in_state(&node, &base, "removed").await;
    node.kill_and_start().await;
    in_state(&node, &base, "present").await;
    node.remove_document("60-fetch.yaml");
    eventually("nothing is told any more", async || node.info().await.prefetch.is_empty().then_some(())).await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_that_hangs_stops_nothing_and_ends_with_the_list() {
    let mut node = Node::new().await;
    let names = ["one", "two", "three"];
    for name in names {
        // Digests of their own: they share no layer.
        node.registry().push_image(&images::web(name, "v1").env([format!("NAME={name}")])).unwrap();
    }
    let all = names.map(|name| node.registry().reference(&format!("{name}:v1")));
    node.registry().inject(When::path("/blobs/"), Fault::DelayHeaders(std::time::Duration::from_secs(3600)));
    spec(&node, &list(&all));
    for reference in &all[..2] {
        in_state(&node, reference, "pulling").await;
    }
    assert_eq!(told(&node, &all[2]).await.unwrap().state, "waiting", "two at a time");
    // Applying waits for none of it, and the pulls go on under other settings.
    spec(&node, &format!("  runtime: {{storage: {{gc: {{minAge: 321s}}}}}}\n{}", list(&all)));
    eventually("another field is in force", async || {
        cli::run(&node, &["config", "show"]).contains("321s").then_some(())
    })
    .await;
    nothing_is_wrong_with_the_documents(&node).await;
    assert_eq!(told(&node, &all[0]).await.unwrap().state, "pulling");
    assert_eq!(node.figure("berth_pulls_total{result=\"error\"}"), 0.0);

    spec(&node, &list(&all[2..]));
    in_state(&node, &all[2], "pulling").await;
    eventually("both are given up", async || {
        (node.figures().get("berth_pulls_total{result=\"cancelled\"}") == Some(&2.0)).then_some(())
    })
    .await;
    assert_eq!(node.info().await.prefetch.len(), 1);
    // A daemon that starts goes on with what is wanted.
    node.kill();
    node.registry().clear_faults();
    node.start().await;
    in_state(&node, &all[2], "present").await;
    assert!(node.cri().image(&all[0]).await.is_none(), "what is off the list is not fetched");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_and_mirrors_of_the_settings_are_used() {
    let node = Node::new().await;
    let auth = AuthMode::Basic { username: "planted".into(), password: "pw-planted-51c2".into() };
    let registry = Registry::start(Options { auth, ..Options::default() }).await.unwrap();
    registry.push_image(&images::web("app", "v1")).unwrap();
    let reference = registry.reference("app:v1");
    spec(&node, &list(std::slice::from_ref(&reference)));
    let image = in_state(&node, &reference, "failed").await;
    assert!(!image.problem.is_empty(), "{image:?}");
    // A pull that is tried again at once, not when its pause is over: the daemon's credentials have changed.
    let file = node.base().join("docker.json");
    // In base64, as Docker has it: planted:pw-planted-51c2
    let encoded = "cGxhbnRlZDpwdy1wbGFudGVkLTUxYzI=";
    std::fs::write(&file, format!("{{\"auths\": {{\"{}\": {{\"auth\": \"{encoded}\"}}}}}}", registry.host())).unwrap();
    let mirrored = "origin.invalid/app:v1".to_owned();
    let credentials = format!("  credentials: {{dockerConfigFile: '{}'}}\n", file.display());
    let mirror =
        format!("  registries: [{{host: origin.invalid, mirrors: [{{url: 'http://{}'}}]}}]\n", node.registry().host());
    node.registry().push_image(&images::web("app", "v1")).unwrap();
    spec(&node, &format!("{}{credentials}{mirror}", list(&[reference.clone(), mirrored.clone()])));
    in_state(&node, &reference, "present").await;
    in_state(&node, &mirrored, "present").await;
    let info = format!("{:?}", node.info().await);
    assert!(!info.contains("pw-planted-51c2"), "{info}");
    node.finish().await;
}
