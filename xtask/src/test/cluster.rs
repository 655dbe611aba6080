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
/// The way of a node from its first runtime to Berth and back.
const WAY: &str = ": e2e";
/// Programs whose every case needs those before it.
const CHAINS: [&str; 1] = [WAY];
/// Has that program kill the product's processes at random moments, and nothing else.
const KILLS: &str = "--chaos";
/// Programs that measure, and so run when nothing else does.
const ALONE: [&str; 1] = [": compare"];
/// The others run side by side: the longest first.
const LONGEST: [&str; 4] = [": adopt", WAY, ": operator", ": standalone"];
/// helm.
const HELM: &str = "BERTH_HELM";
/// Where the OCI layouts of operator and agent lie.
const PRODUCT_IMAGES: &str = "BERTH_CLUSTER_IMAGES";

pub fn tier(tier: &mut Tier) {
    let Some((list, environment)) = prepared(tier) else { return };
    run_all(tier, list, &environment);
}

/// What is slow: what a cluster's user does (installing, upgrading, uninstalling) under Helm 3, and kills at random moments.
pub fn full(tier: &mut Tier) {
    let helm3 = tier.prepare("helm 3", tools::helm3);
    let Some((mut list, environment)) = prepared(tier) else { return };
    list.retain(|binary| binary.name.ends_with(WAY));
    if list.is_empty() {
        tier.check("the way of a node", || Err(format!("no test program{WAY}")));
    }
    if let Some(helm3) = helm3 {
        let mut environment: Environment = environment.iter().filter(|(name, _)| *name != HELM).cloned().collect();
        environment.push((HELM, helm3));
        run_all(tier, list.clone(), &environment);
    }
    // No second try: what does not heal once is what it looks for.
    let kills = list.into_iter().map(|binary| job(binary, &[KILLS], Again::Never, &environment)).collect();
    tier.in_company(kills, &[], &[]);
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
        let chain = CHAINS.iter().any(|end| binary.name.ends_with(end));
        job(binary, &[], if chain { Again::Whole } else { Again::Alone }, environment)
    });
    tier.in_company(jobs.collect(), &LONGEST, &ALONE);
}

/// One of the programs, told these words first.
fn job<'a>(binary: TestBinary, words: &'static [&str], again: Again, environment: &'a Environment) -> Job<'a> {
    let name = [&[binary.name.as_str()], words].concat().join(" ");
    let command = move |choice: Choice<'_>| {
        let words: Vec<_> = words.iter().copied().chain(binaries::chosen(choice)).collect();
        let mut command = binaries::limited(&binary, &[], &words);
        command.envs(environment.iter().map(|(name, path)| (name, path)));
        Ok(command)
    };
    Job { name, tests: Tests::Told, again, command: Box::new(command) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_told_its_words_before_its_tests() {
        let binary = TestBinary { name: "tests/cluster: e2e".into(), path: "/t/e2e-1".into(), dir: "/t".into() };
        let environment = vec![(HELM, PathBuf::from("/helm"))];
        let kills = job(binary, &[KILLS], Again::Never, &environment);
        assert_eq!((kills.name.as_str(), kills.again), ("tests/cluster: e2e --chaos", Again::Never));
        let one = ["a_case".to_owned()];
        let command = (kills.command)(Choice::Named(&one)).unwrap();
        let words: Vec<_> = command.get_args().map(|word| word.to_str().unwrap()).collect();
        assert!(words.ends_with(&["/t/e2e-1", "--chaos", "--exact", "a_case"]), "{words:?}");
        assert!(command.get_envs().any(|(name, path)| name == HELM && path == Some("/helm".as_ref())));
    }
}
