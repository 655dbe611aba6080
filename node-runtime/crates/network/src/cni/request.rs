//! A pod's configuration to what plugins are told of it: CNI_ARGS and capability arguments (CONVENTIONS.md of the
//! specification's repository). Pure.
//! Must not: know which plugin wants what.
use super::call::Target;
use super::config::NetworkConfig;
use crate::{Bandwidth, Mac};
use berth_model::{Error, PodConfig, PodId, PortMapping, Protocol, Result};
use ipnet::IpNet;
use serde_json::{Map, Value, json};
use std::path::Path;

/// Addresses: a pod may ask for them where the configuration's author allows it, by declaring the capability.
const IPS: &str = "cni.berth.dev/ips";
/// A token bucket's depth in bits: as good as none, as containerd has it (pkg/cri, toCNIBandWidth).
const BURST: u64 = i32::MAX as u64;
/// Most addresses that a pod may ask for.
const MAX_IPS: usize = 16;

/// The interface that the kubelet and its pods expect.
pub(super) const INTERFACE: &str = "eth0";

/// The target of a pod's calls. Errors: `InvalidArgument` naming the field or annotation.
pub(super) fn target(
    pod: &PodId,
    netns: &Path,
    config: &PodConfig,
    network: &NetworkConfig,
    pod_cidrs: &[IpNet],
) -> Result<Target> {
    Ok(Target {
        container: pod.to_string(),
        netns: netns.to_string_lossy().into_owned(),
        interface: INTERFACE.to_owned(),
        args: args(pod, config)?,
        capabilities: capabilities(config, network, pod_cidrs)?,
    })
}

fn args(pod: &PodId, config: &PodConfig) -> Result<String> {
    let metadata = &config.metadata;
    let all = [
        ("K8S_POD_NAMESPACE", "metadata.namespace", metadata.namespace.as_str()),
        ("K8S_POD_NAME", "metadata.name", metadata.name.as_str()),
        ("K8S_POD_INFRA_CONTAINER_ID", "id", pod.as_str()),
        ("K8S_POD_UID", "metadata.uid", metadata.uid.as_str()),
    ];
    let mut args = "IgnoreUnknown=1".to_owned();
    for (key, field, value) in all {
        if value.contains([';', '=']) || value.chars().any(char::is_control) {
            let problem = format!("{value:?} cannot be told to CNI plugins: it has ';', '=' or a control character");
            return Err(Error::invalid(field, problem));
        }
        args.push_str(&format!(";{key}={value}"));
    }
    Ok(args)
}

/// Everything that could be asked for; each plugin gets what it declares. What no plugin declares is not even checked.
fn capabilities(config: &PodConfig, network: &NetworkConfig, pod_cidrs: &[IpNet]) -> Result<Map<String, Value>> {
    let mut all = Map::new();
    let mut put = |name: &str, value: Value| all.insert(name.to_owned(), value);
    if network.wants("portMappings") && !config.ports.is_empty() {
        put("portMappings", config.ports.iter().map(port).collect());
    }
    if network.wants("bandwidth")
        && let Some(rates) = bandwidth(config)?
    {
        put("bandwidth", rates);
    }
    let dns = &config.dns;
    if network.wants("dns") && !(dns.servers.is_empty() && dns.searches.is_empty() && dns.options.is_empty()) {
        put("dns", json!({ "servers": dns.servers, "searches": dns.searches, "options": dns.options }));
    }
    if network.wants("ipRanges") && !pod_cidrs.is_empty() {
        // One set for each family: a pod gets an address of each.
        put("ipRanges", pod_cidrs.iter().map(|net| json!([{ "subnet": net.to_string() }])).collect());
    }
    if network.wants("cgroupPath") && !config.cgroup_parent.is_empty() {
        put("cgroupPath", config.cgroup_parent.clone().into());
    }
    if network.wants("mac")
        && let Some(mac) = Mac::from_annotations(&config.annotations)?
    {
        put("mac", mac.to_string().into());
    }
    if network.wants("ips")
        && let Some(text) = config.annotations.get(IPS)
    {
        put("ips", ips(text)?);
    }
    Ok(all)
}

fn port(mapping: &PortMapping) -> Value {
    let protocol = match mapping.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    };
    let host_ip = mapping.host_ip.map(|ip| ip.to_string()).unwrap_or_default();
    json!({
        "hostPort": mapping.host_port, "containerPort": mapping.container_port, "protocol": protocol, "hostIP": host_ip,
    })
}

