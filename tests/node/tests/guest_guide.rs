//! `docs/guide.md` on a bare machine with systemd: every command of it, from the top to the bottom, in one shell. A command that
//! fails fails the test, and so does an answer that is not the one which the page shows. Runs in the guest tier.
//!
//! docker.io is a registry in this process, by name and certificate: the page's commands are run as they stand.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

use crate::guide::page::{Outcome, steps};
use crate::guide::{answer, machine, shell::Shell};
use crate::packages;
use berth_leaks::{Scope, Snapshot};
use std::time::Duration;

const PAGE: &str = include_str!("../../../docs/guide.md");
/// For the kernel to take apart what was removed.
const SETTLE: Duration = Duration::from_secs(20);

#[test]
fn guest_the_guide_from_top_to_bottom() {
    packages::node::prepare();
    let before = Snapshot::take(&Scope::default()).unwrap();
    let machine = machine::Machine::start();
    let mut shell = Shell::start(machine.directory());
    let steps = steps(PAGE).unwrap();
    assert!(steps.len() > 20, "{} commands in the guide", steps.len());
    // All of them are told at once: a boot takes its time.
    let mut wrong = Vec::new();
    for step in &steps {
        println!("guide.md:{}: {}", step.line, step.command);
        let ran = shell.run(&step.command);
        let ended = if ran.code == 0 { Outcome::Succeeds } else { Outcome::Fails };
        let verdict = answer::fits(&step.expected, &ran.output);
        let problem = if ended == step.outcome { verdict.err() } else { Some(format!("it ends with {}", ran.code)) };
        if let Some(problem) = problem {
            wrong.push(format!("docs/guide.md:{}: {}\n{}\n{problem}", step.line, step.command, ran.output));
        }
    }
    assert!(wrong.is_empty(), "{} commands differ:\n{}", wrong.len(), wrong.join("\n\n"));
    drop(shell);
    drop(machine);
    let scope = Scope { roots: Vec::new(), words: vec!["berth".into()] };
    let leaks = berth_leaks::settle(&scope, &before, SETTLE).unwrap();
    assert!(
        leaks.is_empty(),
        "the guide leaves over:\n{}",
        leaks.iter().map(|l| format!("  {l}\n")).collect::<String>()
    );
}

/// The page can be read; that its commands work is seen in the guest.
#[test]
fn the_guide_is_well_formed() {
    let steps = steps(PAGE).unwrap();
    assert!(steps.iter().any(|step| step.outcome == Outcome::Fails), "a refusal is shown");
    assert!(steps.iter().filter(|step| !step.expected.is_empty()).count() > 10, "answers are shown");
}
