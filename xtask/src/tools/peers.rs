//! The runtime that Berth is compared with: containerd, runc and CNI plugins, from the module `tools/peers`.
//! Owns: which programs are taken. Must not: run any of them.
use super::go::{Build, Module};
use crate::{Result, install};
use std::path::PathBuf;

const CONTAINERD: &str = "github.com/containerd/containerd/v2";
const PLUGINS: &str = "github.com/containernetworking/plugins";
const GO_ONLY: [&str; 7] = [
    "github.com/containerd/containerd/v2/cmd/containerd",
    "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
    "github.com/containerd/containerd/v2/cmd/ctr",
    "github.com/containernetworking/plugins/plugins/ipam/host-local",
    "github.com/containernetworking/plugins/plugins/main/bridge",
    "github.com/containernetworking/plugins/plugins/main/loopback",
    "github.com/containernetworking/plugins/plugins/meta/portmap",
];
/// runc enters namespaces in C, and seccomp filters are made by a C library.
const RUNC_PACKAGES: [install::Package; 4] = [
    ("gcc", "gcc"),
    ("libc6-dev", "/usr/include/features.h"),
    ("libseccomp-dev", "/usr/include/seccomp.h"),
    ("pkg-config", "pkg-config"),
];

/// A directory with containerd, its shim, ctr, runc, and the CNI plugins bridge, host-local, loopback and portmap.
pub fn peers() -> Result<PathBuf> {
    let module = Module::new("peers");
    let (containerd, plugins) = (module.version(CONTAINERD)?, module.version(PLUGINS)?);
    let go_only = Build {
        packages: &GO_ONLY,
        tags: &["no_btrfs", "no_devmapper", "no_zfs"],
        ldflags: format!(
            "-X {CONTAINERD}/version.Version={containerd} -X {PLUGINS}/pkg/utils/buildversion.BuildVersion={plugins}"
        ),
        cgo: false,
    };
    let runc =
        Build { packages: &["github.com/opencontainers/runc"], tags: &["seccomp"], cgo: true, ..Build::default() };
    install::packages(&RUNC_PACKAGES)?;
    let note = format!("containerd {containerd} with runc and CNI plugins, once: two or three minutes");
    module.programs("peers", &note, &[go_only, runc])
}
