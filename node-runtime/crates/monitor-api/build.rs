//! Names the build's contract between daemon and init: a hash over the files that define it, so that two builds whose contracts
//! differ are told apart even when their versions do not.
use std::path::Path;

/// What daemon and init tell each other, and the words that they use for it; relative to this crate.
const FILES: [&str; 4] = ["src/spec.rs", "src/spec", "src/sync.rs", "../model/src"];

fn main() {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
        add(Path::new(file), &mut hash);
    }
    println!("cargo:rustc-env=BERTH_INIT_CONTRACT={hash:016x}");
}

/// FNV-1a over the file, or over the files of a directory in the order of their names.
fn add(path: &Path, hash: &mut u64) {
    if path.is_dir() {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        paths.iter().for_each(|path| add(path, hash));
        return;
    }
    for byte in std::fs::read(path).unwrap_or_default() {
        *hash = (*hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
}
