//! Programs of others that the tests use, pinned, and the images made of them. Each is built or unpacked once, into the cache.
//! Owns: what the cache holds of others, one file a family. Must not: run any of it, but for what lists the kubelet's flags.
mod cni;
mod cri;
mod deny;
mod go;
mod images;
mod kubelet;
mod kubernetes;
mod peers;
mod prometheus;

pub use cni::cni;
pub use cri::{cri_api_proto, crictl, kubelet_types};
pub use deny::cargo_deny;
pub use images::{images, userland};
pub use kubelet::kubelet_flags;
pub use kubernetes::{etcd, helm, helm3, kubernetes};
pub use peers::peers;
pub use prometheus::prometheus;

use crate::Result;
use std::path::PathBuf;

type Make = fn() -> Result<PathBuf>;

/// What a test finds where: the name of the environment's variable, and who makes it. From the fastest to the slowest, except
/// that the images need Kubernetes' agnhost.
pub const FAMILIES: [(&str, &str, Make); 8] = [
    ("crictl", "BERTH_CRICTL", crictl),
    ("prometheus", "BERTH_PROMETHEUS", prometheus),
    ("cni", "BERTH_CNI", cni),
    ("etcd", "BERTH_ETCD", etcd),
    ("helm", "BERTH_HELM", helm),
    ("peers", "BERTH_PEERS", peers),
    ("kubernetes", "BERTH_KUBERNETES", kubernetes),
    ("images", "BERTH_IMAGES", images),
];

/// `cargo xtask tools`: makes the named ones, or all, and prints the environment for a test that is run by hand.
pub fn main(names: &[String]) -> Result {
    let known = FAMILIES.map(|(name, ..)| name).join(" ");
    if let Some(unknown) = names.iter().find(|n| !FAMILIES.iter().any(|(name, ..)| name == *n)) {
        return Err(format!("no tools {unknown:?}; there are: {known}"));
    }
    for (_, variable, make) in FAMILIES.iter().filter(|(name, ..)| names.is_empty() || names.iter().any(|n| n == name))
    {
        println!("{variable}={}", make()?.display());
    }
    Ok(())
}
