//! Tier `node`: the node half on this machine's kernel, as root.
use super::Tier;
use super::again::{Again, Choice};
use super::binaries::{self, Part, TestBinary};
use super::lanes::{Job, Tests};
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

/// The package with the tests on a real kernel.
const PACKAGE: &str = "tests/node";
/// Its programs of tests on this machine. The third one is for the guest.
const HERE: [&str; 2] = ["daemon", "parts"];
/// Modules that measure what a neighbour would disturb.
const ALONE: [&str; 2] = [": leaks", ": monitor_memory"];
/// The others run side by side: the longest first.
const LONGEST: [&str; 6] = [
    ": daemon_streaming",
    ": daemon_cni",
    ": daemon_monitors",
    ": daemon_kills",
    ": daemon_doctor_node",
    ": daemon_stops",
];

/// What the tests find out from their environment: BERTH_BIN_DIR has `berth`, `berth-monitor`, `berth-init` and
/// `berth-web`, BERTH_NEXT_BIN_DIR the first three of the next version; BERTH_CRICTL is crictl; BERTH_CNI has CNI plugins;
/// BERTH_PROMETHEUS has `prometheus` and `promtool`; in the guest BERTH_KUBERNETES has `kubelet`.
pub type Environment = Vec<(&'static str, PathBuf)>;

pub fn tier(tier: &mut Tier) {
    let ready = tier.prepare("root and packages", || {
        install::need_root("the node tier")?;
        install::packages(&PACKAGES)
    });
    let Some((list, environment)) = tier.prepare("compile the programs and the node tests", || built(&HERE)) else {
        return;
    };
    if ready.is_none() {
        return;
    }
    tier.check("the quickstart", || {
        let dir = programs_dir(&environment)?;
        // Tests of others may run on this machine meanwhile, so only what bears this run's names is counted.
        run::plain(Command::new(dir.join(programs::QUICKSTART)).arg("--bin").arg(dir).arg("--shared"))
    });
    let Some(parts) = tier.prepare("list the tests", || binaries::parts(list)) else { return };
    tier.in_company(parts.iter().map(|part| job(part, &environment)).collect(), &LONGEST, &ALONE);
}

fn job<'a>(part: &'a Part, environment: &'a Environment) -> Job<'a> {
    let command = |choice: Choice<'_>| {
        let mut command = binaries::limited(&part.binary, &[], &part.arguments(choice));
        command.envs(environment.iter().map(|(name, path)| (name, path)));
        Ok(command)
    };
    Job { name: part.name.clone(), tests: Tests::Told, again: Again::Alone, command: Box::new(command) }
}

/// Where the programs lie.
pub fn programs_dir(environment: &Environment) -> Result<&PathBuf> {
    let found = environment.iter().find(|(name, _)| *name == "BERTH_BIN_DIR");
    found.map(|(_, dir)| dir).ok_or_else(|| "the programs were not built".to_owned())
}

/// Test programs of the package, and their environment.
pub fn built(names: &[&str]) -> Result<(Vec<TestBinary>, Environment)> {
    let list = binaries::of_package(PACKAGE, names)?;
    let environment = vec![
        ("BERTH_BIN_DIR", programs::build()?),
        ("BERTH_NEXT_BIN_DIR", programs::build_next()?),
        ("BERTH_CRICTL", tools::crictl()?),
        ("BERTH_CNI", tools::cni()?),
        ("BERTH_PROMETHEUS", tools::prometheus()?),
    ];
    Ok((list, environment))
}
