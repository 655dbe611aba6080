//! The network of the node: forwarding, other firewalls, MTUs, resolv.conf, CNI's directories.
use super::text;
use crate::doctor::facts::{Cni, Network};
use crate::layout::Layout;
use berth_proto::node::InfoResponse;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where CNI configurations and plugins lie (the CNI specification leaves it to the runtime; this is what all have).
const CNI_CONFIGS: &str = "/etc/cni/net.d";
const CNI_PROGRAMS: [&str; 2] = ["/opt/cni/bin", "/usr/lib/cni"];
/// Most plugins of one configuration that are looked at.
const PLUGINS: usize = 64;

pub(super) fn gather(layout: &Layout, info: &InfoResponse) -> Network {
    let mtu = |name: &str| super::number(format!("/sys/class/net/{name}/mtu")).and_then(|m| u32::try_from(m).ok());
    let bridge = if info.bridge.is_empty() { layout.bridge() } else { info.bridge.clone() };
    let uplink = uplink().and_then(|name| mtu(&name).map(|mtu| (name, mtu)));
    Network {
        forward: text("/proc/sys/net/ipv4/ip_forward").map(|t| t.trim() == "1").filter(|_| !info.bridge.is_empty()),
        drops: drops().unwrap_or_default(),
        bridge_mtu: mtu(&bridge),
        uplink,
        resolv_conf: servers(Path::new("/etc/resolv.conf")),
        cni: cni(layout, info),
    }
}

/// Interface of the default route (proc_net(5), route: destination and mask zero).
fn uplink() -> Option<String> {
    let table = text("/proc/net/route")?;
    let rows = table.lines().skip(1).map(|l| l.split_whitespace().collect::<Vec<_>>());
    let mut defaults = rows.filter(|r| r.len() > 7 && r[1] == "00000000" && r[7] == "00000000");
    defaults.next().map(|r| r[0].to_owned())
}

/// Servers that a resolv.conf names; `None` where it cannot be read.
pub(super) fn servers(file: &Path) -> Option<Vec<String>> {
    let text = text(file)?;
    let words = text.lines().filter_map(|l| l.trim().strip_prefix("nameserver")?.split_whitespace().next());
    Some(words.map(str::to_owned).collect())
}

/// Chains at the hook `forward` with the policy drop, where `nft` is there to tell. They are others': ours accept.
fn drops() -> Option<Vec<String>> {
    let mut nft = Command::new("nft");
    let output = nft.args(["-j", "list", "chains"]).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let value: Value = serde_json::from_slice(&output.stdout).ok()?;
    Some(dropping(&value))
}

fn dropping(value: &Value) -> Vec<String> {
    let all = value["nftables"].as_array().into_iter().flatten().map(|item| &item["chain"]);
    let drops = all.filter(|c| c["hook"] == "forward" && c["policy"] == "drop");
    let word = |chain: &Value, name: &str| chain[name].as_str().unwrap_or_default().to_owned();
    drops.map(|c| format!("{} {} {}", word(c, "family"), word(c, "table"), word(c, "name"))).collect()
}

/// CNI, unless the built-in network connects the pods.
fn cni(layout: &Layout, info: &InfoResponse) -> Option<Cni> {
    let documents = berth_settings::load(&layout.etc).ok();
    let by_documents = documents.as_ref().is_some_and(|s| s.network.mode == berth_settings::NetworkMode::Cni);
    let wanted =
        if info.network_mode.is_empty() { by_documents } else { info.network_mode.eq_ignore_ascii_case("cni") };
    wanted.then(|| look(Path::new(CNI_CONFIGS), &CNI_PROGRAMS.map(PathBuf::from)))
}

fn look(config_dir: &Path, bin_dirs: &[PathBuf]) -> Cni {
    let entries = std::fs::read_dir(config_dir).into_iter().flatten().flatten().map(|e| e.path());
    let is_config = |p: &PathBuf| p.extension().is_some_and(|e| e == "conf" || e == "conflist" || e == "json");
    let mut configs: Vec<PathBuf> = entries.filter(is_config).collect();
    configs.sort();
    let mut missing: Vec<String> = Vec::new();
    for plugin in configs.first().map(|c| plugins(c)).unwrap_or_default() {
        let there = bin_dirs.iter().any(|dir| !plugin.contains('/') && dir.join(&plugin).is_file());
        if !there && !missing.contains(&plugin) {
            missing.push(plugin);
        }
    }
    Cni { config_dir: config_dir.to_owned(), configs, missing, bin_dirs: bin_dirs.to_vec() }
}

/// Types of the plugins that a configuration or a list of them names; the first file by name is in force.
fn plugins(file: &Path) -> Vec<String> {
    let value: Value = text(file).and_then(|t| serde_json::from_str(&t).ok()).unwrap_or_default();
    let mut types: Vec<&Value> = value["plugins"].as_array().into_iter().flatten().map(|p| &p["type"]).collect();
    types.push(&value["type"]);
    if let Some(ipam) = value["ipam"]["type"].as_str().map(|_| &value["ipam"]["type"]) {
        types.push(ipam);
    }
    types.into_iter().filter_map(Value::as_str).take(PLUGINS).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn other_firewalls_that_drop_are_seen() {
        let value = json!({"nftables": [
            {"metainfo": {}},
            {"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"}},
            {"chain": {"family": "ip", "table": "filter", "name": "INPUT", "hook": "input", "policy": "drop"}},
            {"chain": {"family": "inet", "table": "x", "name": "f", "hook": "forward", "policy": "accept"}},
        ]});
        assert_eq!(dropping(&value), ["ip filter FORWARD"]);
        assert_eq!(dropping(&Value::Null), [""; 0]);
    }

    #[test]
    fn plugins_without_a_program_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let (configs, programs) = (dir.path().join("net.d"), dir.path().join("bin"));
        assert!(look(&configs, &[]).configs.is_empty(), "no directory is no configuration");
        std::fs::create_dir_all(&configs).unwrap();
        std::fs::create_dir_all(&programs).unwrap();
        std::fs::write(programs.join("bridge"), "").unwrap();
        std::fs::write(configs.join("README"), "").unwrap();
        let list = json!({"plugins": [{"type": "bridge"}, {"type": "portmap"}, {"type": "../sh"}]});
        std::fs::write(configs.join("10-a.conflist"), list.to_string()).unwrap();
        let cni = look(&configs, &[programs]);
        assert_eq!((cni.configs.len(), cni.missing), (1, vec!["portmap".to_owned(), "../sh".to_owned()]));
    }

    #[test]
    fn servers_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("resolv.conf");
        std::fs::write(&file, "# x\nnameserver 10.0.0.1\nsearch a\n nameserver  ::1 \n").unwrap();
        assert_eq!(servers(&file).unwrap(), ["10.0.0.1", "::1"]);
        assert_eq!(servers(Path::new("/nonexistent/x")), None);
    }
}
