//! The corpus of good and bad documents gets the expected answers from a node's rules; the cluster half asks the API server the same.
// A test may fail loudly.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
use berth_crds::{Document, RuntimeConfig, merge, parse_documents};
use std::collections::BTreeMap;
use std::path::Path;

fn corpus() -> BTreeMap<String, String> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let documents = entries.filter(|path| path.extension().is_some_and(|e| e == "yaml"));
    documents
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), std::fs::read_to_string(&path).unwrap()))
        .collect()
}

fn has_all(name: &str, message: &str, words: &str) {
    for word in words.split(" | ") {
        assert!(message.contains(word), "{name}: {word:?} is not in: {message}");
    }
}

fn configs(text: &str) -> Vec<RuntimeConfig> {
    let documents = parse_documents(text).unwrap().into_iter();
    documents.filter_map(|d| if let Document::RuntimeConfig(d) = d { Some(*d) } else { None }).collect()
}

#[test]
fn every_document_gets_its_answer() {
    let corpus = corpus();
    assert!(corpus.len() > 30, "{}", corpus.len());
    for (name, text) in &corpus {
        let expected = text.lines().next().unwrap().trim_start_matches("# ");
        let first = || {
            let (stem, _) = name.rsplit_once('-').unwrap();
            [configs(&corpus[&format!("{stem}-1")]), configs(text)].concat()
        };
        match expected.split_once(": ") {
            None if expected == "good" => {
                let documents = parse_documents(text).unwrap_or_else(|e| panic!("{name}: {e}"));
                assert!(!documents.is_empty(), "{name}");
            }
            None if expected == "together" => drop(merge(&first()).unwrap_or_else(|e| panic!("{name}: {e}"))),
            Some(("bad", words)) => match parse_documents(text) {
                Ok(_) => panic!("{name} is accepted"),
                Err(e) => has_all(name, e.message(), words),
            },
            Some(("contradicts", words)) => has_all(name, merge(&first()).unwrap_err().message(), words),
            _ => panic!("{name} begins with {expected:?}"),
        }
    }
}
