//! The kubelet's part of a RuntimeConfig: fields of its own configuration, with a list of those that are not Berth's to set.
//!
//! Owns: the table of fields (KubeletConfiguration in kubelet.config.k8s.io/v1beta1, Kubernetes 1.37: k8s.io/kubelet, config/v1beta1/types.go)
//! and the rules that follow from it. Must not: know a running kubelet.
use berth_model::{Error, Result};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// Longest configuration, as JSON, in bytes.
pub const MAX_KUBELET_CONFIG: usize = 64 << 10;
const FIELD: &str = "spec.kubelet.config";

/// The kubelet of the node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Kubelet {
    /// Fields of the kubelet's configuration (`kubelet.config.k8s.io/v1beta1`), as they are named there. They are merged one by one,
    /// and become a drop-in of Berth's own in the kubelet's `--config-dir`; the kubelet is restarted for it, pods go on.
    #[serde(default, skip_serializing_if = "KubeletConfig::is_empty")]
    pub config: KubeletConfig,
}

/// Fields of the kubelet's configuration that are set, by name.
#[derive(Debug, Clone, Default)]
pub struct KubeletConfig(BTreeMap<String, Option<Value>>);

/// What stands in a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Switch,
    Integer,
    Number,
    Text,
    Texts,
    TextMap,
    Object,
    Objects,
}
use Kind::{Integer, Number, Object, Objects, Switch, Text, TextMap, Texts};

/// Fields that are no RuntimeConfig's to set, with the reason.
pub(crate) struct Denied {
    why: &'static str,
    fields: &'static [(&'static str, Kind)],
    /// In CEL: none of them is there.
    #[cfg_attr(not(feature = "kube"), allow(dead_code, reason = "the API server's definitions alone need it"))]
    pub(crate) rule: &'static str,
    /// What the API server says.
    #[cfg_attr(not(feature = "kube"), allow(dead_code, reason = "the API server's definitions alone need it"))]
    pub(crate) message: &'static str,
}

macro_rules! denied {
    ($why:literal: $($name:ident $kind:ident),* $(,)?) => {
        Denied {
            why: $why,
            fields: &[$((stringify!($name), $kind)),*],
            rule: concat!($("!has(self.", stringify!($name), ") && ",)* "true"),
            message: concat!("must not be set: ", $why, "; that is none of", $(" ", stringify!($name)),*),
        }
    };
}

/// The deny-list.
pub(crate) const DENIED: [Denied; 6] = [
    denied!("who may talk to the kubelet, and how, is the node's own":
        enableServer Switch, address Text, port Integer, readOnlyPort Integer, tlsCertFile Text, tlsPrivateKeyFile Text,
        tlsCipherSuites Texts, tlsCurvePreferences Objects, tlsMinVersion Text, rotateCertificates Switch, serverTLSBootstrap Switch,
        authentication Object, authorization Object, enableDebuggingHandlers Switch, enableProfilingHandler Switch,
        enableContentionProfiling Switch, enableDebugFlagsHandler Switch, enableSystemLogHandler Switch, enableSystemLogQuery Switch),
    denied!("kubelet and runtime must agree on it, and spec.runtime says it for both":
        containerRuntimeEndpoint Text, imageServiceEndpoint Text, cgroupDriver Text, cgroupRoot Text, cgroupsPerQOS Switch,
        kubeletCgroups Text, systemCgroups Text, podLogsDir Text, failCgroupV1 Switch),
    denied!("who the node is, and what it runs by itself, is the node's own":
        staticPodPath Text, staticPodURL Text, staticPodURLHeader Object, podCIDR Text, providerID Text, registerNode Switch,
        runOnce Switch, volumePluginDir Text),
    denied!("by it Berth proves that the kubelet is well": healthzPort Integer, healthzBindAddress Text),
    denied!("a gate can take away what the node needs, and is set in the kubelet's own files": featureGates Object),
    denied!("the kubelet remembers it in a file of state that a node with pods must not lose":
        cpuManagerPolicy Text, cpuManagerPolicyOptions TextMap, memoryManagerPolicy Text, reservedMemory Objects,
        reservedSystemCPUs Text, topologyManagerPolicy Text, topologyManagerScope Text, topologyManagerPolicyOptions TextMap),
];

