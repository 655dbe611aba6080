//! What a plugin is told: its environment and the JSON on its stdin (CNI specification 1.1, sections 2 to 4). Pure.
//! Must not: run anything.
use super::config::{NetworkConfig, PluginConfig};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::PathBuf;

/// Where plugins look for the programs that they call themselves (iptables, nft, sysctl). Fixed: what the daemon was started
/// with is none of their business.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a plugin is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

impl Verb {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }
}

/// The attachment that a call is about.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Target {
    /// `CNI_CONTAINERID`: the pod's id.
    pub(super) container: String,
    /// `CNI_NETNS`; empty when the namespace is gone.
    pub(super) netns: String,
    /// `CNI_IFNAME`.
    pub(super) interface: String,
    /// `CNI_ARGS`.
    pub(super) args: String,
    /// Capability arguments, of which each plugin gets those that it declares.
    pub(super) capabilities: Map<String, Value>,
}

/// The whole environment of a plugin.
pub(super) fn environment(verb: Verb, target: Option<&Target>, bin_dirs: &[PathBuf]) -> Vec<(&'static str, String)> {
    let path: Vec<String> = bin_dirs.iter().map(|d| d.to_string_lossy().into_owned()).collect();
    let mut all =
        vec![("PATH", SEARCH_PATH.to_owned()), ("CNI_COMMAND", verb.name().to_owned()), ("CNI_PATH", path.join(":"))];
    // Plugins made before VERSION was specified want these for it too.
    let asked = Target { container: "version".into(), interface: "eth0".into(), ..Target::default() };
    let target = if verb == Verb::Version { Some(&asked) } else { target };
    if let Some(target) = target {
        all.push(("CNI_CONTAINERID", target.container.clone()));
        all.push(("CNI_NETNS", target.netns.clone()));
        all.push(("CNI_IFNAME", target.interface.clone()));
        all.push(("CNI_ARGS", target.args.clone()));
    }
    all
}

/// The configuration of one plugin in a call about an attachment.
pub(super) fn attachment_input(
    network: &NetworkConfig,
    plugin: &PluginConfig,
    target: &Target,
    previous: Option<&Map<String, Value>>,
) -> Value {
    let mut input = base(network, plugin);
    let wanted = |(name, _): &(&String, &Value)| plugin.capabilities.contains(*name);
    let runtime: Map<String, Value> =
        target.capabilities.iter().filter(wanted).map(|(name, value)| (name.clone(), value.clone())).collect();
    if !runtime.is_empty() {
        input.insert("runtimeConfig".to_owned(), Value::Object(runtime));
    }
    if let Some(previous) = previous {
        let mut previous = previous.clone();
        previous.insert("cniVersion".to_owned(), network.version.to_string().into());
        input.insert("prevResult".to_owned(), Value::Object(previous));
    }
    Value::Object(input)
}

/// The configuration of one plugin in a call about the whole network; `valid` are the attachments that GC keeps: container and
/// interface.
pub(super) fn network_input(
    network: &NetworkConfig,
    plugin: &PluginConfig,
    valid: Option<&[(String, String)]>,
) -> Value {
    let mut input = base(network, plugin);
    if let Some(valid) = valid {
        let list: Vec<Value> = valid
            .iter()
            .map(|(container, interface)| serde_json::json!({ "containerID": container, "ifname": interface }))
            .collect();
        // The second name is that of the specification's first print (cni#1101).
        for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
            input.insert(key.to_owned(), Value::Array(list.clone()));
        }
    }
    Value::Object(input)
}

/// A plugin's own keys, with name and version of the network; what only a runtime may say is taken out.
fn base(network: &NetworkConfig, plugin: &PluginConfig) -> Map<String, Value> {
    let mut input = plugin.raw.clone();
    for key in ["runtimeConfig", "prevResult", "cni.dev/valid-attachments", "cni.dev/attachments"] {
        input.remove(key);
    }
    input.remove("cniVersions");
    input.insert("name".to_owned(), network.name.clone().into());
    input.insert("cniVersion".to_owned(), network.version.to_string().into());
    input
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::config::Form;

    fn network() -> NetworkConfig {
        let text = r#"{"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "a", "prevResult": {"ips": 1}, "x": 1},
            {"type": "b", "capabilities": {"portMappings": true}}]}"#;
        NetworkConfig::parse(text.as_bytes(), Form::List).unwrap()
    }

    #[test]
    fn each_plugin_gets_what_it_declares() {
        let network = network();
        let mut target = Target { container: "c".into(), ..Target::default() };
        target.capabilities.insert("portMappings".into(), serde_json::json!([{"hostPort": 80}]));
        target.capabilities.insert("mac".into(), "00:11:22:33:44:55".into());
        let first = attachment_input(&network, &network.plugins[0], &target, None);
        assert_eq!(first, serde_json::json!({"cniVersion": "1.0.0", "name": "n", "type": "a", "x": 1}));
        let previous = serde_json::json!({"cniVersion": "0.4.0", "ips": [], "own": 1});
        let second = attachment_input(&network, &network.plugins[1], &target, previous.as_object());
        assert_eq!(second["runtimeConfig"], serde_json::json!({"portMappings": [{"hostPort": 80}]}));
        assert_eq!(second["prevResult"], serde_json::json!({"cniVersion": "1.0.0", "ips": [], "own": 1}));
    }

    #[test]
    fn a_call_about_the_network_names_what_stays() {
        let network = network();
        let input = network_input(&network, &network.plugins[0], Some(&[("c1".into(), "eth0".into())]));
        assert_eq!(input["cni.dev/valid-attachments"], serde_json::json!([{"containerID": "c1", "ifname": "eth0"}]));
        let names = |verb| environment(verb, None, &[]).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(Verb::Status), ["PATH", "CNI_COMMAND", "CNI_PATH"]);
        assert!(names(Verb::Version).contains(&"CNI_IFNAME"));
    }
}
