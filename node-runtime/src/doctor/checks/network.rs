//! The network: the pods', the node's beneath it, and CNI.
use super::percent;
use crate::doctor::facts::{Cni, Facts};
use crate::doctor::finding::{
    CNI_BROKEN, CNI_CONFIG, CNI_DELETE, CNI_PLUGIN, CNI_REFUSED, CONNTRACK_FULL, FORWARD_DROP, FORWARD_OFF, Finding,
    MTU_HIGH, NETWORK_NOT_READY, RESOLV_CONF,
};
use berth_proto::node::CniState;

pub(super) fn network(facts: &Facts, found: &mut Vec<Finding>) {
    let network = &facts.network;
    if let Some(told) = &facts.daemon.told {
        for condition in told.conditions.iter().filter(|c| c.kind == "NetworkReady" && !c.ok) {
            found.push(NETWORK_NOT_READY.found(condition.message.clone(), mend(facts)));
        }
    }
    if network.forward == Some(false) {
        found.push(
            FORWARD_OFF.found(
                "net.ipv4.ip_forward is 0",
                "sysctl -w net.ipv4.ip_forward=1; see /etc/sysctl.d for who resets it",
            ),
        );
    }
    for firewall in facts.daemon.told.iter().flat_map(|t| &t.firewalls) {
        let (what, fix) =
            firewall.rsplit_once("; run: ").unwrap_or((firewall.as_str(), "let the pods' subnet pass there"));
        found.push(FORWARD_DROP.found(what, fix));
    }
    if let (Some(bridge), Some((name, uplink))) = (network.bridge_mtu, &network.uplink)
        && bridge > *uplink
    {
        let what = format!("the pods' MTU is {bridge}, that of {name} is {uplink}");
        found.push(MTU_HIGH.found(what, format!("spec.network.mtu: {uplink} in a RuntimeConfig")));
    }
    if let Some(problem) = unusable(network.resolv_conf.as_deref()) {
        found.push(
            RESOLV_CONF
                .found(format!("/etc/resolv.conf {problem}"), "name a server there, or set the kubelet's resolvConf"),
        );
    }
    if let Some((used, limit)) = facts.limits.conntrack.filter(|(used, limit)| percent(*used, *limit) >= 90) {
        let what = format!("{used} of {limit} connections are tracked");
        found.push(
            CONNTRACK_FULL.found(what, format!("sysctl -w net.netfilter.nf_conntrack_max={}", limit.saturating_mul(4))),
        );
    }
    if let Some(cni) = &network.cni {
        self::cni(cni, found);
    }
    if let Some(state) = facts.daemon.told.as_ref().and_then(|told| told.cni.as_ref()) {
        told_of_cni(state, found);
    }
}

