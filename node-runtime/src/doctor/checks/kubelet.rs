//! Kubelets: whether what they were told fits the daemon.
use super::network::unusable;
use crate::doctor::facts::{Facts, Kubelet};
use crate::doctor::finding::{Finding, KUBELET_CONFIG, KUBELET_ENDPOINT, KUBELET_IMAGES, KUBELET_PODS, KUBELET_RESOLV};

/// Pods of a node where the kubelet was told nothing (KubeletConfiguration v1beta1).
const MAX_PODS: u64 = 110;

pub(super) fn kubelet(facts: &Facts, found: &mut Vec<Finding>) {
    for kubelet in &facts.kubelets {
        one(facts, kubelet, found);
    }
}

fn one(facts: &Facts, kubelet: &Kubelet, found: &mut Vec<Finding>) {
    let pid = kubelet.pid;
    if let Some(problem) = &kubelet.problem {
        let file = kubelet.config.as_ref().map(|c| c.display().to_string()).unwrap_or_default();
        let what = format!("process {pid}, {file}: {problem}");
        found.push(KUBELET_CONFIG.found(what, format!("tr '\\0' ' ' < /proc/{pid}/cmdline; ls -l {file}")));
    }
    let socket = format!("unix://{}", facts.daemon.socket.display());
    let same = |one: &str, other: &str| Kubelet::socket(one) == Kubelet::socket(other);
    let endpoint = kubelet.setting("containerRuntimeEndpoint");
    if !endpoint.is_empty() && !same(endpoint, &socket) {
        let what =
            format!("the kubelet (process {pid}) has containerRuntimeEndpoint {endpoint}; this daemon is {socket}");
        found.push(
            KUBELET_ENDPOINT.found(what, format!("containerRuntimeEndpoint: {socket} in the kubelet's configuration")),
        );
    }
    let images = kubelet.setting("imageServiceEndpoint");
    if !images.is_empty() && !same(images, endpoint) {
        let what = format!("the kubelet (process {pid}) has imageServiceEndpoint {images} beside {endpoint}");
        found.push(KUBELET_IMAGES.found(what, "remove imageServiceEndpoint from the kubelet's configuration"));
    }
    let file = kubelet.setting("resolvConf");
    if !file.is_empty()
        && let Some(problem) = unusable(kubelet.resolv_conf.as_deref())
    {
        let what = format!("resolvConf {file} of the kubelet (process {pid}) {problem}");
        found.push(
            KUBELET_RESOLV.found(what, "resolvConf: /run/systemd/resolve/resolv.conf where systemd-resolved runs"),
        );
    }
    let pools = facts.daemon.told.as_ref().map(|t| t.address_pools.as_slice()).unwrap_or_default();
    let most = kubelet.setting("maxPods").parse().unwrap_or(MAX_PODS);
    if let Some(pool) = pools.iter().find(|p| p.size < most) {
        let what = format!(
            "the kubelet (process {pid}) allows {most} pods, there are {} {} addresses",
            pool.size, pool.family
        );
        found.push(KUBELET_PODS.found(
            what,
            format!("maxPods: {} in the kubelet's configuration, or a larger spec.network.subnet", pool.size),
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_proto::node::{AddressPool, DiagnoseResponse};

    fn facts(settings: &[(&str, &str)]) -> Facts {
        let mut facts = Facts::default();
        facts.daemon.socket = "/run/berth/berth.sock".into();
        let pool = AddressPool { family: "ipv4".into(), size: 110, used: 0 };
        facts.daemon.told = Some(DiagnoseResponse { address_pools: vec![pool], ..Default::default() });
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        facts.kubelets =
            vec![Kubelet { pid: 7, settings, resolv_conf: Some(vec!["10.0.0.1".into()]), ..Kubelet::default() }];
        facts
    }

    fn ids(facts: &Facts) -> Vec<&'static str> {
        let mut found = Vec::new();
        kubelet(facts, &mut found);
        found.iter().map(|f| f.id).collect()
    }

    #[test]
    fn each_trouble_is_told() {
        let ours = ("containerRuntimeEndpoint", "unix:///run/berth/berth.sock");
        assert_eq!(ids(&facts(&[ours, ("resolvConf", "/etc/resolv.conf")])), [""; 0]);
        assert_eq!(ids(&facts(&[("containerRuntimeEndpoint", "/run/berth/berth.sock")])), [""; 0]);
        let other = ("containerRuntimeEndpoint", "unix:///run/containerd/containerd.sock");
        assert_eq!(ids(&facts(&[other])), ["kubelet-endpoint"]);
        assert_eq!(ids(&facts(&[ours, ("imageServiceEndpoint", "unix:///x")])), ["kubelet-image-endpoint"]);
        assert_eq!(ids(&facts(&[ours, ("imageServiceEndpoint", "/run/berth/berth.sock")])), [""; 0]);
        assert_eq!(ids(&facts(&[ours, ("maxPods", "250")])), ["kubelet-max-pods"]);
        let mut broken = facts(&[ours, ("resolvConf", "/gone")]);
        broken.kubelets[0].resolv_conf = None;
        broken.kubelets[0].problem = Some("No such file".into());
        assert_eq!(ids(&broken), ["kubelet-config", "kubelet-resolv-conf"]);
    }
}
