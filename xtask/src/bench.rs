//! `cargo xtask bench`: what Berth costs beside containerd, with a release build, in one run on this machine. Owns: building what that
//! needs. Must not: measure; `tests/cluster/tests/compare/costs.rs` does.
use crate::{Result, install, quickstart, test};

/// Builds and runs.
pub fn main(pods: Option<&str>) -> Result {
    install::need_root("cargo xtask bench")?;
    let bin_dir = quickstart::build()?;
    test::costs(bin_dir, pods)
}
