//! Tier `static`: what can be said of the source without running it.
use super::Tier;
use crate::{chart, install, programs, run, tidy, tools, workspace};
use std::process::Command;

pub fn tier(tier: &mut Tier) {
    tier.check("rustfmt", || {
        install::component("rustfmt", "fmt")?;
        run::plain(workspace::cargo().args(["fmt", "--all", "--", "--check", "-l"]))
    });
    tier.check("tidy", tidy::main);
    tier.check("chart", chart::lint);
    tier.check("alert rules", chart::alerts);
    tier.check("cargo-deny", || {
        let program = tools::cargo_deny()?;
        // Advisories need their database from outside the registry; CONTRIBUTING.md says when to run them by hand.
        let checks = ["check", "--hide-inclusion-graph", "bans", "licenses", "sources"];
        run::plain(Command::new(program).current_dir(workspace::root()).args(checks))
    });
    tier.check("clippy", || {
        install::component("clippy", "clippy")?;
        // As the tests are compiled: what build scripts make, a C library among it, is made once for both.
        run::plain(programs::test_cargo("clippy")?.args(["--all-targets", "--", "-Dwarnings"]))
    });
}
