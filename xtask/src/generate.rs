//! `cargo xtask generate`: what is generated and committed, written anew; and the check that it is what the sources say.
//! Owns: which file is made of what. Must not: know what stands in the files.
use crate::{Result, chart, run, workspace};
use std::fs;
use std::path::Path;
use std::process::Command;

/// The program that writes the definitions of our kinds.
pub const DEFINITIONS: &str = "berth-crdgen";
/// Definitions of our kinds for the API server.
const CRDS: &str = "crds/generated";
/// What the chart carries of other directories: Helm reads nothing outside of a chart's own.
const COPIES: [(&str, &str); 2] =
    [(CRDS, "charts/berth/files/crds"), ("docs/dashboards", "charts/berth/files/dashboards")];
/// The chart with its defaults, for whoever has no Helm.
const INSTALL: &str = "manifests/install.yaml";

/// Writes the files, or with `--check` only compares them.
pub fn main(args: &[String]) -> Result {
    match args {
        [] => generate(),
        [flag] if flag == "--check" => check(&mut writer()),
        _ => Err("cargo xtask generate [--check]".to_owned()),
    }
}

fn generate() -> Result {
    let root = workspace::root();
    definitions(&mut writer(), &root.join(CRDS))?;
    for (from, to) in COPIES {
        let to = root.join(to);
        // A file that has gone at its source goes here.
        let _ = fs::remove_dir_all(&to);
        fs::create_dir_all(&to).map_err(|e| format!("{}: {e}", to.display()))?;
        for (name, bytes) in files(&root.join(from))? {
            save(&to.join(name), &bytes)?;
        }
    }
    save(&root.join(INSTALL), chart::rendered()?.as_bytes())
}

/// Fails, naming the file, where what is committed is not what the sources say. `writer` is [`DEFINITIONS`], or the command that builds and runs it.
pub fn check(writer: &mut Command) -> Result {
    let root = workspace::root();
    let fresh = workspace::target_dir().join("generated-crds");
    let _ = fs::remove_dir_all(&fresh);
    definitions(writer, &fresh)?;
    same(CRDS, &files(&fresh)?, &files(&root.join(CRDS))?)?;
    for (from, to) in COPIES {
        same(to, &files(&root.join(from))?, &files(&root.join(to))?)?;
    }
    let committed = fs::read(root.join(INSTALL)).map_err(|e| format!("{INSTALL}: {e}"))?;
    let (dir, name) = INSTALL.rsplit_once('/').unwrap_or((".", INSTALL));
    same(dir, &[(name.to_owned(), chart::rendered()?.into_bytes())], &[(name.to_owned(), committed)])
}

fn writer() -> Command {
    let mut cargo = workspace::cargo();
    cargo.args(["run", "--quiet", "--package", "berth-crds", "--features", "kube", "--bin", DEFINITIONS, "--"]);
    cargo
}

fn definitions(writer: &mut Command, dir: &Path) -> Result {
    fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    run::plain(writer.arg(dir))
}

/// Name and content of a file.
type File = (String, Vec<u8>);

fn same(dir: &str, new: &[File], old: &[File]) -> Result {
    match new.iter().chain(old).find(|file| !(new.contains(file) && old.contains(file))) {
        Some((name, _)) => {
            Err(format!("{dir}/{name} is not what the sources say: run `cargo xtask generate` and commit it"))
        }
        None => Ok(()),
    }
}

fn save(path: &Path, bytes: &[u8]) -> Result {
    fs::write(path, bytes).map_err(|e| format!("{}: {e}", path.display()))
}

/// The files of a directory.
fn files(dir: &Path) -> Result<Vec<File>> {
    let told = |e: std::io::Error| format!("{}: {e}", dir.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(told)? {
        let entry = entry.map_err(told)?;
        files.push((entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).map_err(told)?));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named_whichever_side_has_it() {
        let file = |name: &str, text: &str| (name.to_owned(), text.as_bytes().to_vec());
        let (a, b) = (file("a.yaml", "1"), file("b.yaml", "1"));
        assert_eq!(same("d", &[a.clone(), b.clone()], &[b.clone(), a.clone()]), Ok(()));
        assert!(same("d", &[a.clone(), b.clone()], std::slice::from_ref(&a)).unwrap_err().contains("d/b.yaml"));
        assert!(same("d", std::slice::from_ref(&a), &[a.clone(), b]).unwrap_err().contains("d/b.yaml"));
        assert!(same("d", &[a], &[file("a.yaml", "2")]).unwrap_err().contains("d/a.yaml"));
    }
}
