//! Prometheus and promtool, from Debian's package, unpacked and not installed: no service starts, no user is made.
//! Owns: where they come from. Must not: run them.
use crate::cache::Key;
use crate::{Result, cache, run};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The directory with `prometheus` and `promtool` (19 MB to fetch; building them from their Go module takes minutes).
pub fn prometheus() -> Result<PathBuf> {
    let key = Key::default().with(b"debian prometheus").with(std::env::consts::ARCH.as_bytes());
    let dir = cache::entry("prometheus", &key, |dir| {
        if !run::in_path("apt-get") || !run::in_path("dpkg-deb") {
            return Err("prometheus comes from Debian's package, and there is no apt-get or dpkg-deb here".to_owned());
        }
        download(dir).or_else(|_| {
            // The list of packages may be older than the archive.
            let _apt = cache::lock("apt")?;
            run::plain(Command::new("apt-get").args(["-qq", "update"]))?;
            download(dir)
        })?;
        let package = package(dir)?;
        run::plain(Command::new("dpkg-deb").arg("-x").arg(&package).arg(dir))?;
        std::fs::remove_file(&package).map_err(|e| format!("{}: {e}", package.display()))
    })?;
    Ok(dir.join("usr/bin"))
}

fn download(dir: &Path) -> Result {
    let mut apt = Command::new("apt-get");
    // Not as the user _apt, who may not write here.
    run::plain(apt.current_dir(dir).args(["-qq", "-o", "APT::Sandbox::User=root", "download", "prometheus"]))
}

fn package(dir: &Path) -> Result<PathBuf> {
    let entries = std::fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let found = entries.flatten().map(|e| e.path()).find(|p| p.extension().is_some_and(|e| e == "deb"));
    found.ok_or_else(|| format!("{}: apt-get downloaded no package", dir.display()))
}
