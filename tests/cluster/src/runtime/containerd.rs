//! containerd 2.4 as its users configure it: overlayfs, runc, the CNI plugins bridge and portmap.
//!
//! Must not: be tuned for or against a comparison; what differs from the defaults is what this machine or the registry needs.
use super::POD_NETWORK;
use crate::service::Recipe;
use crate::space::NodeSpace;
use crate::{images, programs};
use serde_json::json;
use std::path::PathBuf;

/// The one place where the kubelet's cAdvisor looks for it.
const SOCKET: &str = "/run/containerd/containerd.sock";

/// How it is started, and its socket.
pub(super) fn prepare(space: &NodeSpace) -> (Recipe, PathBuf) {
    let dir = space.base().join("containerd");
    let (networks, hosts) = (dir.join("cni"), dir.join("certs.d"));
    std::fs::create_dir_all(&networks).unwrap();
    std::fs::create_dir_all(&hosts).unwrap();
    std::fs::write(networks.join("10-pods.conflist"), network().to_string()).unwrap();
    let peers = programs::path_from_env("BERTH_PEERS");
    let config = format!(
        r#"version = 3
root = "{dir}/root"
state = "/run/containerd"
[grpc]
address = "{SOCKET}"
[plugins.'io.containerd.cri.v1.images']
snapshotter = "overlayfs"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "{pause}"
[plugins.'io.containerd.cri.v1.images'.registry]
config_path = "{hosts}"
[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["{peers}"]
conf_dir = "{networks}"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
BinaryName = "{peers}/runc"
SystemdCgroup = false
"#,
        dir = dir.display(),
        pause = images::PAUSE,
        hosts = hosts.display(),
        peers = peers.display(),
        networks = networks.display(),
    );
    let file = dir.join("config.toml");
    std::fs::write(&file, config).unwrap();
    let mut recipe = Recipe::new("runtime", programs::peer("containerd")).arg("--config").arg(&file);
    // It finds its shim there.
    let path = std::env::var("PATH").unwrap_or_default();
    recipe.env.push(("PATH".into(), format!("{}:{path}", peers.display())));
    (recipe, PathBuf::from(SOCKET))
}

fn network() -> serde_json::Value {
    json!({
        "cniVersion": "1.0.0", "name": "pods",
        "plugins": [
            {
                "type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
                "ipMasq": true, "ipMasqBackend": "nftables",
                "ipam": {"type": "host-local", "ranges": [[{"subnet": POD_NETWORK}]], "routes": [{"dst": "0.0.0.0/0"}],
                    "dataDir": "/run/cni-addresses"},
            },
            {"type": "portmap", "capabilities": {"portMappings": true}, "backend": "nftables"},
        ],
    })
}
