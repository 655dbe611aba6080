//! Tier `cluster`: a real kubelet on Berth, alone and with a control plane around it, in namespaces of their own, as root.
//! Owns: what those tests need to have been built, and their environment. Must not: know what they test.
use super::Tier;
use super::again::{Again, Choice};
use super::binaries::{self, TestBinary};
use super::lanes::{Job, Tests};
use super::node::Environment;
use crate::{Result, images, install, package, programs, run, tools, workspace};
use std::path::PathBuf;
use std::process::Command;

/// What the harness, the kubelet and kube-proxy call.
const PACKAGES: [install::Package; 4] =
    [("nftables", "nft"), ("iproute2", "ip"), ("mount", "mount"), ("util-linux", "nsenter")];
const PACKAGE: &str = "tests/cluster";
/// Serves the images inside a node, where no test program runs.
const REGISTRY: &str = "berth-test-registry";
/// The cluster half.
const OPERATOR: &str = "berth-operator";
const AGENT: &str = "berth-agent";
/// Programs whose every case needs those before it.
const CHAINS: [&str; 1] = [": e2e"];
/// Programs that measure, and so run when nothing else does.
const ALONE: [&str; 1] = [": compare"];
/// The others run side by side: the longest first.
const LONGEST: [&str; 4] = [": adopt", ": e2e", ": operator", ": standalone"];
/// helm.
const HELM: &str = "BERTH_HELM";
/// Where the OCI layouts of operator and agent lie.
const PRODUCT_IMAGES: &str = "BERTH_CLUSTER_IMAGES";

pub fn tier(tier: &mut Tier) {
    let Some((list, environment)) = prepared(tier) else { return };
    run_all(tier, list, &environment);
}

/// Under Helm 3, what a cluster's user does: installing, upgrading, uninstalling.
pub fn with_helm3(tier: &mut Tier) {
    let helm3 = tier.prepare("helm 3", tools::helm3);
    let (Some(helm3), Some((mut list, mut environment))) = (helm3, prepared(tier)) else { return };
    environment.retain(|(name, _)| *name != HELM);
    environment.push((HELM, helm3));
    list.retain(|binary| binary.name.ends_with(": e2e"));
    if list.is_empty() {
        tier.check("e2e under Helm 3", || Err("no test program e2e".to_owned()));
    }
    run_all(tier, list, &environment);
}

/// The test programs and what they find where; `None` where something is missing, which is counted.
fn prepared(tier: &mut Tier) -> Option<(Vec<TestBinary>, Environment)> {
    let ready = tier.prepare("root and packages", || {
        install::need_root("the cluster tier")?;
        install::packages(&PACKAGES)
    });
    let mut environment = Environment::new();
    for (name, variable, make) in tools::FAMILIES {
        // A failure is counted; the others are built all the same, for the next run.
        environment.extend(tier.prepare(name, make).map(|path| (variable, path)));
    }
    let list = tier.prepare("compile the programs and the cluster tests", || {
        let (list, bin_dir) = built()?;
        environment.push(bin_dir);
        Ok(list)
    });
    let images = tier.prepare("images of operator and agent", product_images);
    environment.extend(images.map(|dir| (PRODUCT_IMAGES, dir)));
    // Beside the families: the programs, and the images.
    let list = list.filter(|_| ready.is_some() && environment.len() == tools::FAMILIES.len() + 2)?;
    Some((list, environment))
}

/// Side by side, but for those that measure.
fn run_all(tier: &mut Tier, list: Vec<TestBinary>, environment: &Environment) {
    let jobs = list.into_iter().map(|binary| {
        let name = binary.name.clone();
        let again = if CHAINS.iter().any(|end| name.ends_with(end)) { Again::Whole } else { Again::Alone };
        let command = move |choice: Choice<'_>| {
            let mut command = binaries::limited(&binary, &[], &binaries::chosen(choice));
            command.envs(environment.iter().map(|(name, path)| (name, path)));
            Ok(command)
        };
        Job { name, tests: Tests::Told, again, command: Box::new(command) }
    });
    tier.in_company(jobs.collect(), &LONGEST, &ALONE);
}

/// Runs the one case that compares costs, on the programs in `dir`.
pub fn costs(dir: PathBuf, pods: Option<&str>) -> Result {
    install::packages(&PACKAGES)?;
    programs::from_everything(&[REGISTRY], &dir)?;
    let list = binaries::of_package(PACKAGE, &["compare"])?;
    let compare = list.first().ok_or("no test program compare")?;
    let mut command = Command::new(&compare.path);
    command.arg("costs").current_dir(&compare.dir).env("BERTH_BIN_DIR", &dir);
    for (_, variable, make) in tools::FAMILIES {
        command.env(variable, make()?);
    }
    run::plain(command.envs(pods.map(|pods| ("BERTH_COSTS_PODS", pods))))
}

/// The command that runs one of the test programs by name, with all that it needs; with `images`, those of operator and agent too.
pub fn program(name: &str, images: bool) -> Result<Command> {
    install::packages(&PACKAGES)?;
    let (_, (variable, dir)) = built()?;
    let list = binaries::of_package(PACKAGE, &[name])?;
    let binary = list.first().ok_or_else(|| format!("no test program {name}"))?;
    let mut command = Command::new(&binary.path);
    command.current_dir(&binary.dir).env("CARGO_MANIFEST_DIR", &binary.dir).env(variable, &dir);
    for (_, variable, make) in tools::FAMILIES {
        command.env(variable, make()?);
    }
    if images {
        command.env(PRODUCT_IMAGES, product_images()?);
    }
    Ok(command)
}

/// The images of operator and agent, of the programs that the tests run elsewhere too; in `next` those with the runtime's next version.
fn product_images() -> Result<PathBuf> {
    let out = workspace::target_dir().join("test-images");
    let bin = images::dev_programs()?;
    let version = package::version()?;
    images::next_agent(&bin, &out.join("next"), &version)?;
    images::write(&bin, &out, &images::Recipe { version, fast: true })?;
    Ok(out)
}

/// The test programs, and where the product's programs lie, with the registry beside them.
fn built() -> Result<(Vec<TestBinary>, (&'static str, PathBuf))> {
    let dir = programs::build()?;
    programs::from_everything(&[REGISTRY, OPERATOR, AGENT, programs::PLUGIN], &dir)?;
    Ok((binaries::of_package(PACKAGE, &[])?, ("BERTH_BIN_DIR", dir)))
}
