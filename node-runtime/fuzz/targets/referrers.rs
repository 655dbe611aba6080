//! What registries say refers to an image: lists of it, and manifests with a subject. The parser's file is taken in by path, as in
//! `manifest`.
#![no_main]
#![allow(dead_code)] // Only the parsers are called.

#[path = "../../crates/registry/src/referrer.rs"]
mod referrer;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(list) = referrer::parse_list(bytes) {
        assert!(list.len() <= referrer::MAX_REFERRERS);
        for found in list {
            let tag = referrer::stand_in_tag(&found.digest);
            assert!(!tag.is_empty() && tag.len() <= 128);
        }
    }
    let _ = referrer::parse_about(bytes);
});
