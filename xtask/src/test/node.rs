//! Tier `node`: the node half on this machine's kernel, as root.
use super::Tier;
use super::binaries::{self, TestBinary};
use crate::{Result, install, programs, tools};
use std::path::PathBuf;
use std::process::Command;

/// What the tests call, beside our own programs.
const PACKAGES: [install::Package; 3] = [("nftables", "nft"), ("iproute2", "ip"), ("busybox-static", "busybox")];

/// The package with the tests on a real kernel. Those named `guest_*` need what only the guest has: systemd and cgroup v2.
pub const CHOICE: [&str; 2] = ["--package", "berth-node-tests"];
/// Prefix of tests for the guest.
pub const GUEST_PREFIX: &str = "guest_";

/// What the tests find out from their environment: BERTH_BIN_DIR has `berth`, `berth-monitor`, `berth-init` and
/// `berth-web`; BERTH_CRICTL is crictl.
pub type Environment = Vec<(&'static str, PathBuf)>;

pub fn tier(tier: &mut Tier) {
    let ready = tier.prepare("root and packages", || {
        install::need_root("the node tier")?;
        install::packages(&PACKAGES)
    });
    let Some((list, environment)) = tier.prepare("compile the programs and the node tests", built) else { return };
    if ready.is_none() {
        return;
    }
    for binary in &list {
        let set = |command: &mut Command| {
            command.envs(environment.iter().map(|(name, path)| (name, path)));
        };
        tier.step(&binary.name, || binaries::run_one(binary, &[], &["--skip", GUEST_PREFIX], set));
    }
}

/// The compiled node tests, and their environment.
pub fn built() -> Result<(Vec<TestBinary>, Environment)> {
    let environment = vec![("BERTH_BIN_DIR", programs::build()?), ("BERTH_CRICTL", tools::crictl()?)];
    Ok((binaries::compile(&CHOICE)?, environment))
}
