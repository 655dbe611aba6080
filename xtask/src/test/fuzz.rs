//! Fuzz targets, a few seconds each: one per parser of bytes from outside. They are a workspace of their own
//! (`node-runtime/fuzz`), compiled with coverage counters by flags that stable Rust takes; no further tool is needed.
use super::Tier;
use super::again::{Again, Choice};
use super::lanes::{Job, Tests};
use crate::{Result, install, run, workspace};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

const SECONDS: u32 = 5;
/// Coverage of edges, and of comparisons (magic numbers are found by those), for libFuzzer.
const FLAGS: &str = "--cfg fuzzing -Cdebug-assertions -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

fn dir() -> PathBuf {
    workspace::root().join("node-runtime/fuzz")
}

pub fn steps(tier: &mut Tier) {
    let Some(targets) = tier.prepare("compile the fuzz targets", compile) else { return };
    let jobs: Vec<_> = targets.iter().map(|(name, program)| job(name, program)).collect();
    tier.side_by_side(&jobs);
}

fn job<'a>(name: &'a str, program: &'a Path) -> Job<'a> {
    let command = move |_: Choice<'_>| fuzz(name, program);
    Job {
        name: format!("fuzz {name}, {SECONDS} s"),
        tests: Tests::One,
        again: Again::Never,
        command: Box::new(command),
    }
}

fn compile() -> Result<Vec<(String, PathBuf)>> {
    install::packages(&[("g++", "g++")])?;
    // Naming the target keeps the flags away from build scripts and procedural macros.
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut cargo = workspace::cargo();
    cargo.current_dir(dir()).args(["build", "--release", "--locked", "--bins", "--quiet", "--target", &triple]);
    cargo.args(["--message-format=json-render-diagnostics", "--target-dir"]).arg(workspace::target_dir().join("fuzz"));
    let messages = run::captured(cargo.env("RUSTFLAGS", FLAGS))?;
    let targets: Vec<_> = messages.lines().filter_map(program).collect();
    if targets.is_empty() { Err(format!("{}: no fuzz target", dir().display())) } else { Ok(targets) }
}

fn program(line: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(line).ok()?;
    Some((message["target"]["name"].as_str()?.to_owned(), message["executable"].as_str()?.into()))
}

/// The corpus grows in the target directory, from the committed seeds of the target, if it has some.
fn fuzz(name: &str, program: &Path) -> Result<Command> {
    let work = workspace::target_dir().join("fuzz-corpus").join(name);
    std::fs::create_dir_all(&work).map_err(|e| format!("{}: {e}", work.display()))?;
    let seeds = dir().join("seeds").join(name);
    let mut command = Command::new(program);
    command.arg(&work).args(seeds.is_dir().then_some(&seeds));
    command
        .arg(format!("-max_total_time={SECONDS}"))
        .arg(format!("-artifact_prefix={}/", workspace::target_dir().display()));
    // A parser that allocates what a length field says, or that does not come back, has failed.
    command.args([
        "-rss_limit_mb=1024",
        "-malloc_limit_mb=256",
        "-timeout=5",
        "-max_len=8192",
        "-print_final_stats=1",
        "-verbosity=0",
    ]);
    Ok(command)
}