/// Fields that may be set.
const FIELDS: &[(&str, Kind)] = &[
    ("allowedUnsafeSysctls", Texts),
    ("clusterDNS", Texts),
    ("clusterDomain", Text),
    ("configMapAndSecretChangeDetectionStrategy", Text),
    ("containerLogMaxFiles", Integer),
    ("containerLogMaxSize", Text),
    ("containerLogMaxWorkers", Integer),
    ("containerLogMonitorInterval", Text),
    ("contentType", Text),
    ("cpuCFSQuota", Switch),
    ("cpuCFSQuotaPeriod", Text),
    ("cpuManagerReconcilePeriod", Text),
    ("crashLoopBackOff", Object),
    ("defaultPodSysctls", TextMap),
    ("enableControllerAttachDetach", Switch),
    ("enforceNodeAllocatable", Texts),
    ("eventBurst", Integer),
    ("eventRecordQPS", Integer),
    ("evictionHard", TextMap),
    ("evictionMaxPodGracePeriod", Integer),
    ("evictionMinimumReclaim", TextMap),
    ("evictionPressureTransitionPeriod", Text),
    ("evictionSoft", TextMap),
    ("evictionSoftGracePeriod", TextMap),
    ("failSwapOn", Switch),
    ("fileCheckFrequency", Text),
    ("hairpinMode", Text),
    ("httpCheckFrequency", Text),
    ("imageGCHighThresholdPercent", Integer),
    ("imageGCLowThresholdPercent", Integer),
    ("imageMaximumGCAge", Text),
    ("imageMinimumGCAge", Text),
    ("imagePullCredentialsVerificationPolicy", Text),
    ("iptablesDropBit", Integer),
    ("iptablesMasqueradeBit", Integer),
    ("kernelMemcgNotification", Switch),
    ("kubeAPIBurst", Integer),
    ("kubeAPIQPS", Integer),
    ("kubeReserved", TextMap),
    ("kubeReservedCgroup", Text),
    ("localStorageCapacityIsolation", Switch),
    ("logging", Object),
    ("makeIPTablesUtilChains", Switch),
    ("maxOpenFiles", Integer),
    ("maxParallelImagePulls", Integer),
    ("maxPods", Integer),
    ("memoryReservationPolicy", Text),
    ("memorySwap", Object),
    ("memoryThrottlingFactor", Number),
    ("mergeDefaultEvictionSettings", Switch),
    ("nodeLeaseDurationSeconds", Integer),
    ("nodeStatusMaxImages", Integer),
    ("nodeStatusReportFrequency", Text),
    ("nodeStatusUpdateFrequency", Text),
    ("oomScoreAdj", Integer),
    ("podPidsLimit", Integer),
    ("podsPerCore", Integer),
    ("preloadedImagesVerificationAllowlist", Texts),
    ("protectKernelDefaults", Switch),
    ("qosReserved", TextMap),
    ("registerWithTaints", Objects),
    ("registryBurst", Integer),
    ("registryPullQPS", Integer),
    ("resolvConf", Text),
    ("runtimeRequestTimeout", Text),
    ("seccompDefault", Switch),
    ("serializeImagePulls", Switch),
    ("showHiddenMetricsForVersion", Text),
    ("shutdownGracePeriod", Text),
    ("shutdownGracePeriodByPodPriority", Objects),
    ("shutdownGracePeriodCriticalPods", Text),
    ("singleProcessOOMKill", Switch),
    ("streamingConnectionIdleTimeout", Text),
    ("syncFrequency", Text),
    ("systemReserved", TextMap),
    ("systemReservedCgroup", Text),
    ("tracing", Object),
    ("userNamespaces", Object),
    ("volumeStatsAggPeriod", Text),
];

