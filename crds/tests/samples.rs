//! The sample documents are what a newcomer copies: they must be accepted as they are.
// A test may fail loudly.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
use berth_crds::{Document, NetworkMode, PolicyMode, parse_documents};
use std::path::{Path, PathBuf};

fn samples() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/samples");
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files
}

/// Documents of ours among the samples, by the group in their text; the others are Kubernetes' own.
fn documents() -> Vec<Document> {
    let texts = samples().into_iter().map(|path| (std::fs::read_to_string(&path).unwrap(), path));
    let ours = texts.filter(|(text, _)| text.contains("\napiVersion: berth.dev/"));
    ours.flat_map(|(text, path)| parse_documents(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).collect()
}

#[test]
fn every_sample_of_ours_is_accepted_and_says_what_the_quickstart_relies_on() {
    let documents = documents();
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
