//! The CRI's debugging client and its published protocol file, from the module `tools`.
//! Owns: which programs are taken. Must not: run any of them.
use super::go::{Build, Module};
use crate::{Result, cache};
use std::path::PathBuf;

const CRI_TOOLS: &str = "sigs.k8s.io/cri-tools";

/// crictl, the kubelet's debugging client, unmodified.
pub fn crictl() -> Result<PathBuf> {
    let module = Module::new("");
    let version = module.version(CRI_TOOLS)?;
    let build = Build {
        packages: &["sigs.k8s.io/cri-tools/cmd/crictl"],
        ldflags: format!("-X {CRI_TOOLS}/pkg/version.Version={version}"),
        ..Build::default()
    };
    let note = format!("crictl {version}, once: a minute or two");
    Ok(module.programs("crictl", &note, &[build])?.join("crictl"))
}

/// The CRI's `api.proto` as Kubernetes publishes it.
pub fn cri_api_proto() -> Result<PathBuf> {
    let module = Module::new("");
    let dir = cache::entry("cri-api", &module.key()?, |dir| {
        let source = module.source_of("k8s.io/cri-api")?.join("pkg/apis/runtime/v1/api.proto");
        std::fs::copy(&source, dir.join("api.proto")).map(drop).map_err(|e| format!("{}: {e}", source.display()))
    })?;
    Ok(dir.join("api.proto"))
}