/// All fields: name, kind and, if it must not be set, why.
fn table() -> impl Iterator<Item = (&'static str, Kind, Option<&'static str>)> {
    let denied =
        DENIED.iter().flat_map(|group| group.fields.iter().map(|(name, kind)| (*name, *kind, Some(group.why))));
    FIELDS.iter().map(|(name, kind)| (*name, *kind, None)).chain(denied)
}

/// Names of all fields of KubeletConfiguration, also of those that must not be set.
pub fn kubelet_fields() -> impl Iterator<Item = &'static str> {
    table().map(|(name, ..)| name)
}

/// Names of those that may be set.
pub fn settable_kubelet_fields() -> impl Iterator<Item = &'static str> {
    FIELDS.iter().map(|(name, _)| *name)
}

impl KubeletConfig {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        self.set().next().is_none()
    }

    /// What is set.
    pub fn fields(&self) -> Map<String, Value> {
        self.set().map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// Of fields by name. Errors: `InvalidArgument` naming a field that there is not, or what [`Self::check`] refuses.
    pub fn new(fields: Map<String, Value>) -> Result<Self> {
        let config = Self::deserialize(Value::Object(fields)).map_err(|e| Error::invalid(FIELD, e))?;
        config.check()?;
        Ok(config)
    }

    fn set(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.0.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)))
    }

    /// Names and values, for the merge.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&String, &Option<Value>)> {
        self.0.iter().filter(|(_, value)| value.is_some())
    }

    /// The place of a field, for the merge.
    pub(crate) fn slot(&mut self, name: &str) -> &mut Option<Value> {
        self.0.entry(name.to_owned()).or_default()
    }

    /// Errors: `InvalidArgument` naming a field that must not be set, or whose value is of another kind, or that all of it is too long.
    pub fn check(&self) -> Result<()> {
        for (name, value) in self.set() {
            let known = table().find(|(known, ..)| known == name);
            let Some((_, kind, denied)) = known else { return Err(Error::invalid(path(name), unknown(name))) };
            if let Some(why) = denied {
                return Err(Error::invalid(path(name), format!("must not be set: {why}")));
            }
            if !kind.holds(value) {
                return Err(Error::invalid(path(name), format!("must be {}", kind.words())));
            }
        }
        let length = serde_json::to_string(self).map_or(usize::MAX, |text| text.len());
        if length > MAX_KUBELET_CONFIG {
            return Err(Error::invalid(FIELD, format!("is {length} bytes long, the limit is {MAX_KUBELET_CONFIG}")));
        }
        Ok(())
    }
}

fn path(name: &str) -> String {
    format!("{FIELD}.{name}")
}

fn unknown(name: &str) -> String {
    format!("unknown field `{name}`: KubeletConfiguration of Kubernetes 1.37 has no field of that name")
}

/// What stands there counts, not where the merge has looked.
impl PartialEq for KubeletConfig {
    fn eq(&self, other: &Self) -> bool {
        self.set().eq(other.set())
    }
}

impl Eq for KubeletConfig {}

impl Serialize for KubeletConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in self.set() {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for KubeletConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(Fields)
    }
}

/// Reads them. `null` is a field that is not set, as elsewhere.
struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = KubeletConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fields of KubeletConfiguration")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<KubeletConfig, A::Error> {
        let mut fields = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if !kubelet_fields().any(|known| known == name) {
                return Err(A::Error::custom(unknown(&name)));
            }
            if let Some(value) = map.next_value::<Option<Value>>()? {
                fields.insert(name, Some(value));
            }
        }
        Ok(KubeletConfig(fields))
    }
}

