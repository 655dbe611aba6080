//! What schemas say beside rules: how long and how many, keys of lists, patterns, defaults. Lists have limits so that the API server
//! can bound what rules cost.
//!
//! Only what is not merged has a default: a default would be set in every RuntimeConfig, and contradict the others.
use serde_json::{Value, json};

/// A path, a keyword of the schema, and its value.
type Bound = (&'static str, &'static str, Value);

/// Bounds of a kind.
pub(super) fn of(kind: &str) -> Vec<Bound> {
    match kind {
        "RuntimeConfig" => [runtime_config(), profiles(), registries(), credentials(), status()].concat(),
        "ImagePolicy" => [image_policy(), conditions()].concat(),
        "RuntimeRevision" => [runtime_revision(), conditions()].concat(),
        _ => [runtime_node(), conditions()].concat(),
    }
}

fn lengths(most: u64, paths: &[&'static str]) -> Vec<Bound> {
    paths.iter().map(|path| (*path, "maxLength", json!(most))).collect()
}

fn entries(most: u64, paths: &[&'static str]) -> Vec<Bound> {
    paths.iter().map(|path| (*path, "maxItems", json!(most))).collect()
}

/// A list whose entries are merged by a key, as server-side apply wants it.
fn keyed(path: &'static str, key: &str) -> Vec<Bound> {
    keyed_by(path, &[key])
}

fn keyed_by(path: &'static str, keys: &[&str]) -> Vec<Bound> {
    vec![(path, "x-kubernetes-list-type", json!("map")), (path, "x-kubernetes-list-map-keys", json!(keys))]
}

fn conditions() -> Vec<Bound> {
    let at = "status.conditions";
    let mut bounds = [keyed(at, "type"), entries(12, &[at])].concat();
    bounds.push(("status.conditions[].status", "enum", json!(["True", "False", "Unknown"])));
    bounds.push(("status.conditions[].lastTransitionTime", "format", json!("date-time")));
    bounds.extend(lengths(1024, &["status.conditions[].message"]));
    bounds
}

fn runtime_config() -> Vec<Bound> {
    let durations_and_quantities = [
        "spec.runtime.streaming.tokenTTL",
        "spec.network.cni.timeout",
        "spec.credentials.providerTimeout",
        "spec.transfer.stallTimeout",
        "spec.runtime.storage.imageFsQuota",
        "spec.runtime.storage.writableLayerLimit",
        "spec.runtime.storage.gc.minAge",
        "spec.rollout.nodeTimeout",
        "spec.rollout.soak.canary",
        "spec.rollout.soak.wave",
        "spec.rollout.drain.timeout",
        "spec.rollout.drain.retryAfter",
    ];
    let paths = [
        "spec.runtime.streaming.tlsCertFile",
        "spec.runtime.streaming.tlsKeyFile",
        "spec.network.cni.confDir",
        "spec.network.cni.binDirs[]",
        "spec.credentials.providerConfigFile",
        "spec.credentials.providerBinDir",
        "spec.credentials.dockerConfigFile",
        "spec.proxy.http",
        "spec.proxy.https",
        "spec.proxy.credentialsFile",
    ];
    let short = [
        "spec.runtime.version",
        "spec.runtime.streaming.bind",
        "spec.metrics.address",
        "spec.network.subnet",
        "spec.network.subnet6",
        "spec.network.rangeStart",
        "spec.network.rangeEnd",
    ];
    let mut bounds = vec![
        ("spec.priority", "default", json!(100)),
        ("spec.nodeSelector.matchLabels", "maxProperties", json!(64)),
        ("spec.nodeSelector.matchLabels{}", "pattern", json!("^[A-Za-z0-9_.-]*$")),
        ("spec.nodeSelector.matchExpressions[].key", "pattern", json!("^[A-Za-z0-9_./-]+$")),
        ("spec.nodeSelector.matchExpressions[].values[]", "pattern", json!("^[A-Za-z0-9_.-]*$")),
    ];
    bounds.extend(lengths(16, &durations_and_quantities));
    bounds.extend(lengths(4095, &paths));
    bounds.extend(lengths(64, &short));
    bounds.extend(lengths(128, &["spec.runtime.storage.directory"]));
    bounds.extend(lengths(65_520, &["spec.proxy.noProxy"]));
    bounds.extend(lengths(317, &["spec.nodeSelector.matchExpressions[].key"]));
    bounds.extend(lengths(63, &["spec.nodeSelector.matchLabels{}", "spec.nodeSelector.matchExpressions[].values[]"]));
    let labels = ["spec.nodeSelector.matchExpressions", "spec.nodeSelector.matchExpressions[].values"];
    bounds.extend(entries(64, &labels));
    bounds.push(("spec.network.cni.confList", "minLength", json!(1)));
    // Of characters; a node counts bytes.
    bounds.push(("spec.network.cni.confList", "maxLength", json!(262_144)));
    bounds.extend(entries(16, &["spec.network.cni.binDirs"]));
    bounds.extend(entries(2, &["spec.network.ipFamilies"]));
    bounds.extend(entries(10, &["spec.rollout.waves"]));
    bounds.extend(entries(4, &["spec.runtime.sockets.cri"]));
    bounds.extend(lengths(107, &["spec.runtime.sockets.cri[]"]));
    bounds.extend(entries(500, &["spec.images.pinned", "spec.images.prefetch"]));
    bounds.extend(lengths(1024, &["spec.images.pinned[]", "spec.images.prefetch[]"]));
    let shares =
        ["spec.rollout.waves[]", "spec.rollout.maxUnavailable", "spec.rollout.maxInFlight", "spec.rollout.maxFailures"];
    bounds.extend(lengths(8, &shares));
    bounds
}

fn credentials() -> Vec<Bound> {
    let at = "spec.credentials.fromSecret";
    let mut bounds = [keyed(at, "name"), entries(32, &[at])].concat();
    bounds.extend(lengths(253, &["spec.credentials.fromSecret[].name"]));
    bounds.extend(lengths(64, &["spec.credentials.fromSecret[].sha256"]));
    bounds
}

fn profiles() -> Vec<Bound> {
    let (names, text) = (
        ["spec.profiles[].name", "spec.runtime.defaultProfiles.seccomp", "spec.runtime.defaultProfiles.appArmor"],
        "spec.profiles[].source.inline",
    );
    let mut bounds = keyed_by("spec.profiles", &["type", "name"]);
    bounds.extend(entries(64, &["spec.profiles"]));
    bounds.extend(lengths(255, &names));
    bounds.extend(names.map(|name| (name, "minLength", json!(1))));
    bounds.push((text, "minLength", json!(1)));
    // Of characters; a node counts bytes.
    bounds.push((text, "maxLength", json!(262_144)));
    bounds
}

/// Registries and their mirrors: what there can be thousands of has patterns instead of rules, which cost the API server nothing.
fn registries() -> Vec<Bound> {
    let mut bounds = [keyed("spec.registries", "host"), keyed("spec.registries[].mirrors", "url")].concat();
    bounds.extend(entries(256, &["spec.registries"]));
    bounds.extend(entries(16, &["spec.registries[].mirrors"]));
    bounds.extend(lengths(257, &["spec.registries[].host"]));
    let url = "spec.registries[].mirrors[].url";
    bounds.extend(lengths(1024, &[url]));
    bounds.push((url, "pattern", json!(r"^https?://[^/@?# \\][^@?# \\]*$")));
    bounds.push(("spec.registries[].mirrors[].capabilities", "minItems", json!(1)));
    bounds.push(("spec.registries[].mirrors[].capabilities", "maxItems", json!(2)));
    for (tls, headers) in [
        (TLS_REGISTRY, ["spec.registries[].headers", "spec.registries[].headers{}"]),
        (TLS_MIRROR, ["spec.registries[].mirrors[].headers", "spec.registries[].mirrors[].headers{}"]),
    ] {
        let [pem, server_name, files @ ..] = tls;
        bounds.push((pem, "maxLength", json!(1 << 20)));
        bounds.push((pem, "pattern", json!("-----BEGIN CERTIFICATE-----")));
        bounds.push((server_name, "minLength", json!(1)));
        bounds.push((server_name, "maxLength", json!(255)));
        for file in files {
            bounds.push((file, "maxLength", json!(4095)));
            bounds.push((file, "pattern", json!("^/")));
        }
        let [map, value] = headers;
        bounds.push((map, "maxProperties", json!(32)));
        bounds.push((value, "maxLength", json!(4095)));
        bounds.push((value, "pattern", json!("^[ -~]*$")));
    }
    bounds
}

const TLS_REGISTRY: [&str; 5] = [
    "spec.registries[].tls.caPem",
    "spec.registries[].tls.serverName",
    "spec.registries[].tls.caFile",
    "spec.registries[].tls.clientCertFile",
    "spec.registries[].tls.clientKeyFile",
];
const TLS_MIRROR: [&str; 5] = [
    "spec.registries[].mirrors[].tls.caPem",
    "spec.registries[].mirrors[].tls.serverName",
    "spec.registries[].mirrors[].tls.caFile",
    "spec.registries[].mirrors[].tls.clientCertFile",
    "spec.registries[].mirrors[].tls.clientKeyFile",
];

fn status() -> Vec<Bound> {
    let mut bounds = [conditions(), keyed("status.failingNodes", "name"), keyed("status.conflicts", "field")].concat();
    bounds.extend(entries(10, &["status.failingNodes", "status.conflicts", "status.conflicts[].with"]));
    bounds.extend(entries(32, &["status.disruption.fields"]));
    bounds.push(("status.wave.soakUntil", "format", json!("date-time")));
    bounds
}

fn image_policy() -> Vec<Bound> {
    let mut bounds = vec![("spec.enforceAt", "default", json!(["Pull", "Create"]))];
    bounds.extend(entries(2, &["spec.enforceAt"]));
    bounds.extend(entries(256, &["spec.match.images", "spec.registries.allow", "spec.registries.deny"]));
    let few = ["spec.match.exclude", "spec.match.namespaceSelector.matchExpressions", "spec.references.forbidTags"];
    bounds.extend(entries(64, &few));
    let patterns = [
        "spec.match.images[].pattern",
        "spec.match.exclude[].pattern",
        "spec.registries.allow[]",
        "spec.registries.deny[]",
    ];
    // Of characters; a node counts bytes.
    bounds.extend(lengths(512, &patterns));
    bounds.extend(lengths(128, &["spec.references.forbidTags[]"]));
    bounds.extend(lengths(63, &["spec.match.namespaceSelector.matchLabels{}"]));
    bounds.push(("spec.match.namespaceSelector.matchLabels", "maxProperties", json!(64)));
    bounds.extend(entries(256, &["spec.match.namespaceSelector.matchExpressions[].values"]));
    bounds.extend(lengths(63, &["spec.match.namespaceSelector.matchExpressions[].values[]"]));
    bounds.extend(lengths(317, &["spec.match.namespaceSelector.matchExpressions[].key"]));
    bounds
}

fn runtime_revision() -> Vec<Bound> {
    let mut bounds = [keyed("spec.policies", "name"), entries(200, &["spec.policies"])].concat();
    bounds.push(("status.since", "format", json!("date-time")));
    bounds.push(("status.retriedAt", "format", json!("date-time")));
    bounds
}

fn runtime_node() -> Vec<Bound> {
    let times = [
        "spec.desiredSince",
        "spec.grant.expiresAt",
        "spec.postponedUntil",
        "spec.unusedLeave.at",
        "status.phaseSince",
        "status.currentSince",
        "status.failed.at",
        "status.failed.desiredSince",
    ];
    let mut bounds: Vec<Bound> = times.iter().map(|path| (*path, "format", json!("date-time"))).collect();
    bounds.push(("spec.hold", "default", json!(false)));
    bounds.extend(keyed("status.enforcement.decisions", "policy"));
    bounds.extend(entries(200, &["status.enforcement.decisions"]));
    bounds
        .extend(entries(16, &["status.drift", "status.capabilities.securityModules", "status.capabilities.handlers"]));
    bounds.extend(lengths(
        1024,
        &[
            "spec.postponedBecause",
            "status.message",
            "status.failed.message",
            "status.enforcement.message",
            "status.prefetch.message",
        ],
    ));
    bounds
}
