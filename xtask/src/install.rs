//! Brings what a step needs onto the machine, by package name: Debian packages, Rust components and targets.
//! Does nothing, and asks no server, where the thing is there already.
use crate::{Result, cache, programs, run};
use std::path::Path;
use std::process::Command;
use std::sync::Once;

/// A Debian package and a file by which to see that it is there (searched in PATH unless it starts with `/`).
pub type Package = (&'static str, &'static str);

/// Installs those packages that are missing. Error: not root, no apt, or apt's own.
pub fn packages(wanted: &[Package]) -> Result {
    let missing = || -> Vec<&str> { wanted.iter().filter(|(_, file)| !present(file)).map(|(name, _)| *name).collect() };
    if missing().is_empty() {
        return Ok(());
    }
    // apt is for one at a time, and what is made ahead installs too.
    let _apt = cache::lock("apt")?;
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    if !run::in_path("apt-get") {
        return Err(format!("these packages are missing, and there is no apt-get to install them with: {names}"));
    }
    if !is_root()? {
        return Err(format!("these packages are missing; install them, or run as root: apt-get install {names}"));
    }
    println!("   installing {names}");
    static UPDATE: Once = Once::new();
    UPDATE.call_once(|| {
        // An outdated list may still be good enough; the install says so if it is not.
        let _ = run::plain(Command::new("apt-get").args(["-qq", "update"]));
    });
    let mut apt = Command::new("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive").args(["-qq", "-y", "--no-install-recommends", "install"]);
    run::captured(apt.args(&missing)).map(drop)
}

fn present(file: &str) -> bool {
    if file.starts_with('/') {
        Path::new(file).exists()
    } else {
        run::in_path(file) || Path::new("/usr/sbin").join(file).exists()
    }
}

/// Whether this process is root.
pub fn is_root() -> Result<bool> {
    Ok(run::captured(Command::new("id").arg("-u"))?.trim() == "0")
}

/// Error unless this process is root.
pub fn need_root(what: &str) -> Result {
    if is_root()? { Ok(()) } else { Err(format!("{what} needs root")) }
}

/// A Rust component (`clippy`, `rustfmt`), seen by the program that it brings.
pub fn component(name: &str, program: &str) -> Result {
    if run::succeeds(Command::new("cargo").arg(program).arg("--version")) {
        return Ok(());
    }
    run::plain(Command::new("rustup").args(["component", "add", name]))
}

/// How programs are linked that run in a root filesystem without a C library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticTarget {
    /// Target triple.
    pub triple: String,
    /// Flags of the compiler, if the target is not static by itself.
    pub rustflags: &'static str,
}

/// musl, or static glibc where rustup cannot bring musl's standard library (three times the memory of a small program).
pub fn static_target() -> Result<StaticTarget> {
    let arch = std::env::consts::ARCH;
    let musl = format!("{arch}-unknown-linux-musl");
    let sysroot = run::captured(Command::new("rustc").args(["--print", "sysroot"]))?;
    let library = Path::new(sysroot.trim()).join("lib/rustlib").join(&musl).join("lib");
    if library.is_dir() || run::succeeds(Command::new("rustup").args(["target", "add", &musl])) {
        return Ok(StaticTarget { triple: musl, rustflags: "" });
    }
    println!("   no {musl} to be had: linking with static glibc instead");
    packages(&[("libc6-dev", "/usr/include/features.h")])?;
    Ok(StaticTarget { triple: format!("{arch}-unknown-linux-gnu"), rustflags: programs::STATIC_GLIBC })
}
