//! Tier `unit`: tests that need no root. Started by root, they run without its rights all the same: that is the proof.
use super::again::{Again, Choice};
use super::binaries::{self, TestBinary};
use super::lanes::{Job, Tests};
use super::{Tier, fuzz};
use crate::{Result, generate, install, programs, run, tools, workspace};
use std::path::PathBuf;
use std::process::Command;

/// Packages of tests on a real kernel, which have tiers of their own.
const OTHERS: [&str; 2] = ["tests/node", "tests/cluster"];

type Published = (&'static str, &'static str, fn() -> Result<PathBuf>);

/// What others publish, with which some tests compare ours, each a file of its own name: the variable by which they find
/// it, what it is, where it comes from.
const PUBLISHED: [Published; 3] = [
    ("BERTH_CRI_API_PROTO", "the CRI's published protocol file", tools::cri_api_proto),
    ("BERTH_KUBELET_TYPES", "the kubelet's published types", tools::kubelet_types),
    ("BERTH_KUBELET_FLAGS", "the kubelet's flags, as its code has them", tools::kubelet_flags),
];

pub fn tier(tier: &mut Tier) {
    let compiled = tier.prepare("compile the tests", || {
        let others = OTHERS.map(|package| workspace::root().join(package));
        let mut list = programs::everything()?.tests;
        list.retain(|binary| !others.contains(&binary.dir));
        Ok(list)
    });
    tier.check("generated files", || {
        let program = programs::everything()?.bin.join(generate::DEFINITIONS);
        generate::check(&mut Command::new(program))
    });
    let published: Vec<_> =
        PUBLISHED.iter().filter_map(|(variable, what, file)| Some((*variable, tier.prepare(what, *file)?))).collect();
    if let Some(list) = compiled
        && let Some(runner) = tier.prepare("find a user without rights", || Unprivileged::find(&list, &published))
    {
        let jobs: Vec<_> = list.iter().map(|binary| runner.job(binary)).collect();
        tier.side_by_side(&jobs);
        let _ = std::fs::remove_dir_all(&runner.scratch);
    }
    tier.step("examples in the documentation", doc_tests);
    fuzz::steps(tier);
}

fn doc_tests() -> Result<super::Count> {
    let mut cargo = programs::test_cargo("test")?;
    let watched =
        |line: &mut dyn FnMut(&str)| run::watched(cargo.args(["--doc", "--features", programs::FAILPOINTS]), line);
    Ok(binaries::outcome(watched)?.count)
}

/// How to run a program with no rights.
struct Unprivileged {
    wrapper: Vec<String>,
    scratch: PathBuf,
    /// Copies that the tests can read, by their variables.
    published: Vec<(&'static str, PathBuf)>,
}

impl Unprivileged {
    fn job<'a>(&'a self, binary: &'a TestBinary) -> Job<'a> {
        let command = |_: Choice<'_>| {
            let mut command = binaries::limited(binary, &self.wrapper, &[]);
            command.env("TMPDIR", &self.scratch).env("HOME", &self.scratch).envs(self.published.iter().cloned());
            Ok(command)
        };
        Job { name: binary.name.clone(), tests: Tests::Told, again: Again::Never, command: Box::new(command) }
    }

    /// As nobody; or, where nobody cannot reach the checkout (below /root), as root without a single capability.
    fn find(list: &[TestBinary], published: &[(&'static str, PathBuf)]) -> Result<Self> {
        let scratch = std::env::temp_dir().join(format!("berth-unit-{}", std::process::id()));
        std::fs::create_dir_all(&scratch).map_err(|e| format!("{}: {e}", scratch.display()))?;
        let copied = |(variable, file): &(&'static str, PathBuf)| {
            let copy = scratch.join(file.file_name().unwrap_or_default());
            std::fs::copy(file, &copy).map_err(|e| format!("{}: {e}", file.display()))?;
            Ok((*variable, copy))
        };
        let published = published.iter().map(copied).collect::<Result<Vec<_>>>()?;
        let wrapper: &[&str] = if !install::is_root()? {
            println!("   as the user who started this");
            &[]
        } else if list.iter().all(|b| binaries::nobody_reaches(&b.path)) && binaries::nobody_reaches(&workspace::root())
        {
            println!("   as nobody");
            run::plain(Command::new("chown").arg("65534:65534").arg(&scratch))?;
            &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]
        } else {
            println!("   as root without capabilities: nobody cannot reach {}", workspace::root().display());
            &["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
        };
        Ok(Self { wrapper: wrapper.iter().map(|w| (*w).to_owned()).collect(), scratch, published })
    }
}
