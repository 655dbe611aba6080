//! The CNI plugins, from the module `tools/cni`. Owns: which plugins are taken. Must not: run any of them.
use super::go::{Build, Module};
use crate::Result;
use std::path::PathBuf;

const PLUGINS: &str = "github.com/containernetworking/plugins";
const PACKAGES: [&str; 9] = [
    "github.com/containernetworking/plugins/plugins/ipam/host-local",
    "github.com/containernetworking/plugins/plugins/ipam/static",
    "github.com/containernetworking/plugins/plugins/main/bridge",
    "github.com/containernetworking/plugins/plugins/main/loopback",
    "github.com/containernetworking/plugins/plugins/main/ptp",
    "github.com/containernetworking/plugins/plugins/meta/bandwidth",
    "github.com/containernetworking/plugins/plugins/meta/firewall",
    "github.com/containernetworking/plugins/plugins/meta/portmap",
    "github.com/containernetworking/plugins/plugins/meta/tuning",
];

/// A directory with the plugins.
pub fn cni() -> Result<PathBuf> {
    let module = Module::new("cni");
    let version = module.version(PLUGINS)?;
    let build = Build {
        packages: &PACKAGES,
        ldflags: format!("-X {PLUGINS}/pkg/utils/buildversion.BuildVersion={version}"),
        ..Build::default()
    };
    module.programs("cni", &format!("CNI plugins {version}, once: a minute"), &[build])
}
