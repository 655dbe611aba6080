//! Tier `node`: the node half on this machine's kernel, as root.
use super::Tier;
use super::binaries::{self, TestBinary};
use crate::{Result, install, programs, run, tools};
use std::path::PathBuf;
use std::process::Command;

/// What the tests call, beside our own programs.
const PACKAGES: [install::Package; 7] = [
    ("nftables", "nft"),
    ("iproute2", "ip"),
    ("busybox-static", "busybox"),
    ("docker-registry", "docker-registry"),
    // Of the plugins' releases in use: Debian's, with the iptables that it calls, beside the one that is built (BERTH_CNI).
    ("containernetworking-plugins", "/usr/lib/cni/bridge"),
    ("iptables", "iptables"),
    ("e2fsprogs", "mkfs.ext4"),
];

/// The package with the tests on a real kernel. Those named `guest_*` need what only the guest has: systemd and cgroup v2.
pub const CHOICE: [&str; 2] = ["--package", "berth-node-tests"];
/// Prefix of tests for the guest.
pub const GUEST_PREFIX: &str = "guest_";

/// What the tests find out from their environment: BERTH_BIN_DIR has `berth`, `berth-monitor`, `berth-init` and
/// `berth-web`, BERTH_NEXT_BIN_DIR the first three of the next version; BERTH_CRICTL is crictl; BERTH_CNI has CNI plugins;
/// BERTH_PROMETHEUS has `prometheus` and `promtool`; in the guest BERTH_KUBERNETES has `kubelet`.
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
    tier.check("the quickstart", || {
        let dir = programs_dir(&environment)?;
        // Tests of others may run on this machine meanwhile, so only what bears this run's names is counted.
        run::plain(Command::new(dir.join(programs::QUICKSTART)).arg("--bin").arg(dir).arg("--shared"))
    });
    for binary in &list {
        let set = |command: &mut Command| {
            command.envs(environment.iter().map(|(name, path)| (name, path)));
        };
        tier.tests(&binary.name, false, |choice| {
            binaries::run_one(binary, &[], &binaries::chosen(choice, &["--skip", GUEST_PREFIX]), set)
        });
    }
}

/// Where the programs lie.
pub fn programs_dir(environment: &Environment) -> Result<&PathBuf> {
    let found = environment.iter().find(|(name, _)| *name == "BERTH_BIN_DIR");
    found.map(|(_, dir)| dir).ok_or_else(|| "the programs were not built".to_owned())
}

/// The compiled node tests, and their environment.
pub fn built() -> Result<(Vec<TestBinary>, Environment)> {
    built_of(&CHOICE)
}

/// The same for some of the test programs.
pub fn built_of(choice: &[&str]) -> Result<(Vec<TestBinary>, Environment)> {
    // The next version first: what is built last is what `target/debug` has.
    let next = programs::build_next()?;
    let environment = vec![
        ("BERTH_BIN_DIR", programs::build()?),
        ("BERTH_NEXT_BIN_DIR", next),
        ("BERTH_CRICTL", tools::crictl()?),
        ("BERTH_CNI", tools::cni()?),
        ("BERTH_PROMETHEUS", tools::prometheus()?),
    ];
    Ok((binaries::compile(choice)?, environment))
}
