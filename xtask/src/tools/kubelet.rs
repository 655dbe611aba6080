//! The kubelet's flags with the fields that they set, as its own code has them.
//! Owns: the program of `tools/kubernetes` that lists them, and that list in the cache. Must not: run a kubelet, or judge the list.
use super::go::{Build, Module};
use crate::{Result, cache, run, workspace};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// The program, and the file with what it says.
const PROGRAM: &str = "kubelet-flags";
/// Where it is in the module `tools/kubernetes`.
const PACKAGE: &str = "./kubelet-flags";

/// A file with a line `flag field` for each flag of the kubelet's; its form is told in `tools/kubernetes/kubelet-flags/main.go`.
pub fn kubelet_flags() -> Result<PathBuf> {
    let module = Module::new("kubernetes");
    let build = Build { packages: &[PACKAGE], ..Build::default() };
    let source = workspace::root().join("tools/kubernetes").join(PROGRAM).join("main.go");
    let key = module.key()?.with_file(&source)?;
    let dir = cache::entry(PROGRAM, &key, |dir| {
        println!("   building what lists the kubelet's flags, once: some minutes where Kubernetes was never built");
        module.build(dir, &build)?;
        let place = dir.join(PROGRAM);
        let list = run::captured(&mut Command::new(&place))?;
        // The list takes the program's place: nobody runs it again.
        let kept = fs::remove_file(&place).and_then(|()| fs::write(&place, list));
        kept.map_err(|e| format!("{}: {e}", place.display()))
    })?;
    Ok(dir.join(PROGRAM))
}
