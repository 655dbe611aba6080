//! Where the programs lie that the tests run. Owns: reading the environment that `cargo xtask test cluster` sets. Must not: search
//! `PATH` for a program of Kubernetes: tests run the versions that the project builds, or fail.
use std::path::PathBuf;

/// A path that `cargo xtask test` hands to the tests.
///
/// # Panics
/// Where it is not set, with the command that sets it.
pub fn path_from_env(name: &str) -> PathBuf {
    match std::env::var_os(name) {
        Some(path) => path.into(),
        None => panic!("{name} is not set: run this test by `cargo xtask test cluster`"),
    }
}

/// One of `berth`, `berth-monitor`, `berth-init`, `berth-web`, `berth-operator`, `kubectl-berth`, `berth-test-registry`.
pub fn berth(program: &str) -> PathBuf {
    path_from_env("BERTH_BIN_DIR").join(program)
}

/// One of `kubelet`, `kube-apiserver`, `kube-controller-manager`, `kube-scheduler`, `kube-proxy`, `kubectl`.
pub fn kubernetes(program: &str) -> PathBuf {
    path_from_env("BERTH_KUBERNETES").join(program)
}

/// One of `containerd`, `ctr`, `containerd-shim-runc-v2`, `runc`, and the CNI plugins.
pub fn peer(program: &str) -> PathBuf {
    path_from_env("BERTH_PEERS").join(program)
}

/// crictl.
pub fn crictl() -> PathBuf {
    path_from_env("BERTH_CRICTL")
}

/// etcd.
pub fn etcd() -> PathBuf {
    path_from_env("BERTH_ETCD")
}

/// helm.
pub fn helm() -> PathBuf {
    path_from_env("BERTH_HELM")
}
