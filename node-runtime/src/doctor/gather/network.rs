//! The network of the node: forwarding, MTUs, resolv.conf, CNI's directories.
use crate::doctor::facts::{Cni, Network};
use crate::layout::Layout;
use crate::node_files::text;
use crate::serve::wire;
use berth_proto::node::InfoResponse;
use berth_settings::{Revisions, RuntimeConfigSpec};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Most plugins of one configuration that are looked at.
const PLUGINS: usize = 64;

pub(super) fn gather(layout: &Layout, info: &InfoResponse) -> Network {
    let mtu = |name: &str| super::number(format!("/sys/class/net/{name}/mtu")).and_then(|m| u32::try_from(m).ok());
    let bridge = if info.bridge.is_empty() { layout.bridge() } else { info.bridge.clone() };
    let uplink = uplink().and_then(|name| mtu(&name).map(|mtu| (name, mtu)));
    Network {
        forward: text("/proc/sys/net/ipv4/ip_forward").map(|t| t.trim() == "1").filter(|_| !info.bridge.is_empty()),
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

/// CNI, unless the built-in network connects the pods.
fn cni(layout: &Layout, info: &InfoResponse) -> Option<Cni> {
    let etc =
        if info.documents_directory.is_empty() { layout.etc.as_path() } else { Path::new(&info.documents_directory) };
    // On a node of a cluster its revision counts, in the place of documents.
    let documents = berth_settings::next_start(etc, &wire::accepted(layout), Revisions::default()).ok();
    let by_documents = documents.as_ref().is_some_and(|s| s.network.mode == berth_settings::NetworkMode::Cni);
    let wanted =
        if info.network_mode.is_empty() { by_documents } else { info.network_mode.eq_ignore_ascii_case("cni") };
    let spec = documents.map(|s| s.spec).unwrap_or_default();
    wanted.then(|| look(&config_dir(layout, &spec), &bin_dirs(&spec)))
}

/// Where the daemon looks for configurations.
fn config_dir(layout: &Layout, spec: &RuntimeConfigSpec) -> PathBuf {
    spec.network.cni.conf_dir.as_ref().map_or_else(|| layout.cni_configurations(), PathBuf::from)
}

/// Where it looks for plugins. The default is that of the table of settings.
fn bin_dirs(spec: &RuntimeConfigSpec) -> Vec<PathBuf> {
    let field = berth_settings::fields().find(|f| f.path == "spec.network.cni.binDirs");
    let dirs = field.and_then(|f| f.value(spec)).and_then(|value| serde_json::from_value(value).ok());
    dirs.unwrap_or_default()
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

/// Types of the plugins that a configuration or a list of them names, and of those that give these their addresses; the first
/// file by name is in force.
fn plugins(file: &Path) -> Vec<String> {
    let value: Value = text(file).and_then(|t| serde_json::from_str(&t).ok()).unwrap_or_default();
    let all = value["plugins"].as_array().into_iter().flatten().chain([&value]);
    let types = all.flat_map(|plugin| [&plugin["type"], &plugin["ipam"]["type"]]).filter_map(Value::as_str);
    types.filter(|t| !t.is_empty()).take(PLUGINS).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_settings::Revision;
    use serde_json::json;

    #[test]
    fn plugins_without_a_program_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let (configs, programs) = (dir.path().join("net.d"), dir.path().join("bin"));
        assert!(look(&configs, &[]).configs.is_empty(), "no directory is no configuration");
        std::fs::create_dir_all(&configs).unwrap();
        std::fs::create_dir_all(&programs).unwrap();
        std::fs::write(programs.join("bridge"), "").unwrap();
        std::fs::write(configs.join("README"), "").unwrap();
        let bridge = json!({"type": "bridge", "ipam": {"type": "host-local"}});
        let list = json!({"plugins": [bridge, {"type": "portmap"}, {"type": "../sh", "ipam": {}}]});
        std::fs::write(configs.join("10-a.conflist"), list.to_string()).unwrap();
        let cni = look(&configs, &[programs]);
        assert_eq!((cni.configs.len(), cni.missing.join(" ").as_str()), (1, "host-local portmap ../sh"));
    }

    #[test]
    fn directories_are_those_of_the_documents_or_the_daemons() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(Some(dir.path())).unwrap();
        let mut spec = RuntimeConfigSpec::default();
        assert_eq!(config_dir(&layout, &spec), layout.etc.join("cni/net.d"));
        assert_eq!(bin_dirs(&spec), ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"].map(PathBuf::from));
        spec.network.cni.conf_dir = Some("/c".into());
        spec.network.cni.bin_dirs = Some(vec!["/b".into()]);
        assert_eq!(config_dir(&layout, &spec), Path::new("/c"));
        assert_eq!(bin_dirs(&spec), [PathBuf::from("/b")]);
    }

    #[test]
    fn on_a_node_of_a_cluster_the_directories_are_those_of_its_revision() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(Some(dir.path())).unwrap();
        let configs = dir.path().join("net.d");
        for dir in [&layout.lib, &configs] {
            std::fs::create_dir_all(dir).unwrap();
        }
        std::fs::write(configs.join("10-a.conflist"), "{}").unwrap();
        let told = InfoResponse { network_mode: "Cni".to_owned(), ..Default::default() };
        assert!(cni(&layout, &told).unwrap().configs.is_empty());
        let config = json!({"network": {"mode": "CNI", "cni": {"confDir": configs}}});
        let content = json!({"runtime": {"version": "0.1.0", "config": config}});
        let mut revision = Revision { name: String::new(), content: serde_json::from_value(content).unwrap() };
        revision.name = revision.content.name();
        berth_settings::hand_over(&wire::accepted(&layout), Revisions::of(revision)).unwrap();
        assert_eq!(cni(&layout, &told).unwrap().configs, [configs.join("10-a.conflist")]);
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