/// What the daemon's CNI client has met with.
fn told_of_cni(state: &CniState, found: &mut Vec<Finding>) {
    for refused in &state.refused {
        found.push(CNI_REFUSED.found(refused.clone(), "mend the file, or remove it; it is read again at once"));
    }
    for pod in &state.pending {
        let what = format!("pod {}: DEL failed {} times: {}", short(&pod.pod_id), pod.failures, pod.problem);
        let fix = "mend what the plugin names: DEL is tried at least once a minute until it succeeds; \
                   docs/formats/cni-attachment.md says how to give one up";
        found.push(CNI_DELETE.found(what, fix));
    }
    for pod in &state.broken {
        let what = format!("pod {}: {}", short(&pod.pod_id), pod.problem);
        found.push(
            CNI_BROKEN
                .found(what, format!("delete the pod, so that it is made anew: berth rm -f {}", short(&pod.pod_id))),
        );
    }
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

fn mend(facts: &Facts) -> String {
    match facts.network.cni {
        Some(_) => "ls /etc/cni/net.d; the network add-on's own log says what it waits for".to_owned(),
        None if facts.daemon.flags.is_empty() => {
            "systemctl restart berth: it makes the network anew, and pods live on".to_owned()
        }
        None => "start the daemon of this root anew: it makes the network anew, and pods live on".to_owned(),
    }
}

fn cni(cni: &Cni, found: &mut Vec<Finding>) {
    if cni.configs.is_empty() {
        let what = format!("{} has no *.conflist, *.conf or *.json", cni.config_dir.display());
        found.push(
            CNI_CONFIG
                .found(what, "install a network add-on; or set spec.network.mode: Builtin and restart the daemon"),
        );
    }
    if !cni.missing.is_empty() {
        let dirs: Vec<String> = cni.bin_dirs.iter().map(|d| d.display().to_string()).collect();
        let what = format!("{} in none of {}", cni.missing.join(", "), dirs.join(", "));
        found.push(
            CNI_PLUGIN.found(what, "apt-get install containernetworking-plugins, or what the network add-on brings"),
        );
    }
}

/// What is wrong with a resolv.conf, if anything: `None` stands for a file that cannot be read.
pub(super) fn unusable(servers: Option<&[String]>) -> Option<String> {
    let Some(servers) = servers else { return Some("cannot be read".to_owned()) };
    if servers.is_empty() {
        return Some("names no server".to_owned());
    }
    // A pod's loopback is its own: what listens on the node's cannot be reached from there.
    let loopback = servers.iter().all(|s| s.starts_with("127.") || s == "::1");
    loopback.then(|| format!("names only {}, which pods cannot reach", servers.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_proto::node::{CniTrouble, DiagnoseResponse, NodeCondition};

    fn sound() -> Facts {
        let mut facts = Facts::default();
        facts.network.forward = Some(true);
        facts.network.resolv_conf = Some(vec!["10.0.0.1".into()]);
        facts.network.bridge_mtu = Some(1500);
        facts.network.uplink = Some(("eth0".into(), 1500));
        facts
    }

    fn ids(facts: &Facts) -> Vec<&'static str> {
        let mut found = Vec::new();
        network(facts, &mut found);
        found.iter().map(|f| f.id).collect()
    }

    #[test]
    fn each_trouble_is_told() {
        assert_eq!(ids(&sound()), [""; 0]);
        let mut facts = sound();
        facts.network.forward = Some(false);
        facts.network.uplink = Some(("eth0".into(), 1400));
        facts.network.resolv_conf = None;
        facts.limits.conntrack = Some((95, 100));
        facts.network.cni = Some(Cni { missing: vec!["bridge".into()], ..Cni::default() });
        let condition = NodeCondition { kind: "NetworkReady".into(), ok: false, ..Default::default() };
        let firewalls = vec!["nftables chain ip x y drops what pods send: its policy is drop; run: nft insert".into()];
        let trouble = || vec![CniTrouble { pod_id: "ab".repeat(32), problem: "no".into(), failures: 2 }];
        let refused = vec!["10-a.conflist: name: is missing".to_owned()];
        let cni = CniState { refused, pending: trouble(), broken: trouble(), ..Default::default() };
        facts.daemon.told =
            Some(DiagnoseResponse { conditions: vec![condition], firewalls, cni: Some(cni), ..Default::default() });
        let all = [
            "network-not-ready",
            "forwarding-off",
            "forward-drop",
            "mtu-high",
            "resolv-conf",
            "conntrack-full",
            "cni-config-missing",
            "cni-plugin-missing",
            "cni-config-refused",
            "cni-delete-failed",
            "cni-check-failed",
        ];
        assert_eq!(ids(&facts), all);
        let mut found = Vec::new();
        network(&facts, &mut found);
        let told = found.iter().find(|f| f.id == "forward-drop").unwrap();
        assert!(told.what.ends_with("its policy is drop") && told.fix == "nft insert", "{told:?}");
    }

    #[test]
    fn servers_must_be_reachable_from_pods() {
        let servers = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        assert!(unusable(Some(&servers(&["127.0.0.53"]))).is_some());
        assert!(unusable(Some(&[])).is_some());
        assert!(unusable(Some(&servers(&["127.0.0.53", "10.0.0.1"]))).is_none());
    }
}
