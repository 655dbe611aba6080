//! The product's programs as the tests use them, together in one directory: `berth` finds its siblings beside itself.
use crate::test::binaries::{self, TestBinary};
use crate::{Result, install, run, workspace};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Run inside root filesystems without a C library, or once per pod: static, small, optimised.
const STATIC: [&str; 3] = ["berth-monitor", "berth-init", "berth-web"];

/// Flags that link with a C library that is inside.
pub const STATIC_GLIBC: &str = "-Ctarget-feature=+crt-static";

/// Runs one pod with them, from the registry to the count of what is left.
pub const QUICKSTART: &str = "berth-quickstart";

/// Places where a test can have a program killed or held.
pub const FAILPOINTS: &str = "berth/failpoints,berth-agent/failpoints";
/// A small one of the test programs.
const SMALL_TEST: &str = "cri_api";

/// All programs and tests of the workspace as the tiers use them.
#[derive(Debug, Clone)]
pub struct Everything {
    /// Test programs.
    pub tests: Vec<TestBinary>,
    /// The directory with the other programs.
    pub bin: PathBuf,
}

/// Compiles them, once in a run, all at once: a package that is built by itself has other features of what it depends on, and would have all of
/// that compiled again. They are static, since the images need them so and would else need everything a second time.
pub fn everything() -> Result<Everything> {
    static MADE: OnceLock<Result<Everything>> = OnceLock::new();
    MADE.get_or_init(|| {
        let mut cargo = test_cargo("build")?;
        cargo.args(["--bins", "--tests", "--message-format=json-render-diagnostics", "--features", FAILPOINTS]);
        Ok(Everything { tests: binaries::listed(&run::captured(&mut cargo)?), bin: debug_dir() })
    })
    .clone()
}

/// cargo with what makes it find what [`everything`] has compiled.
pub fn test_cargo(command: &str) -> Result<Command> {
    install::packages(&[("libc6-dev", "/usr/include/features.h")])?;
    let mut cargo = workspace::cargo();
    // Naming the target keeps the flags away from build scripts and procedural macros.
    cargo.args([command, "--quiet", "--workspace", "--target", &triple()]);
    cargo.env("RUSTFLAGS", STATIC_GLIBC).env("RUSTDOCFLAGS", STATIC_GLIBC);
    Ok(cargo)
}

fn triple() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

fn debug_dir() -> PathBuf {
    workspace::target_dir().join(triple()).join("debug")
}

/// Builds the node's programs, and returns the directory.
pub fn build() -> Result<PathBuf> {
    let dir = workspace::target_dir().join("berth-bin");
    from_everything(&["berth", "berth-agent", QUICKSTART], &dir)?;
    static_into(&dir, &[])?;
    Ok(dir)
}

/// Puts these of all programs there.
pub fn from_everything(programs: &[&str], dir: &Path) -> Result {
    fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let bin = everything()?.bin;
    programs.iter().try_for_each(|program| place(&bin.join(program), dir))
}

/// Builds them once more as the next version (feature `next-version`), and returns that directory.
pub fn build_next() -> Result<PathBuf> {
    let dir = workspace::target_dir().join("berth-bin-next");
    fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    // cargo has one place for both: that of everything is put back, for the tiers that come later.
    let kept = workspace::target_dir().join("berth-bin-kept");
    from_everything(&["berth"], &kept)?;
    // A test among what is built: only then the features are those of everything.
    let mut cargo = test_cargo("build")?;
    cargo.args(["--bin", "berth", "--test", SMALL_TEST, "--features"]);
    run::plain(cargo.arg(format!("{FAILPOINTS},berth/next-version")))?;
    place(&debug_dir().join("berth"), &dir)?;
    place(&kept.join("berth"), &debug_dir())?;
    static_into(&dir, &["--features=berth-monitor/next-version,berth-init/next-version"])?;
    Ok(dir)
}

/// kubectl's plugin, which is a package of its own.
pub const PLUGIN: &str = "kubectl-berth";

/// What the images of operator and agent have.
const IN_IMAGES: [&str; 3] = ["berth", "berth-agent", "berth-operator"];

/// Builds them static and of release quality, and returns the directory.
pub fn release_static() -> Result<PathBuf> {
    let target = install::static_target()?;
    // Libraries in C, which are linked in.
    install::packages(&[("gcc", "gcc"), ("libc6-dev", "/usr/include/features.h"), ("musl-tools", "musl-gcc")])?;
    let dir = workspace::target_dir().join("images-bin");
    fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--release", "--target", &target.triple]);
    cargo.args(IN_IMAGES.map(|package| format!("--package={package}")));
    if !target.rustflags.is_empty() {
        cargo.env("RUSTFLAGS", target.rustflags);
    }
    run::plain(&mut cargo)?;
    for program in IN_IMAGES {
        place(&workspace::target_dir().join(&target.triple).join("release").join(program), &dir)?;
    }
    static_into(&dir, &[])?;
    Ok(dir)
}

/// The same, as the tests use them elsewhere too.
pub fn test_static(dir: &Path) -> Result {
    from_everything(&IN_IMAGES, dir)?;
    static_into(dir, &[])
}

/// Builds the static ones, and puts them into `dir`.
pub fn static_into(dir: &Path, features: &[&str]) -> Result {
    let target = install::static_target()?;
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--quiet", "--release", "--target", &target.triple]);
    cargo.args(STATIC.map(|package| format!("--package={package}"))).args(features);
    if !target.rustflags.is_empty() {
        cargo.env("RUSTFLAGS", target.rustflags);
    }
    run::plain(&mut cargo)?;
    for program in STATIC {
        place(&workspace::target_dir().join(&target.triple).join("release").join(program), dir)?;
    }
    Ok(())
}

/// A hard link where possible. The old one is unlinked first, so that a program that still runs keeps its file.
pub fn place(program: &Path, dir: &Path) -> Result {
    let name = program.file_name().ok_or_else(|| format!("{}: no file name", program.display()))?;
    let to = dir.join(name);
    let _ = fs::remove_file(&to);
    let placed = fs::hard_link(program, &to).or_else(|_| fs::copy(program, &to).map(drop));
    placed.map_err(|e| format!("{} to {}: {e}", program.display(), to.display()))
}
