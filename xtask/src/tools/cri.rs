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
    published("cri-api", "k8s.io/cri-api", "pkg/apis/runtime/v1/api.proto")
}

/// The kubelet's configuration as Kubernetes publishes it: its types, in Go.
pub fn kubelet_types() -> Result<PathBuf> {
    published("kubelet-types", "k8s.io/kubelet", "config/v1beta1/types.go")
}

/// A file of a module, in a cache entry.
fn published(what: &str, module: &str, file: &str) -> Result<PathBuf> {
    let tools = Module::new("");
    let name = file.rsplit('/').next().unwrap_or(file);
    let dir = cache::entry(what, &tools.key()?, |dir| {
        let source = tools.source_of(module)?.join(file);
        std::fs::copy(&source, dir.join(name)).map(drop).map_err(|e| format!("{}: {e}", source.display()))
    })?;
    Ok(dir.join(name))
}
