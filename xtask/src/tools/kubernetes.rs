//! Kubernetes' own programs, etcd and helm, from the modules `tools/{kubernetes,etcd,helm,helm3}`.
//! Owns: which programs are taken, and what they say of their version. Must not: run any of them.
use super::go::{Build, Module};
use crate::{Result, cache};
use std::fs;
use std::path::PathBuf;

const KUBERNETES: &str = "k8s.io/kubernetes";
const PROGRAMS: [&str; 7] = [
    "k8s.io/kubernetes/cmd/kubelet",
    "k8s.io/kubernetes/cmd/kube-apiserver",
    "k8s.io/kubernetes/cmd/kube-controller-manager",
    "k8s.io/kubernetes/cmd/kube-scheduler",
    "k8s.io/kubernetes/cmd/kube-proxy",
    "k8s.io/kubernetes/cmd/kubectl",
    "k8s.io/kubernetes/test/images/agnhost",
];
/// Where the programs look up their version; the second is what clients send and helm reads.
const VERSION_PACKAGES: [&str; 2] = ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"];
/// What agnhost's image has beside it: the certificate that its `porter` serves with.
pub const PORTER: [&str; 2] = ["localhost.crt", "localhost.key"];

/// A directory with kubelet, kube-apiserver, kube-controller-manager, kube-scheduler, kube-proxy, kubectl and agnhost, static,
/// and agnhost's certificate and key.
pub fn kubernetes() -> Result<PathBuf> {
    let module = Module::new("kubernetes");
    let version = module.version(KUBERNETES)?;
    let build = Build { packages: &PROGRAMS, ldflags: version_flags(&version)?, ..Build::default() };
    let key = module.key()?.with(format!("{build:?}").as_bytes());
    cache::entry("kubernetes", &key, |dir| {
        println!("   building Kubernetes {version} (kubelet, control plane, kubectl, agnhost), once: 9 to 17 minutes");
        module.build(dir, &build)?;
        let source = module.source_of(KUBERNETES)?.join("test/images/agnhost/porter");
        PORTER.iter().try_for_each(|name| {
            let from = source.join(name);
            // Read and written: the module cache's own files are read-only.
            let copied = fs::read(&from).and_then(|bytes| fs::write(dir.join(name), bytes));
            copied.map_err(|e| format!("{}: {e}", from.display()))
        })
    })
}

/// Sets what `kubectl version` and a node's status show. Without it they would say v0.0.0, and charts refuse that.
fn version_flags(version: &str) -> Result<String> {
    let mut numbers = version.trim_start_matches('v').split('.');
    let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) else {
        return Err(format!("Kubernetes {version}: not a version"));
    };
    let values = [("gitVersion", version), ("gitMajor", major), ("gitMinor", minor), ("gitTreeState", "clean")];
    let flags =
        VERSION_PACKAGES.iter().flat_map(|package| values.map(|(name, value)| format!("-X {package}.{name}={value}")));
    Ok(flags.collect::<Vec<_>>().join(" "))
}

/// etcd.
pub fn etcd() -> Result<PathBuf> {
    let module = Module::new("etcd");
    let note = format!("etcd {}, once: a minute", module.version("go.etcd.io/etcd/server/v3")?);
    Ok(module.programs("etcd", &note, &[Build { packages: &["."], ..Build::default() }])?.join("etcd"))
}

/// helm.
pub fn helm() -> Result<PathBuf> {
    helm_of("helm", "helm.sh/helm/v4", "helm.sh/helm/v4/cmd/helm")
}

/// helm of the major version before, which many clusters are still installed with.
pub fn helm3() -> Result<PathBuf> {
    helm_of("helm3", "helm.sh/helm/v3", "helm.sh/helm/v3/cmd/helm")
}

fn helm_of(name: &str, module: &str, program: &str) -> Result<PathBuf> {
    let tools = Module::new(name);
    let version = tools.version(module)?;
    let ldflags = format!("-X {module}/internal/version.version={version}");
    let build = Build { packages: &[program], ldflags, ..Build::default() };
    let note = format!("helm {version}, once: a minute or two");
    Ok(tools.programs(name, &note, &[build])?.join("helm"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_packages_get_the_whole_version() {
        let flags = version_flags("v1.37.2").unwrap();
        assert_eq!(flags.matches("-X ").count(), 8);
        assert!(flags.contains("-X k8s.io/client-go/pkg/version.gitMinor=37"), "{flags}");
        assert!(flags.contains("-X k8s.io/component-base/version.gitVersion=v1.37.2"), "{flags}");
        assert!(version_flags("v1").is_err());
    }
}
