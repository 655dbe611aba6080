//! The table of RuntimeConfig's fields: path, class and default of each, and how it is read, merged and compared. The one place
//! to extend for a new field: merge, the difference of two settings and `berth config` follow from it.
//!
//! A field is added by (1) its type with a doc comment in `runtime_config.rs`, (2) one row here, (3) its rule in `rules.rs` and, for
//! the API server, in `crd/rules.rs`, if it has one. A field without a row does not compile; a row whose path is not the schema's
//! fails the test below.
//! Must not: do I/O, describe fields (their doc comments do).
use crate::kubelet::Kubelet;
use crate::merge::Layer;
use crate::profile::DefaultProfiles;
use crate::registry::{Credentials, Proxy, Transfer};
use crate::rollout::{Adopt, Drain, Rollout, Soak};
use crate::runtime_config::{Cni, Limits, Metrics, Network, Runtime, RuntimeConfig, RuntimeConfigSpec, Streaming};
use crate::sockets::Sockets;
use crate::storage::{Images, Storage, StorageGc};
use berth_model::Result;
use serde::Serialize;
use serde_json::Value;
use std::fmt;

/// What it takes to apply a change, lightest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Class {
    /// At once.
    Live,
    /// For containers made from now on.
    NewContainers,
    /// For pods made from now on.
    NewPods,
    /// When the daemon starts next.
    DaemonRestart,
    /// When the kubelet starts next.
    KubeletRestart,
    /// When the node's pods are gone.
    Drain,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Live => "live",
            Self::NewContainers => "new containers",
            Self::NewPods => "new pods",
            Self::DaemonRestart => "daemon restart",
            Self::KubeletRestart => "kubelet restart",
            Self::Drain => "drain",
        })
    }
}

/// Who follows a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// The daemon, on every node.
    Node,
    /// The agent of a cluster's node.
    Agent,
    /// The operator of a cluster; it is no part of what a node gets.
    Operator,
}
use Audience::{Agent, Node, Operator};

/// What holds where no document says anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// This value, as JSON.
    Is(&'static str),
    /// No fixed value; said in words.
    Words(&'static str),
}
use Preset::{Is, Words};

/// One field.
pub struct Field {
    /// Path, such as `spec.runtime.logLevel`.
    pub path: &'static str,
    /// What a change takes.
    pub class: Class,
    /// Who follows it.
    pub audience: Audience,
    /// Without a document.
    pub default: Preset,
    get: fn(&RuntimeConfigSpec) -> Value,
    merge: fn(&mut Layer<'_, '_>) -> Result<()>,
}

impl Field {
    /// The value that documents have set.
    pub fn set(&self, spec: &RuntimeConfigSpec) -> Option<Value> {
        let value = (self.get)(spec);
        let empty = value.is_null()
            || value.as_array().is_some_and(Vec::is_empty)
            || value.as_object().is_some_and(serde_json::Map::is_empty);
        (!empty).then_some(value)
    }

    /// The value in force: the set one, or the default if it is a value.
    pub fn value(&self, spec: &RuntimeConfigSpec) -> Option<Value> {
        self.set(spec).or_else(|| match self.default {
            Is(json) => serde_json::from_str(json).ok(),
            Words(_) => None,
        })
    }

    pub(crate) fn merge(&self, layer: &mut Layer<'_, '_>) -> Result<()> {
        (self.merge)(layer)
    }
}

impl fmt::Debug for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.path, self.class)
    }
}

/// An entry of a list that is merged entry by entry: of two documents' entries with one key, the one with the higher priority wins.
pub(crate) trait Keyed {
    /// What the entry is about.
    fn key(&self) -> String;
}

impl Keyed for String {
    fn key(&self) -> String {
        self.clone()
    }
}

/// A value of which one may be more careful than another: that one counts where documents of equal priority contradict each other.
pub(crate) trait Careful: Sized {
    /// The more careful of two; `None` if neither is for certain.
    fn careful(&self, other: &Self) -> Option<Self>;
}

/// A pause: whoever asks for it gets it.
impl Careful for bool {
    fn careful(&self, other: &Self) -> Option<Self> {
        Some(*self || *other)
    }
}

fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

/// A member of a spec, by the place of its struct.
macro_rules! at {
    ($spec:expr, [$($place:ident).*], $field:ident) => { $spec.$($place.)*$field };
}

