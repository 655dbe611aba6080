//! The checkout: where it is, where its programs are built, and what cargo knows about its packages.
use crate::{Result, run};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The checkout's top directory.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Where cargo builds: CARGO_TARGET_DIR, else `target`.
pub fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// cargo, in the checkout.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// A package of the workspace with its own dependencies.
#[derive(Debug, Clone)]
pub struct Package {
    /// Name.
    pub name: String,
    /// Its directory.
    pub dir: PathBuf,
    /// Names of what it depends on, without those that only its tests need.
    pub dependencies: Vec<String>,
}

/// The packages of the workspace.
pub fn packages() -> Result<Vec<Package>> {
    let text = run::captured(cargo().args(["metadata", "--format-version=1", "--no-deps"]))?;
    let metadata: Value = serde_json::from_str(&text).map_err(|e| format!("cargo metadata: {e}"))?;
    let list = metadata["packages"].as_array().ok_or("cargo metadata: no packages")?;
    Ok(list.iter().map(package).collect())
}

fn package(value: &Value) -> Package {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let manifest = PathBuf::from(text(&value["manifest_path"]));
    let dependencies = value["dependencies"].as_array().into_iter().flatten();
    Package {
        name: text(&value["name"]),
        dir: manifest.parent().map(Path::to_owned).unwrap_or_default(),
        dependencies: dependencies.filter(|d| d["kind"] != "dev").map(|d| text(&d["name"])).collect(),
    }
}

/// The files that git knows, or would take if they were added, below the checkout; paths relative to it.
pub fn files() -> Result<Vec<String>> {
    let listing = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let text = run::captured(Command::new("git").current_dir(root()).args(listing))?;
    let mut files: Vec<String> = text.split('\0').filter(|f| !f.is_empty()).map(str::to_owned).collect();
    files.retain(|f| root().join(f).is_file());
    files.sort();
    files.dedup();
    Ok(files)
}