fn bandwidth(config: &PodConfig) -> Result<Option<Value>> {
    let wish = Bandwidth::from_annotations(&config.annotations)?;
    let mut rates = Map::new();
    for (rate, name) in [(wish.ingress, "ingress"), (wish.egress, "egress")] {
        if let Some(rate) = rate {
            rates.insert(format!("{name}Rate"), rate.into());
            rates.insert(format!("{name}Burst"), BURST.into());
        }
    }
    Ok((!rates.is_empty()).then_some(Value::Object(rates)))
}

fn ips(text: &str) -> Result<Value> {
    let mut all = Vec::new();
    for part in text.split(',').map(str::trim) {
        let good = part.parse::<IpNet>().is_ok() || part.parse::<std::net::IpAddr>().is_ok();
        if !good || all.len() == MAX_IPS {
            let shown: String = part.chars().take(48).collect();
            let problem = format!("{shown:?}: must be at most {MAX_IPS} addresses, with or without a prefix");
            return Err(Error::invalid(format!("annotation {IPS}"), problem));
        }
        all.push(Value::String(part.to_owned()));
    }
    Ok(Value::Array(all))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::config::Form;

    fn network(capabilities: &str) -> NetworkConfig {
        let text =
            format!(r#"{{"cniVersion": "1.0.0", "name": "n", "type": "x", "capabilities": {{{capabilities}}}}}"#);
        NetworkConfig::parse(text.as_bytes(), Form::Single).unwrap()
    }

    fn pod() -> PodConfig {
        let mut config = PodConfig::default();
        config.metadata.name = "web".into();
        config.metadata.namespace = "shop".into();
        config.metadata.uid = "u1".into();
        config.ports.push(PortMapping {
            protocol: Protocol::Udp,
            container_port: 53,
            host_port: 5353,
            host_ip: Some("127.0.0.1".parse().unwrap()),
        });
        config
    }

    fn told(config: &PodConfig, capabilities: &str) -> Result<Target> {
        let id = PodId::from_random([7; 32]);
        let cidrs = ["10.1.0.0/24".parse().unwrap(), "fd00:1::/64".parse().unwrap()];
        target(&id, Path::new("/run/ns/net"), config, &network(capabilities), &cidrs)
    }

    #[test]
    fn what_the_kubelet_asks_for_is_told_as_plugins_know_it() {
        let mut config = pod();
        config.annotations.insert("kubernetes.io/ingress-bandwidth".into(), "10M".into());
        config.dns.servers.push("10.96.0.10".into());
        let all = r#""portMappings": true, "bandwidth": true, "dns": true, "ipRanges": true"#;
        let target = told(&config, all).unwrap();
        assert!(target.args.starts_with("IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;"));
        assert!(target.args.ends_with(";K8S_POD_UID=u1"));
        let expected = json!({
            "portMappings": [{"hostPort": 5353, "containerPort": 53, "protocol": "udp", "hostIP": "127.0.0.1"}],
            "bandwidth": {"ingressRate": 10_000_000, "ingressBurst": 2_147_483_647},
            "dns": {"servers": ["10.96.0.10"], "searches": [], "options": []},
            "ipRanges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]],
        });
        assert_eq!(Value::Object(target.capabilities), expected);
        assert!(told(&config, "").unwrap().capabilities.is_empty(), "nothing that nobody declares");
    }

    #[test]
    fn annotations_count_where_the_configuration_allows_them() {
        let mut config = pod();
        config.annotations.insert("cni.berth.dev/mac".into(), "02:00:00:00:00:0A".into());
        config.annotations.insert(IPS.into(), "10.1.0.9/24, fd00::9".into());
        let target = told(&config, r#""mac": true, "ips": true"#).unwrap();
        assert_eq!(target.capabilities["mac"], "02:00:00:00:00:0a");
        assert_eq!(target.capabilities["ips"], json!(["10.1.0.9/24", "fd00::9"]));
        config.annotations.insert("cni.berth.dev/mac".into(), "02:00".into());
        assert!(told(&config, "").is_ok());
        assert!(
            told(&config, r#""mac": true"#).unwrap_err().message().starts_with("annotations[\"cni.berth.dev/mac\"]")
        );
    }

    #[test]
    fn nothing_can_be_smuggled_into_the_arguments() {
        let mut config = pod();
        config.metadata.name = "a;K8S_POD_NAMESPACE=kube-system".into();
        assert!(told(&config, "").unwrap_err().message().starts_with("metadata.name:"));
    }
}