/// The rows of one struct. `scalar` is an `Option<T>` (the first document that sets it wins), `careful` one of [`Careful`], which the
/// operator alone follows, `list` a `Vec` of [`Keyed`], `map` fields that are merged one by one; `inside`
/// are members that are structs with rows of their own, and what is no setting or has its row elsewhere.
macro_rules! rows {
    ($name:ident: $type:ident at $path:literal = $place:tt, inside [$($inside:ident)*];
     $($kind:ident $field:ident $key:literal $class:ident $default:expr;)*) => {
        rows! { for Node, $name at $path = $place; $($kind $field $key $class $default;)* }
        rows! { all of $type, [$($field)* $($inside)*] }
    };
    // Rows of an audience. A struct for one audience alone has its members checked by `all of`.
    (for $audience:ident, $name:ident at $path:literal = $place:tt;
     $($kind:ident $field:ident $key:literal $class:ident $default:expr;)*) => {
        static $name: &[Field] = &[$(Field {
            path: concat!($path, ".", $key),
            class: Class::$class,
            audience: $audience,
            default: $default,
            get: |spec| json(&at!(spec, $place, $field)),
            merge: |layer| {
                let document: &RuntimeConfig = layer.document;
                let path = concat!($path, ".", $key);
                layer.$kind(path, &at!(document.spec, $place, $field), |spec| &mut at!(spec, $place, $field))
            },
        }),*];
    };
    // Destructured without `..`: a new field does not compile until it has a row.
    (all of $type:ident, [$($member:ident)*]) => { const _: fn($type) = |$type { $($member: _,)* }| (); };
}

rows! { SPEC: RuntimeConfigSpec at "spec" = [], inside [state node_selector priority rollout adopt runtime credentials proxy transfer network metrics images kubelet];
    list registries "registries" Live Is("[]");
    list profiles "profiles" NewContainers Is("[]");
}

rows! { RUNTIME: Runtime at "spec.runtime" = [runtime], inside [version default_profiles limits streaming storage sockets];
    scalar log_level "logLevel" Live Is("\"Info\"");
    scalar pids_limit "pidsLimit" NewContainers Words("no limit");
    scalar cgroup_manager "cgroupManager" Drain Words("Systemd where systemd is pid 1 of a cgroup v2 node, else Cgroupfs");
}

rows! { DEFAULT_PROFILES: DefaultProfiles at "spec.runtime.defaultProfiles" = [runtime.default_profiles], inside [];
    scalar seccomp "seccomp" NewContainers Words("the runtime's own profile");
    scalar app_armor "appArmor" NewContainers Words("the runtime's own profile, berth-default");
}

rows! { LIMITS: Limits at "spec.runtime.limits" = [runtime.limits], inside [];
    scalar max_manifest_bytes "maxManifestBytes" Live Is("4194304");
    scalar max_index_entries "maxIndexEntries" Live Is("1000");
    scalar max_layers "maxLayers" Live Is("256");
    scalar max_uncompressed_per_layer "maxUncompressedPerLayer" Live Is("137438953472");
    scalar max_uncompressed_per_image "maxUncompressedPerImage" Live Is("274877906944");
    scalar max_compression_ratio "maxCompressionRatio" Live Is("1100");
    scalar max_tar_entries "maxTarEntries" Live Is("4194304");
}

rows! { STREAMING: Streaming at "spec.runtime.streaming" = [runtime.streaming], inside [];
    scalar bind "bind" Live Words("127.0.0.1 with a free port");
    scalar token_ttl "tokenTTL" Live Is("\"60s\"");
    scalar tls_cert_file "tlsCertFile" Live Words("plain HTTP");
    scalar tls_key_file "tlsKeyFile" Live Words("plain HTTP");
}

rows! { CREDENTIALS: Credentials at "spec.credentials" = [credentials], inside [];
    scalar provider_config_file "providerConfigFile" Live Words("no providers");
    scalar provider_bin_dir "providerBinDir" Live Words("no providers");
    scalar provider_timeout "providerTimeout" Live Is("\"60s\"");
    scalar docker_config_file "dockerConfigFile" Live Words("config.json of $DOCKER_CONFIG; on the system's own root, else of root's .docker");
    list from_secret "fromSecret" Live Is("[]");
}

rows! { PROXY: Proxy at "spec.proxy" = [proxy], inside [];
    scalar http "http" Live Words("HTTP_PROXY of the daemon");
    scalar https "https" Live Words("HTTPS_PROXY of the daemon");
    scalar no_proxy "noProxy" Live Words("NO_PROXY of the daemon");
    scalar credentials_file "credentialsFile" Live Words("what stands in the variables");
}

rows! { TRANSFER: Transfer at "spec.transfer" = [transfer], inside [];
    scalar connections_per_blob "connectionsPerBlob" Live Is("4");
    scalar buffer_mebibytes "bufferMebibytes" Live Is("64");
    scalar attempts "attempts" Live Is("4");
    scalar stall_timeout "stallTimeout" Live Is("\"30s\"");
    scalar stall_bytes "stallBytes" Live Is("4096");
}

