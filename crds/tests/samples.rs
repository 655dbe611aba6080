//! The sample documents are what a newcomer copies: they must be accepted as they are.
// A test may fail loudly.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
use berth_crds::{Document, NetworkMode, PolicyMode, parse_documents};
use std::path::{Path, PathBuf};

/// The samples of a node, or those of a cluster, which lie in a directory below.
fn samples(dir: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/samples").join(dir);
    let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.is_file()).collect();
    files.sort();
    files
}

/// Documents of ours among the samples, by the group in their text; the others are Kubernetes' own.
fn documents(dir: &str) -> Vec<Document> {
    let texts = samples(dir).into_iter().map(|path| (std::fs::read_to_string(&path).unwrap(), path));
    let ours = texts.filter(|(text, _)| text.contains("\napiVersion: berth.dev/"));
    ours.flat_map(|(text, path)| parse_documents(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).collect()
}

#[test]
fn every_sample_of_ours_is_accepted_and_says_what_the_quickstart_relies_on() {
    let documents = documents("");
    assert_eq!(
        documents.iter().map(Document::title).collect::<Vec<_>>(),
        ["ImagePolicy/baseline", "RuntimeConfig/node"],
        "one document a file, in the order of the files"
    );
    for document in documents {
        match document {
            Document::RuntimeConfig(d) => {
                assert_eq!(d.spec.network.mode, Some(NetworkMode::Builtin));
                assert!(d.spec.runtime.pids_limit.is_some());
            }
            Document::ImagePolicy(d) => {
                assert_eq!(d.spec.mode, PolicyMode::Enforce);
                assert_eq!(d.spec.references.forbid_tags, ["latest"]);
                assert_eq!(d.spec.registries.deny, ["localhost:5000/untrusted"]);
            }
        }
    }
}

#[test]
fn samples_of_a_cluster_are_accepted_and_touch_no_node_that_nobody_labelled() {
    let documents = documents("cluster");
    assert_eq!(
        documents.iter().map(Document::title).collect::<Vec<_>>(),
        ["ImagePolicy/no-moving-tags", "RuntimeConfig/workers"]
    );
    for document in documents {
        match document {
            Document::RuntimeConfig(d) => assert!(d.spec.node_selector.is_some_and(|s| !s.match_labels.is_empty())),
            Document::ImagePolicy(d) => assert_eq!(d.spec.mode, PolicyMode::Warn),
        }
    }
}
