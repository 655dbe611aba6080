//! The product's programs as the tests use them, together in one directory: `berth` finds its siblings beside itself.
use crate::{Result, install, run, workspace};
use std::fs;
use std::path::{Path, PathBuf};

/// Run inside root filesystems without a C library, or once per pod: static, small, optimised.
const STATIC: [&str; 3] = ["berth-monitor", "berth-init", "berth-web"];

/// Runs one pod with them, from the registry to the count of what is left.
pub const QUICKSTART: &str = "berth-quickstart";

/// Builds them, and returns the directory.
pub fn build() -> Result<PathBuf> {
    let dir = workspace::target_dir().join("berth-bin");
    fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let packages = ["--package=berth", "--package=berth-quickstart", "--features=berth/failpoints"];
    run::plain(workspace::cargo().args(["build", "--quiet"]).args(packages))?;
    for program in ["berth", QUICKSTART] {
        place(&workspace::target_dir().join("debug").join(program), &dir)?;
    }

    static_into(&dir, &[])?;
    Ok(dir)
}

/// Builds them once more as the next version (feature `next-version`), and returns that directory.
pub fn build_next() -> Result<PathBuf> {
    let dir = workspace::target_dir().join("berth-bin-next");
    fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let features = "--features=berth/failpoints,berth/next-version";
    run::plain(workspace::cargo().args(["build", "--quiet", "--package=berth", features]))?;
    place(&workspace::target_dir().join("debug").join("berth"), &dir)?;
    static_into(&dir, &["--features=berth-monitor/next-version,berth-init/next-version"])?;
    Ok(dir)
}

/// kubectl's plugin, which is a package of its own.
pub const PLUGIN: &str = "kubectl-berth";

/// Builds one more program, and puts it there.
pub fn one(program: &str, dir: &Path) -> Result {
    run::plain(workspace::cargo().args(["build", "--quiet", "--package", program]))?;
    place(&workspace::target_dir().join("debug").join(program), dir)
}

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

/// Builds them static, from the crates that the tests are compiled with: only the last step, linking, differs (static glibc). `features`
/// are those of `berth`, as the tests' programs have them.
pub fn test_static(dir: &Path, features: &str) -> Result {
    fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    install::packages(&[("libc6-dev", "/usr/include/features.h")])?;
    for program in IN_IMAGES {
        let mut cargo = workspace::cargo();
        cargo.args(["rustc", "--quiet", "--package", program, "--bin", program]);
        if program == "berth" {
            cargo.arg(features);
        }
        run::plain(cargo.args(["--", "-Ctarget-feature=+crt-static", "-Cstrip=symbols"]))?;
        place(&workspace::target_dir().join("debug").join(program), dir)?;
    }
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
