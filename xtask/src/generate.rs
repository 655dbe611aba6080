//! `cargo xtask generate`: what is generated and committed, written anew; and the check that it is what the sources say.
//! Must not: know what stands in the files.
use crate::{Result, run, workspace};
use std::fs;
use std::path::Path;

/// Definitions of our kinds for the API server.
const CRDS: &str = "crds/generated";

/// Writes the files, or with `--check` only compares them.
pub fn main(args: &[String]) -> Result {
    match args {
        [] => write(&workspace::root().join(CRDS)),
        [flag] if flag == "--check" => check(),
        _ => Err("cargo xtask generate [--check]".to_owned()),
    }
}

fn write(dir: &Path) -> Result {
    fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let program = ["run", "--quiet", "--package", "berth-crds", "--features", "kube", "--bin", "berth-crdgen", "--"];
    run::plain(workspace::cargo().args(program).arg(dir))
}

/// Fails, naming the file, where what is committed is not what the sources say.
pub fn check() -> Result {
    let fresh = workspace::target_dir().join("generated-crds");
    let _ = fs::remove_dir_all(&fresh);
    write(&fresh)?;
    let committed = workspace::root().join(CRDS);
    let (new, old) = (files(&fresh)?, files(&committed)?);
    if let Some((name, _)) = new.iter().chain(&old).find(|file| !(new.contains(file) && old.contains(file))) {
        return Err(format!("{CRDS}/{name} is not what the sources say: run `cargo xtask generate` and commit it"));
    }
    Ok(())
}

/// Names and contents.
fn files(dir: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let told = |e: std::io::Error| format!("{}: {e}", dir.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(told)? {
        let entry = entry.map_err(told)?;
        files.push((entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).map_err(told)?));
    }
    Ok(files)
}
