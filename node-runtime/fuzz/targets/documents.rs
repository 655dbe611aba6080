//! Documents of a node, as files and later the API server hold them: any text gives documents or an error, and those that
//! are taken merge, or are refused, without a fall.
#![no_main]
use berth_crds::{Document, merge, parse_documents};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let Ok(documents) = parse_documents(text) else { return };
    let mut configs = Vec::new();
    for document in documents {
        assert!(document.title().contains('/'));
        if let Document::RuntimeConfig(config) = document {
            configs.push(*config);
        }
    }
    let _ = merge(&configs);
});
