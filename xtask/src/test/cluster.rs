//! Tier `cluster`: a real kubelet on Berth, alone and with a control plane around it, in namespaces of their own, as root.
//! Owns: what those tests need to have been built, and their environment. Must not: know what they test.
use super::Tier;
use super::binaries::{self, Beside, TestBinary};
use super::node::Environment;
use crate::{Result, images, install, package, programs, run, tools, workspace};
use std::path::PathBuf;
use std::process::Command;

/// What the harness, the kubelet and kube-proxy call.
const PACKAGES: [install::Package; 4] =
    [("nftables", "nft"), ("iproute2", "ip"), ("mount", "mount"), ("util-linux", "nsenter")];
const CHOICE: [&str; 2] = ["--package", "berth-cluster-tests"];
/// Serves the images inside a node, where no test program runs.
const REGISTRY: &str = "berth-test-registry";
/// The cluster half.
const OPERATOR: &str = "berth-operator";
const AGENT: &str = "berth-agent";
/// Programs whose every case needs those before it.
const CHAINS: [&str; 1] = [": e2e"];
/// The program that waits most of its time: for periods to pass and for patience to end.
const WAITS: &str = ": agent";
/// Programs that measure nothing and leave a core to it.
const COMPANY: [&str; 4] = [": adopt", ": archives", ": chart", ": operator"];
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

/// One that waits most of its time runs beside those that bear company; then the others, one after the other.
fn run_all(tier: &mut Tier, list: Vec<TestBinary>, environment: &Environment) {
    let set = |command: &mut Command| {
        command.envs(environment.iter().map(|(name, path)| (name, path)));
    };
    let named = |binary: &TestBinary, names: &[&str]| names.iter().any(|name| binary.name.ends_with(name));
    let (waiting, others): (Vec<_>, Vec<_>) = list.into_iter().partition(|binary| named(binary, &[WAITS]));
    let (company, alone): (Vec<_>, Vec<_>) = others.into_iter().partition(|binary| named(binary, &COMPANY));
    let mut started: Vec<_> = waiting.iter().map(|binary| Some(Beside::start(binary, set))).collect();
    let mut one = |binary: &TestBinary, mut beside: Option<Result<Beside>>| {
        tier.tests(&binary.name, named(binary, &CHAINS), |choice| match beside.take() {
            Some(started) => started?.outcome(),
            None => binaries::run_one(binary, &[], &binaries::chosen(choice, &[]), set),
        });
    };
    company.iter().for_each(|binary| one(binary, None));
    waiting.iter().zip(&mut started).for_each(|(binary, started)| one(binary, started.take()));
    alone.iter().for_each(|binary| one(binary, None));
}

/// Runs the one case that compares costs, on the programs in `dir`.
pub fn costs(dir: PathBuf, pods: Option<&str>) -> Result {
    install::packages(&PACKAGES)?;
    programs::one(REGISTRY, &dir)?;
    let list = binaries::compile(&CHOICE)?;
    let compare = list.iter().find(|binary| binary.name.ends_with("compare")).ok_or("no test program compare")?;
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
    let list = binaries::compile(&["--package", "berth-cluster-tests", "--test", name])?;
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

/// The images of operator and agent, of the programs that the tests run elsewhere too.
fn product_images() -> Result<PathBuf> {
    let out = workspace::target_dir().join("test-images");
    let bin = images::dev_programs()?;
    images::write(&bin, &out, &images::Recipe { version: package::version()?, fast: true })?;
    Ok(out)
}

/// The test programs, and where the product's programs lie, with the registry beside them.
fn built() -> Result<(Vec<TestBinary>, (&'static str, PathBuf))> {
    let dir = programs::build()?;
    programs::one(REGISTRY, &dir)?;
    programs::one(OPERATOR, &dir)?;
    // With places where a test can have it killed.
    run::plain(workspace::cargo().args([
        "build",
        "--quiet",
        "--package",
        AGENT,
        "--features",
        "berth-agent/failpoints",
    ]))?;
    programs::place(&workspace::target_dir().join("debug").join(AGENT), &dir)?;
    programs::one(programs::PLUGIN, &dir)?;
    Ok((binaries::compile(&CHOICE)?, ("BERTH_BIN_DIR", dir)))
}
