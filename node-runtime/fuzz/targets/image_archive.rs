//! What an archive of images says about itself: any bytes give entries or an error, and no path or link leads out of the archive. The
//! parser's file is taken in by path: its crate would bring a registry client and its TLS.
#![no_main]
#![allow(dead_code)] // Only the parsers are called.
use berth_model::Reference;

#[path = "../../crates/images/src/import/index.rs"]
mod index;

fn stays(path: &str) {
    assert!(!path.starts_with('/') && !path.split('/').any(|part| part == ".." || part == "."), "{path:?}");
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(entries) = index::docker_manifest(bytes) {
        for entry in entries {
            stays(&entry.config);
            entry.layers.iter().for_each(|path| stays(path));
            assert!(entry.names.iter().all(|name| name.digest().is_none()));
        }
    }
    if let Ok(path) = index::member_path(bytes) {
        stays(&path);
    }
    let (path, target) = bytes.split_at(bytes.len() / 2);
    if let Ok(path) = index::member_path(path)
        && let Ok(leads) = index::link_path(&path, target)
    {
        stays(&leads);
    }
    let text = String::from_utf8_lossy(bytes).into_owned();
    let annotations = ["io.containerd.image.name", "org.opencontainers.image.ref.name"].map(|key| (key.to_owned(), text.clone()));
    if let Ok(Some(name)) = index::oci_name(&annotations.into_iter().collect()) {
        let again = index::oci_name(&index::name_annotations(&name));
        assert_eq!(again.ok().flatten().as_ref().map(Reference::to_string), Some(name.to_string()));
    }
});
