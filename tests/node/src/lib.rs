//! What the tests on a real kernel share. The tests themselves are in `tests/`, one file per area; those named `guest_*`
//! run in the guest tier. Owns: finding the built programs, and unique names. Must not: skip a test; what is missing fails.
#![forbid(unsafe_code)]
#![allow(clippy::panic)] // A helper of tests fails the test that called it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// A path that `cargo xtask test` hands to the tests.
///
/// # Panics
/// Where it is not set, with the command that sets it.
pub fn path_from_env(name: &str) -> PathBuf {
    match std::env::var_os(name) {
        Some(path) => path.into(),
        None => panic!("{name} is not set: run this test by `cargo xtask test node` (or guest)"),
    }
}

/// The directory with `berth`, `berth-monitor`, `berth-init` and `berth-web`.
pub fn programs() -> PathBuf {
    path_from_env("BERTH_BIN_DIR")
}

/// The same of a build that stands for the next version (feature `next-version`).
pub fn next_programs() -> PathBuf {
    path_from_env("BERTH_NEXT_BIN_DIR")
}

/// A name that no other test uses now: short enough for a network link (15 bytes) when `prefix` has at most 5.
pub fn unique(prefix: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}{:x}n{count}", std::process::id())
}
