//! Credentials of the cluster's Secret: the agent hands them over, the daemon pulls with them, and they stand nowhere else.
use crate::node::{AGENT, Node};
use crate::wishes::{configuration, has, have, want};
use berth_cluster_tests::service::{Recipe, Service};
use berth_cluster_tests::{http, programs};
use berth_crds::sha256;
use berth_test_registry::{Compression, ImageBuilder, Layer};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

const REGISTRY: &str = "127.0.0.1:5001";
const IMAGE: &str = "127.0.0.1:5001/team/app:v1";
/// Looked for in everything that the node has.
const PLANTED: &str = "open-sesame-7c1f0a94";
/// `team:` and that, as registries are told it.
const PLANTED_BASIC: &str = "dGVhbTpvcGVuLXNlc2FtZS03YzFmMGE5NA==";

pub fn handed_over(node: &Node) {
    let registry = registry(node);
    let good = have(node, &json!({"runtime": {"pidsLimit": 500}}));
    assert!(node.berth(&["pull", IMAGE]).is_err(), "nobody may read it unasked");
    let content = json!({"auths": {REGISTRY: {"username": "team", "password": PLANTED}}}).to_string();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "registries"}, "stringData": {"team": content}});
    node.kubectl().apply(&secret);
    let wish = |name: &str, hash: &str| json!({"runtime": {"logLevel": "Debug"}, "credentials": {"fromSecret": [{"name": name, "sha256": hash}]}});

    // Another content than was meant, and a key that is not there.
    for (name, hash, words) in [("team", sha256(b"another"), "another content"), ("crew", sha256(b""), "no key")] {
        let bad = configuration(node, &wish(name, &hash));
        want(node, &bad);
        let status = node.reports("it is refused", |status| status["failed"]["revision"] == bad);
        assert!(status["failed"]["message"].as_str().is_some_and(|m| m.contains(words)), "{status}");
        assert_eq!(status["loadedRevision"], good);
    }
    let named = configuration(node, &wish("team", &sha256(content.as_bytes())));
    want(node, &named);
    has(node, &named);
    node.berth(&["pull", IMAGE]).unwrap();

    // The next daemon has none, until it is handed them.
    node.berth(&["rmi", IMAGE]).unwrap();
    let former = node.daemon();
    assert!(former > 1, "no daemon runs");
    assert!(std::process::Command::new("kill").args(["-9", &former.to_string()]).status().unwrap().success());
    node.wait("another daemon pulls", || {
        if node.daemon() == former { Err("not yet".to_owned()) } else { node.berth(&["pull", IMAGE]).map(drop) }
    });
    has(node, &named);
    node.berth(&["rmi", IMAGE]).unwrap();
    nowhere(node);
    have(node, &json!({"runtime": {"pidsLimit": 500}}));
    assert!(node.berth(&["pull", IMAGE]).is_err(), "no configuration names it any more");
    registry.kill();
}

/// A registry that wants to know who is there.
fn registry(node: &Node) -> Service {
    let server = fs::read(programs::berth("berth-web")).unwrap();
    let layer = Layer::with_compression(Compression::Plain).file("web", 0o755, server);
    let dir = node.base().join("images/app");
    ImageBuilder::new("app", "v1").layer(layer).entrypoint(["/web"]).build().unwrap().write_layout(&dir, "v1").unwrap();
    let recipe = Recipe::new("registry", programs::berth("berth-test-registry")).arg("--listen").arg(REGISTRY);
    let recipe = recipe.arg("--basic").arg(format!("team:{PLANTED}"));
    let service = Service::start(node.space(), recipe.arg("--layout").arg(format!("team/app:v1={}", dir.display())));
    node.wait("the registry answers", || match http::get(node.space(), REGISTRY, "/v2/") {
        Ok((401, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    service
}

/// In no file of the node, no object but the Secret, no answer and no series.
fn nowhere(node: &Node) {
    let has = |text: &str| text.contains(PLANTED) || text.contains(PLANTED_BASIC);
    let secret = node.get("/api/v1/namespaces/berth-system/secrets/registries").unwrap();
    assert!(!secret["data"]["team"].is_null(), "it is where it should be");
    let objects =
        ["runtimenodes", "runtimerevisions"].map(|kind| node.get(&format!("/apis/berth.dev/v1alpha1/{kind}")));
    let mut texts: Vec<(String, String)> =
        objects.into_iter().map(|list| ("objects".to_owned(), list.unwrap().to_string())).collect();
    texts.push(("metrics".to_owned(), http::get(node.space(), AGENT, "/metrics").unwrap().1));
    for words in [&["info"][..], &["config", "show"], &["config", "explain", "spec.credentials.fromSecret"]] {
        texts.push((words.join(" "), node.berth(words).unwrap()));
    }
    let mut files = Vec::new();
    for place in [node.root(), node.base().join("logs")] {
        collect(&place, &mut files);
    }
    assert!(
        files.iter().any(|f| f.ends_with("journal.json")) && files.iter().any(|f| f.ends_with("berth.log")),
        "{files:?}"
    );
    for file in files {
        let text = String::from_utf8_lossy(&fs::read(&file).unwrap_or_default()).into_owned();
        texts.push((file.display().to_string(), text));
    }
    for (place, text) in texts {
        assert!(!has(&text), "the credential stands in {place}");
    }
    let status: Value = node.object().unwrap();
    assert!(!has(&status.to_string()));
}

fn collect(path: &Path, found: &mut Vec<PathBuf>) {
    let Ok(meta) = fs::symlink_metadata(path) else { return };
    if meta.is_file() {
        found.push(path.to_owned());
    }
    if meta.is_dir() {
        fs::read_dir(path).unwrap().flatten().for_each(|entry| collect(&entry.path(), found));
    }
}
