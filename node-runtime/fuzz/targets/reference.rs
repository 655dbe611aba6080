//! Image references and digests, as pods, policies and registries write them: what parses must print to the same again.
#![no_main]
use berth_model::{Digest, Reference};

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(reference) = Reference::parse(text) {
        let printed = reference.to_string();
        assert_eq!(Reference::parse(&printed).as_ref(), Ok(&reference), "{printed:?} reads back differently");
        let path = format!("/{}/", reference.path());
        assert!(!path.contains("/../") && !path.contains("//"), "{path:?} leaves its registry's directory");
    }
    if let Ok(digest) = Digest::parse(text) {
        assert_eq!((digest.as_str(), digest.hex().len()), (text, 64));
    }
});
