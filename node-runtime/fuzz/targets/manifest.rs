//! What registries answer: manifests and indexes under any media type, and authentication challenges. The parsers' files are
//! taken in by path: their crate would bring a TLS stack, and minutes of compiling, for pure functions.
#![no_main]
#![allow(dead_code)] // Only the parsers are called.

#[path = "../../crates/registry/src/challenge.rs"]
mod challenge;
#[path = "../../crates/registry/src/manifest.rs"]
mod manifest;

libfuzzer_sys::fuzz_target!(|input: (u8, &[u8])| {
    let (kind, bytes) = input;
    let declared = match kind % 4 {
        0 => "application/vnd.oci.image.manifest.v1+json",
        1 => "application/vnd.oci.image.index.v1+json",
        2 => "application/vnd.docker.distribution.manifest.list.v2+json",
        _ => "application/vnd.docker.distribution.manifest.v2+json",
    };
    match manifest::parse_manifest(bytes, declared) {
        Ok(manifest::ManifestKind::Image(image)) => assert!(image.layers.len() <= manifest::MAX_LAYERS),
        Ok(manifest::ManifestKind::Index(entries)) => {
            assert!(entries.len() <= manifest::MAX_INDEX_ENTRIES);
            let _ = manifest::select_platform(&entries, &manifest::Platform::host());
        }
        Err(_) => {}
    }
    if let Ok(header) = std::str::from_utf8(bytes) {
        let _ = challenge::parse_challenges(header);
    }
});