rows! { NETWORK: Network at "spec.network" = [network], inside [cni];
    scalar mode "mode" DaemonRestart Is("\"CNI\"");
    scalar subnet "subnet" DaemonRestart Words("derived from the daemon's root");
    scalar ip_families "ipFamilies" DaemonRestart Is("[\"IPv4\"]");
    scalar subnet6 "subnet6" DaemonRestart Words("derived from the daemon's root");
    scalar range_start "rangeStart" DaemonRestart Words("the address after the gateway's");
    scalar range_end "rangeEnd" DaemonRestart Words("the subnet's last");
    scalar mtu "mtu" NewPods Words("the bridge's own");
}

rows! { CNI: Cni at "spec.network.cni" = [network.cni], inside [];
    scalar conf_dir "confDir" Live Words("/etc/cni/net.d; with a root of its own ROOT/etc/cni/net.d");
    scalar bin_dirs "binDirs" Live Is("[\"/opt/cni/bin\", \"/usr/lib/cni\", \"/usr/libexec/cni\"]");
    scalar timeout "timeout" Live Is("\"180s\"");
    scalar conf_list "confList" Live Words("no file is written");
    scalar max_parallel_adds "maxParallelAdds" Live Is("32");
}

rows! { METRICS: Metrics at "spec.metrics" = [metrics], inside [];
    scalar address "address" Live Words("127.0.0.1:9464; with a root of its own 127.0.0.1 with a free port");
}

rows! { STORAGE: Storage at "spec.runtime.storage" = [runtime.storage], inside [gc];
    scalar directory "directory" DaemonRestart Words("lib/images in the daemon's root");
    scalar keep_compressed_layers "keepCompressedLayers" Live Is("true");
    scalar image_fs_quota "imageFsQuota" Live Words("no limit");
    scalar writable_layer_limit "writableLayerLimit" NewContainers Words("no limit");
}

rows! { GC: StorageGc at "spec.runtime.storage.gc" = [runtime.storage.gc], inside [];
    scalar high "high" Live Words("never");
    scalar low "low" Live Words("five less than high");
    scalar min_age "minAge" Live Is("\"2m\"");
}

rows! { SOCKETS: Sockets at "spec.runtime.sockets" = [runtime.sockets], inside [];
    list cri "cri" DaemonRestart Is("[]");
}

rows! { IMAGES: Images at "spec.images" = [images], inside [];
    list pinned "pinned" Live Is("[]");
    list prefetch "prefetch" Live Is("[]");
}

rows! { for Agent, STATE at "spec" = [];
    scalar state "state" Drain Is("\"Managed\"");
}

rows! { for Agent, VERSION at "spec.runtime" = [runtime];
    scalar version "version" DaemonRestart Words("that of the operator");
}

rows! { for Agent, ADOPT at "spec.adopt" = [adopt];
    scalar profile "profile" Live Is("\"Auto\"");
}
rows! { all of Adopt, [profile] }

rows! { for Agent, KUBELET at "spec.kubelet" = [kubelet];
    map config "config" KubeletRestart Is("{}");
}
rows! { all of Kubelet, [config] }

rows! { for Operator, ROLLOUT at "spec.rollout" = [rollout];
    careful paused "paused" Live Is("false");
    scalar waves "waves" Live Is("[1, \"5%\", \"25%\", \"100%\"]");
    careful max_unavailable "maxUnavailable" Live Is("1");
    careful max_in_flight "maxInFlight" Live Is("\"10%\"");
    careful max_failures "maxFailures" Live Is("\"5%\"");
    scalar on_failure "onFailure" Live Is("\"Rollback\"");
    scalar control_plane "controlPlane" Live Is("\"Exclude\"");
    scalar node_timeout "nodeTimeout" Live Is("\"15m\"");
}
rows! { all of Rollout, [paused waves max_unavailable max_in_flight max_failures on_failure control_plane node_timeout soak drain] }

rows! { for Operator, SOAK at "spec.rollout.soak" = [rollout.soak];
    scalar canary "canary" Live Is("\"10m\"");
    scalar wave "wave" Live Is("\"5m\"");
}
rows! { all of Soak, [canary wave] }

rows! { for Operator, DRAIN at "spec.rollout.drain" = [rollout.drain];
    scalar timeout "timeout" Live Is("\"30m\"");
    scalar retry_after "retryAfter" Live Is("\"15m\"");
    scalar force "force" Live Is("false");
    scalar delete_empty_dir "deleteEmptyDir" Live Is("false");
}
rows! { all of Drain, [timeout retry_after force delete_empty_dir] }

