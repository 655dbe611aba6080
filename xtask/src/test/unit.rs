//! Tier `unit`: tests that need no root. Started by root, they run without its rights all the same: that is the proof.
use super::binaries::{self, TestBinary};
use super::{Tier, fuzz};
use crate::{Result, install, run, tools, workspace};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Tests on a real kernel have tiers of their own.
const CHOICE: [&str; 5] = ["--workspace", "--exclude", "berth-node-tests", "--exclude", "berth-cluster-tests"];

pub fn tier(tier: &mut Tier) {
    let compiled = tier.prepare("compile the unit tests", || binaries::compile(&CHOICE));
    // One of them compares our protocol file with the published one.
    let proto = tier.prepare("the CRI's published protocol file", tools::cri_api_proto);
    if let Some(list) = compiled
        && let Some(runner) = tier.prepare("find a user without rights", || Unprivileged::find(&list, proto.as_deref()))
    {
        for binary in &list {
            let set = |command: &mut Command| {
                command.env("TMPDIR", &runner.scratch).env("HOME", &runner.scratch);
                command.env("BERTH_CRI_API_PROTO", &runner.proto);
            };
            tier.step(&binary.name, || {
                binaries::run_one(binary, &runner.wrapper, &[], set).map(|outcome| outcome.count)
            });
        }
        let _ = std::fs::remove_dir_all(&runner.scratch);
    }
    tier.step("examples in the documentation", doc_tests);
    fuzz::steps(tier);
}

fn doc_tests() -> Result<super::Count> {
    let mut cargo = workspace::cargo();
    let watched =
        |line: &mut dyn FnMut(&str)| run::watched(cargo.args(["test", "--doc", "--quiet"]).args(CHOICE), line);
    Ok(binaries::outcome(watched)?.count)
}

/// How to run a program with no rights.
struct Unprivileged {
    wrapper: Vec<String>,
    scratch: PathBuf,
    /// A copy that the tests can read.
    proto: PathBuf,
}

impl Unprivileged {
    /// As nobody; or, where nobody cannot reach the checkout (below /root), as root without a single capability.
    fn find(list: &[TestBinary], api_proto: Option<&Path>) -> Result<Self> {
        let scratch = std::env::temp_dir().join(format!("berth-unit-{}", std::process::id()));
        std::fs::create_dir_all(&scratch).map_err(|e| format!("{}: {e}", scratch.display()))?;
        let proto = scratch.join("api.proto");
        if let Some(file) = api_proto {
            std::fs::copy(file, &proto).map_err(|e| format!("{}: {e}", file.display()))?;
        }
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
        Ok(Self { wrapper: wrapper.iter().map(|w| (*w).to_owned()).collect(), scratch, proto })
    }
}
