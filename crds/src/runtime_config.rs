//! RuntimeConfig: how nodes run containers.
use crate::kubelet::Kubelet;
use crate::metadata::ObjectMeta;
use crate::profile::{DefaultProfiles, SecurityProfile};
use crate::registry::{Credentials, Proxy, RegistryHost, Transfer};
use crate::rollout::{Adopt, Rollout};
use crate::selector::LabelSelector;
use crate::sockets::Sockets;
#[cfg(feature = "kube")]
use crate::status::RuntimeConfigStatus;
use crate::storage::{Images, Storage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How nodes run containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuntimeConfig {
    /// `berth.dev/v1alpha1`.
    pub api_version: String,
    /// `RuntimeConfig`.
    pub kind: String,
    /// Name and labels.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: RuntimeConfigSpec,
}

/// What is wanted of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "kube", derive(kube::CustomResource))]
#[cfg_attr(
    feature = "kube",
    kube(
        group = "berth.dev",
        version = "v1alpha1",
        kind = "RuntimeConfig",
        root = "RuntimeConfigObject",
        plural = "runtimeconfigs",
        shortname = "rtc",
        category = "berth",
        status = "RuntimeConfigStatus",
        derive = "PartialEq",
        doc = "How nodes run containers. Several may select a node: they are merged by priority, field by field.",
        printcolumn(name = "State", type_ = "string", json_path = ".spec.state"),
        printcolumn(name = "Priority", type_ = "integer", json_path = ".spec.priority"),
        printcolumn(name = "Target", type_ = "string", json_path = ".status.targetRevision"),
        printcolumn(name = "Updated", type_ = "string", json_path = ".status.summary"),
        printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
        printcolumn(name = "Degraded", type_ = "integer", json_path = ".status.nodes.degraded"),
        printcolumn(name = "Wave", type_ = "integer", json_path = ".status.wave.index"),
        printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
        printcolumn(name = "Good", type_ = "string", json_path = ".status.lastKnownGood", priority = 1),
        printcolumn(name = "Disruption", type_ = "string", json_path = ".status.disruption.class", priority = 1),
        printcolumn(
            name = "Message",
            type_ = "string",
            json_path = ".status.conditions[?(@.type==\"Ready\")].message",
            priority = 1
        )
    )
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuntimeConfigSpec {
    /// What happens with the nodes of a cluster; default `Managed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// Which nodes of a cluster this is about, by their labels; unset is none of them, `{}` is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelector>,
    /// Of two documents that set one field, the one with the higher priority wins; 0 to 1000, default 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u16>,
    /// How changes reach the nodes of a cluster.
    #[serde(default)]
    pub rollout: Rollout,
    /// How nodes of a cluster are taken over from another runtime.
    #[serde(default)]
    pub adopt: Adopt,
    /// The runtime itself.
    #[serde(default)]
    pub runtime: Runtime,
    /// Registries, by host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub registries: Vec<RegistryHost>,
    /// Where the node's own registry credentials come from.
    #[serde(default)]
    pub credentials: Credentials,
    /// Proxies between the node and registries; unset is what the daemon's environment says.
    #[serde(default)]
    pub proxy: Proxy,
    /// How image content is fetched.
    #[serde(default)]
    pub transfer: Transfer,
    /// Seccomp and AppArmor profiles for pods, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<SecurityProfile>,
    /// The pod network.
    #[serde(default)]
    pub network: Network,
    /// Metrics.
    #[serde(default)]
    pub metrics: Metrics,
    /// Images of the node.
    #[serde(default)]
    pub images: Images,
    /// The kubelet of a cluster's node.
    #[serde(default)]
    pub kubelet: Kubelet,
}

/// What happens with a node of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum State {
    /// Its pods run on Berth, with these settings.
    Managed,
    /// It is given back to the runtime that it had before.
    Absent,
}

/// Settings of the runtime.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Runtime {
    /// Version that the nodes of a cluster run, such as `0.1.0`; unset is that of the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// How much the daemon logs; default `Info`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_level: Option<LogLevel>,
    /// Most processes of a container, 20 to 4194304; unset is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids_limit: Option<u64>,
    /// Who makes cgroups; unset is systemd where it is pid 1 of a cgroup v2 node, else the daemon itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup_manager: Option<CgroupManager>,
    /// What the profile RuntimeDefault means.
    #[serde(default)]
    pub default_profiles: DefaultProfiles,
    /// Limits on images.
    #[serde(default)]
    pub limits: Limits,
    /// Exec, attach and port-forward sessions.
    #[serde(default)]
    pub streaming: Streaming,
    /// The disk of images and writable layers.
    #[serde(default)]
    pub storage: Storage,
    /// Sockets besides the daemon's own two.
    #[serde(default)]
    pub sockets: Sockets,
}

/// The server of exec, attach and port-forward sessions. The kubelet connects to it from the same node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Streaming {
    /// Address, or address and port, to listen on; default `127.0.0.1` with a free port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bind: Option<String>,
    /// How long the URL of a session is good, 1s to 10m; default `60s`.
    #[serde(default, rename = "tokenTTL", skip_serializing_if = "Option::is_none")]
    pub token_ttl: Option<String>,
    /// File with the server's certificate chain in PEM; with it the server speaks TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_cert_file: Option<String>,
    /// File with the certificate's private key in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_key_file: Option<String>,
}