/// What only a cluster follows.
static CLUSTER: [&[Field]; 7] = [STATE, VERSION, ADOPT, KUBELET, ROLLOUT, SOAK, DRAIN];

/// All fields that a node follows by itself, in the order of the documents.
pub fn fields() -> impl Iterator<Item = &'static Field> {
    [
        SPEC,
        RUNTIME,
        DEFAULT_PROFILES,
        LIMITS,
        STREAMING,
        STORAGE,
        GC,
        SOCKETS,
        CREDENTIALS,
        PROXY,
        TRANSFER,
        NETWORK,
        CNI,
        METRICS,
        IMAGES,
    ]
    .into_iter()
    .flatten()
}

/// All fields: those of a node, then those that only a cluster follows.
pub fn all_fields() -> impl Iterator<Item = &'static Field> {
    fields().chain(CLUSTER.into_iter().flatten())
}

/// Paths of what a document says that only a cluster follows: a node accepts it and does nothing of it.
pub fn for_the_cluster(spec: &RuntimeConfigSpec) -> Vec<&'static str> {
    let selector = spec.node_selector.as_ref().map(|_| "spec.nodeSelector");
    let set = CLUSTER.into_iter().flatten().filter(|field| field.set(spec).is_some()).map(|field| field.path);
    selector.into_iter().chain(set).collect()
}

/// A field whose value differs between two effective configurations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldChange {
    /// Path.
    pub path: &'static str,
    /// What it takes.
    pub class: Class,
    /// Before; `None` is the default in words.
    pub old: Option<Value>,
    /// After.
    pub new: Option<Value>,
}

/// The fields whose values differ, in the order of the documents. A field that is set to its default does not differ from an unset one.
/// What only the operator follows is no part of it.
pub fn changes(old: &RuntimeConfigSpec, new: &RuntimeConfigSpec) -> Vec<FieldChange> {
    let pair = |field: &'static Field| (field, field.value(old), field.value(new));
    let differ = all_fields().filter(|field| field.audience != Operator).map(pair).filter(|(_, old, new)| old != new);
    differ.map(|(field, old, new)| FieldChange { path: field.path, class: field.class, old, new }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::describe::descriptions;
    use std::collections::BTreeSet;

    #[test]
    fn the_rows_are_the_fields_of_the_schema() {
        let rows: BTreeSet<String> = all_fields().map(|f| f.path.to_owned()).collect();
        assert_eq!(rows.len(), all_fields().count(), "a path stands twice");
        // What says which documents apply, and in which order, is no setting.
        let apart = ["spec.nodeSelector", "spec.priority"];
        // A map has one row; its fields are another program's.
        let map = "spec.kubelet.config";
        let whole =
            |d: &crate::Description| d.path == map || (!d.has_fields && !d.path.starts_with("spec.kubelet.config."));
        let of_types = descriptions().into_iter().filter(|d| whole(d) || (d.has_fields && d.kind.starts_with("list")));
        let setting = |p: &String| !p.contains("[]") && !apart.iter().any(|a| p.starts_with(a));
        let of_types = of_types.map(|d| d.path).filter(setting);
        assert_eq!(rows, of_types.collect(), "left: rows, right: types");
    }

    #[test]
    fn defaults_are_values_of_their_fields_types() {
        for field in all_fields() {
            if let Is(json) = field.default {
                let mut value: Value = serde_json::from_str(json).unwrap();
                for part in field.path.rsplit('.') {
                    value = serde_json::json!({ part: value });
                }
                let spec: RuntimeConfigSpec = serde_json::from_value(value["spec"].clone())
                    .unwrap_or_else(|e| panic!("the default of {} is none of its type: {e}", field.path));
                assert_eq!(field.value(&spec), field.value(&RuntimeConfigSpec::default()), "{}", field.path);
            }
        }
    }

    #[test]
    fn a_field_set_to_its_default_has_not_changed() {
        let spec = |json: &str| serde_json::from_str::<RuntimeConfigSpec>(json).unwrap();
        let none = spec("{}");
        assert_eq!(changes(&none, &spec(r#"{"runtime": {"logLevel": "Info"}}"#)), []);
        let found = changes(&none, &spec(r#"{"runtime": {"pidsLimit": 50}, "registries": [{"host": "a"}]}"#));
        let found: Vec<_> = found.iter().map(|c| (c.path, c.class)).collect();
        assert_eq!(found, [("spec.registries", Class::Live), ("spec.runtime.pidsLimit", Class::NewContainers)]);
    }
}
