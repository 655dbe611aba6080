//! `cargo xtask quickstart`: installs what it needs, builds release programs, and becomes `berth-quickstart`, which runs them.
//! Owns: the programs' directory, complete and movable. Must not: know what the quickstart does.
use crate::{Result, install, programs, run, test, workspace};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The quickstart's own: what it says before it starts anything is said before anything is built.
#[path = "../../tests/quickstart/src/preflight.rs"]
mod preflight;

const PACKAGES: [install::Package; 4] =
    [("nftables", "nft"), ("iproute2", "ip"), ("util-linux", "unshare"), ("mount", "mount")];

/// Builds and runs. Returns only if that fails: Ctrl-C is then the quickstart's, which cleans up.
pub fn main(args: &[String]) -> Result {
    if args.iter().any(|a| a == "--cluster") {
        return cluster(args);
    }
    let help = args.iter().any(|a| a == "-h" || a == "--help");
    let given = args.iter().any(|a| a == "--bin" || a.starts_with("--bin="));
    if !help {
        ready()?;
    }
    let program = if help || given { alone()? } else { build()?.join("berth-quickstart") };
    let error = Command::new(&program).args(args).exec();
    Err(format!("{}: {error}", program.display()))
}

/// The way of a node in a cluster, from containerd to Berth and back. Returns only if it fails, as [`main`].
fn cluster(args: &[String]) -> Result {
    if let Some(unknown) = args.iter().find(|a| !["--cluster", "--keep"].contains(&a.as_str())) {
        return Err(format!("{unknown}: beside --cluster there is --keep"));
    }
    ready()?;
    println!(
        "building Kubernetes, containerd, Berth and its images, unless they are built already (half an hour, the first time)"
    );
    let mut command = test::cluster_program("e2e", true)?;
    let error = command.arg("--tour").args(args.iter().filter(|a| *a == "--keep")).exec();
    Err(format!("{}: {error}", run::shown(&command)))
}

/// What is missing is told at once: a package that cannot be had, and what the kernel lacks.
fn ready() -> Result {
    let packages = if install::is_root()? { install::packages(&PACKAGES).err() } else { None };
    let missing: Vec<String> = packages.into_iter().chain(preflight::missing()).collect();
    if missing.is_empty() { Ok(()) } else { Err(preflight::told(&missing)) }
}

/// All programs of release quality, in one directory: it can be carried to another machine and run there.
pub fn build() -> Result<PathBuf> {
    let dir = workspace::target_dir().join("quickstart/bin");
    println!("building release programs in {} (some minutes, the first time)", dir.display());
    std::fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    run::plain(workspace::cargo().args(["build", "--release", "--package=berth", "--package=berth-quickstart"]))?;
    for program in ["berth", "berth-quickstart"] {
        programs::place(&workspace::target_dir().join("release").join(program), &dir)?;
    }
    programs::static_into(&dir, &[])?;
    Ok(dir)
}

/// The quickstart without the programs that it would run.
fn alone() -> Result<PathBuf> {
    run::plain(workspace::cargo().args(["build", "--release", "--quiet", "--package=berth-quickstart"]))?;
    Ok(Path::new(&workspace::target_dir()).join("release/berth-quickstart"))
}