/// Seconds of a duration like `90s`, `2m` or `1h30m`: whole numbers of hours, minutes and seconds, each at most once and in that order.
/// It is what Go's `time.ParseDuration` reads, without fractions, signs and smaller units. `None` for anything else.
pub fn seconds(text: &str) -> Option<u64> {
    let mut units = [('h', 3600), ('m', 60), ('s', 1)].into_iter();
    let (mut rest, mut total) = (text, None);
    while !rest.is_empty() {
        let (digits, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let unit = after.chars().next()?;
        // Those that are passed over are gone.
        let (_, factor) = units.find(|(name, _)| *name == unit)?;
        let part = digits.parse::<u64>().ok()?.checked_mul(factor)?;
        total = Some(total.unwrap_or(0_u64).checked_add(part)?);
        rest = after.strip_prefix(unit)?;
    }
    total
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn durations() {
        let good = [("60s", 60), ("2m", 120), ("0s", 0), ("1h", 3600), ("1h30m", 5400), ("1h0m1s", 3601)];
        for (text, is) in [&good[..], &[("1h30s", 3630), ("90m", 5400), ("1m90s", 150), ("007m", 420)]].concat() {
            assert_eq!(seconds(text), Some(is), "{text}");
        }
        let none = ["", "s", "60", "-1s", "+1s", "1.5h", "1d", "1H", "5ms", "1h m", " 1h", "1h ", "ßs", "é", "1é"];
        // Out of order, twice, unfinished, too much.
        let more = [
            "30m1h",
            "1s1m",
            "1h1h",
            "1h30",
            "hm",
            "9999999999999999999m",
            "5124095576030432h",
            "18446744073709551615s1s",
        ];
        for bad in [&none[..], &more].concat() {
            assert_eq!(seconds(bad), None, "{bad}");
        }
        assert_eq!(seconds("5124095576030431h"), Some(18_446_744_073_709_551_600));
        assert_eq!(seconds("5124095576030431h16s"), None);
    }
}

/// Log levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LogLevel {
    /// Errors only.
    Error,
    /// And warnings.
    Warn,
    /// And what happens.
    Info,
    /// And why.
    Debug,
    /// And every detail.
    Trace,
}

/// Who makes cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CgroupManager {
    /// systemd, by scopes.
    Systemd,
    /// The daemon, by files.
    Cgroupfs,
}

/// Limits on what a pull may bring; unset fields keep their defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// Longest manifest or index in bytes; default 4 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_manifest_bytes: Option<u64>,
    /// Most entries of an index, at most 1000, the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_index_entries: Option<u32>,
    /// Most layers of an image, at most 256, the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_layers: Option<u32>,
    /// Most bytes that one layer unpacks to; default 128 GiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_uncompressed_per_layer: Option<u64>,
    /// Most bytes that one image unpacks to; default 256 GiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_uncompressed_per_image: Option<u64>,
    /// Most times that a layer may grow by unpacking, looked at from 256 MiB on; default 1100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_compression_ratio: Option<u32>,
    /// Most entries of a layer; default 4,194,304.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tar_entries: Option<u64>,
}

/// The pod network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Network {
    /// `CNI` (default) or `Builtin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<NetworkMode>,
    /// Subnet of the built-in network, IPv4; unset is derived from the daemon's root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet: Option<String>,
    /// Families of the built-in network's addresses, the primary one first: `[IPv4]` (default), `[IPv4, IPv6]` or
    /// `[IPv6, IPv4]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_families: Option<Vec<IpFamily>>,
    /// IPv6 subnet of the built-in network; unset is one of unique local addresses that is derived from the daemon's root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet6: Option<String>,
    /// First IPv4 address of the subnet that pods get; unset is the one after the gateway's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range_start: Option<String>,
    /// Last IPv4 address of the subnet that pods get; unset is the subnet's last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range_end: Option<String>,
    /// MTU of the built-in network; unset is the bridge's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Where CNI plugins lie, and how long they may take.
    #[serde(default)]
    pub cni: Cni,
}

/// CNI plugins and their configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cni {
    /// Directory of network configurations (`*.conflist`, `*.conf`, `*.json`), of which the first valid one in name order counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conf_dir: Option<String>,
    /// Directories of plugins; of a plugin that lies in several, the first one counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bin_dirs: Option<Vec<String>>,
    /// How long all plugins of one attachment may take together, 1s to 30m. The kubelet waits four minutes for a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// A CNI configuration list (JSON) that the daemon writes as `10-berth.conflist` into `confDir`, and removes when this is unset.
    /// `$(podCIDR)`, `$(podCIDR4)` and `$(podCIDR6)` in its strings stand for what the kubelet tells;
    /// a string `$(podCIDRRanges)` becomes host-local's `ranges`, one `$(podCIDRRoutes)` default routes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conf_list: Option<String>,
    /// Most pods that are attached at a time, 1 to 1000; others wait their turn. Default 32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_parallel_adds: Option<u32>,
}

/// A family of addresses, by the name that Services have for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum IpFamily {
    /// IPv4.
    #[serde(rename = "IPv4")]
    V4,
    /// IPv6.
    #[serde(rename = "IPv6")]
    V6,
}

/// Who connects pods.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NetworkMode {
    /// CNI plugins.
    #[default]
    #[serde(rename = "CNI")]
    Cni,
    /// The built-in bridge.
    Builtin,
}

/// Metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metrics {
    /// Address to serve metrics on; default `127.0.0.1:9464`, with a root of its own a free port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}