impl Kind {
    fn holds(self, value: &Value) -> bool {
        let list = |of: fn(&Value) -> bool| value.as_array().is_some_and(|all| all.iter().all(of));
        match self {
            Switch => value.is_boolean(),
            Integer => value.is_i64() || value.is_u64(),
            Number => value.is_number(),
            Text => value.is_string(),
            Texts => list(Value::is_string),
            TextMap => value.as_object().is_some_and(|all| all.values().all(Value::is_string)),
            Object => value.is_object(),
            Objects => list(Value::is_object),
        }
    }

    fn words(self) -> &'static str {
        match self {
            Switch => "true or false (boolean)",
            Integer => "a whole number (integer)",
            Number => "a number",
            Text => "text (string)",
            Texts => "a list (array) of texts",
            TextMap => "fields (object) with texts",
            Object => "fields (object)",
            Objects => "a list (array) of objects",
        }
    }

    fn schema(self) -> Value {
        let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        match self {
            Switch => json!({"type": "boolean"}),
            Integer => json!({"type": "integer", "format": "int64"}),
            Number => json!({"type": "number"}),
            Text => json!({"type": "string"}),
            Texts => json!({"type": "array", "items": {"type": "string"}}),
            TextMap => json!({"type": "object", "additionalProperties": {"type": "string"}}),
            Object => open,
            Objects => json!({"type": "array", "items": open}),
        }
    }
}

impl JsonSchema for KubeletConfig {
    fn schema_name() -> Cow<'static, str> {
        "KubeletConfig".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let properties = table().map(|(name, kind, denied)| {
            let mut schema = kind.schema();
            schema["description"] = match denied {
                None => format!("The kubelet's `{name}`.").into(),
                Some(why) => format!("Must not be set: {why}.").into(),
            };
            (name.to_owned(), schema)
        });
        let properties: Map<String, Value> = properties.collect();
        json_schema!({"type": "object", "properties": properties})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn config(json: Value) -> Result<KubeletConfig> {
        KubeletConfig::new(json.as_object().unwrap().clone())
    }

    fn refused(json: Value) -> String {
        config(json).unwrap_err().to_string()
    }

    #[test]
    fn fields_are_taken_by_name_and_kind() {
        let good = json!({"maxPods": 80, "evictionHard": {"memory.available": "200Mi"}, "failSwapOn": false, "clusterDNS": null});
        let good = config(good).unwrap();
        assert_eq!(good.fields().keys().collect::<Vec<_>>(), ["evictionHard", "failSwapOn", "maxPods"]);
        assert_eq!(serde_json::to_value(&good).unwrap()["maxPods"], 80);
        assert!(refused(json!({"maxPodz": 1})).contains("unknown field `maxPodz`"));
        let kind = refused(json!({"maxPods": "80"}));
        assert!(kind.contains("spec.kubelet.config.maxPods: must be a whole number"), "{kind}");
        assert!(refused(json!({"evictionHard": {"memory.available": 1}})).contains("must be fields"));
        let long = refused(json!({"clusterDomain": "x".repeat(MAX_KUBELET_CONFIG)}));
        assert!(long.contains("the limit is 65536"), "{long}");
        let mut same = good.clone();
        assert!(same.slot("resolvConf").is_none());
        assert_eq!(same, good, "a place that was looked at and left empty is nothing");
    }

    #[test]
    fn what_is_not_berths_to_set_is_refused_with_the_reason() {
        for group in &DENIED {
            for (name, _) in group.fields {
                let message = refused(json!({ *name: 1 }));
                assert!(
                    message.contains(&format!("spec.kubelet.config.{name}: must not be set: {}", group.why)),
                    "{message}"
                );
                assert!(group.rule.contains(&format!("!has(self.{name})")), "{}", group.rule);
            }
            assert!(group.message.contains(group.why));
        }
        let names: Vec<_> = kubelet_fields().collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "a name stands twice");
    }
}
