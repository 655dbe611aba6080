//! The rules of `../rules.rs` and `../registry.rs` in CEL, with the same words: what a node refuses, the API server refuses.
//!
//! What it cannot bound the cost of (names of headers) is left to the operator, which asks the node's own rules and says so in
//! the condition `Accepted`. Functions used: those of Kubernetes 1.33 (strings, ip, cidr, optional field paths).
use crate::kubelet::DENIED;
use serde_json::{Value, json};

/// One rule.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    /// Where it holds; `` is the object itself.
    pub(super) path: &'static str,
    rule: &'static str,
    message: &'static str,
    /// A member that the message is about.
    about: Option<&'static str>,
}

impl Rule {
    pub(super) fn json(&self) -> Value {
        let mut json = json!({ "rule": self.rule, "message": self.message });
        if let Some(field) = self.about {
            json["fieldPath"] = json!(field);
        }
        json
    }
}

const fn rule(path: &'static str, rule: &'static str, message: &'static str) -> Rule {
    Rule { path, rule, message, about: None }
}

const fn about(path: &'static str, about: &'static str, rule: &'static str, message: &'static str) -> Rule {
    Rule { path, rule, message, about: Some(about) }
}

/// Rules of a kind.
pub(super) fn of(kind: &str) -> Vec<Rule> {
    match kind {
        "RuntimeConfig" => {
            let denied = DENIED.each_ref().map(|group| rule("spec.kubelet.config", group.rule, group.message));
            [RUNTIME, PROFILES, STORAGE, SOCKETS, NETWORK, REGISTRIES, ROLLOUT, &denied].concat()
        }
        "ImagePolicy" => IMAGE_POLICY.to_vec(),
        "RuntimeRevision" => REVISION.to_vec(),
        _ => NODE.to_vec(),
    }
}

const ABSOLUTE: &str = "self.startsWith('/')";
const ABSOLUTE_WORDS: &str = "must be an absolute path of at most 4095 bytes";
const PROXY: &str = "self.matches('^http://[^/?# ]+/*$')";
const NO_PASSWORD: &str = "!self.contains('@')";
const NO_PASSWORD_WORDS: &str = "must not hold a password; put USER:PASSWORD into the file of credentialsFile";
/// `ADDRESS:PORT`, IPv6 in brackets.
macro_rules! address_port {
    () => {
        r"self.matches('^([0-9.]+|\\[[0-9a-fA-F:.]+\\]):[0-9]{1,5}$') && isIP(self.substring(0, self.lastIndexOf(':')).replace('[', '').replace(']', '')) && int(self.substring(self.lastIndexOf(':') + 1)) <= 65535"
    };
}
/// What `seconds` of `../runtime_config.rs` reads.
macro_rules! any_duration {
    () => {
        "self.matches('^[0-9]+(s|m([0-9]+s)?|h([0-9]+m)?([0-9]+s)?)$')"
    };
}
/// A duration within bounds.
macro_rules! duration {
    ($least:literal, $most:literal) => {
        concat!(
            any_duration!(),
            " && duration(self) >= duration('",
            $least,
            "') && duration(self) <= duration('",
            $most,
            "')"
        )
    };
}
const TO_TEN_MINUTES: &str = "must be a duration from 1s to 10m, like 60s or 2m";
const TO_A_DAY: &str = duration!("1s", "24h");
const TO_A_DAY_WORDS: &str = "must be a duration from 1s to 24h, like 90s, 10m or 1h30m";
const NONE_TO_A_DAY: &str = duration!("0s", "24h");
const NONE_TO_A_DAY_WORDS: &str = "must be a duration from 0s to 24h, like 90s, 10m or 1h30m";

/// A relative path without `.` and `..`.
macro_rules! seccomp_name {
    ($name:literal) => {
        concat!("!(", $name, " + '/').matches('(^|/)[.]{0,2}/')")
    };
}
/// A plain name of an AppArmor profile that is not the runtime's.
macro_rules! apparmor_name {
    ($name:literal) => {
        concat!(
            $name,
            ".matches('^[A-Za-z0-9._/@+-]+$') && !",
            $name,
            ".contains('//') && !(",
            $name,
            " in ['unconfined', 'berth-default'])"
        )
    };
}
const SECCOMP_WORDS: &str = "must be a relative path without . and .. in it";
const APPARMOR_WORDS: &str = "must be letters, digits and . _ - / @ +, and neither unconfined nor berth-default";

const PROFILES: &[Rule] = &[
    about("spec.profiles[]", ".name", concat!("self.type != 'Seccomp' || ", seccomp_name!("self.name")), SECCOMP_WORDS),
    about(
        "spec.profiles[]",
        ".name",
        concat!("self.type != 'AppArmor' || (", apparmor_name!("self.name"), ")"),
        APPARMOR_WORDS,
    ),
    rule("spec.runtime.defaultProfiles.seccomp", seccomp_name!("self"), SECCOMP_WORDS),
    rule("spec.runtime.defaultProfiles.appArmor", apparmor_name!("self"), APPARMOR_WORDS),
];

const RUNTIME: &[Rule] = &[
    rule("spec.priority", "self >= 0 && self <= 1000", "must be 0 to 1000"),
    rule(
        "spec.runtime.version",
        "self.matches('^[0-9]+[.][0-9]+[.][0-9]+([-+][0-9A-Za-z.+-]+)?$')",
        "must be a version such as 0.1.0 or 0.2.0-rc.1",
    ),
    rule("spec.runtime.pidsLimit", "self >= 20", "must be at least 20, or no container can run a shell"),
    rule(
        "spec.runtime.pidsLimit",
        "self <= 4194304",
        "must be at most 4194304, the kernel's own limit; without it there is no limit",
    ),
    rule("spec.runtime.limits.maxManifestBytes", "self >= 1024 && self <= 67108864", "must be 1024 to 67108864"),
    rule("spec.runtime.limits.maxIndexEntries", "self >= 1 && self <= 1000", "must be 1 to 1000"),
    rule("spec.runtime.limits.maxLayers", "self >= 1 && self <= 256", "must be 1 to 256"),
    rule("spec.runtime.limits.maxUncompressedPerLayer", "self >= 1024", "must be at least 1024"),
    rule("spec.runtime.limits.maxUncompressedPerImage", "self >= 1024", "must be at least 1024"),
    rule("spec.runtime.limits.maxCompressionRatio", "self >= 2 && self <= 1000000", "must be 2 to 1000000"),
    rule("spec.runtime.limits.maxTarEntries", "self >= 1", "must be at least 1"),
    rule(
        "spec.runtime.streaming.bind",
        concat!("isIP(self) || (", address_port!(), ")"),
        "must be ADDRESS or ADDRESS:PORT, such as 127.0.0.1 or 127.0.0.1:10010",
    ),
    rule("spec.runtime.streaming.tokenTTL", duration!("1s", "10m"), TO_TEN_MINUTES),
    rule("spec.runtime.streaming.tlsCertFile", ABSOLUTE, ABSOLUTE_WORDS),
    rule("spec.runtime.streaming.tlsKeyFile", ABSOLUTE, ABSOLUTE_WORDS),
    rule("spec.metrics.address", address_port!(), "must be ADDRESS:PORT, such as 127.0.0.1:9464"),
];

/// A quantity of bytes, of at least so many.
macro_rules! quantity {
    ($least:literal) => {
        concat!("self.matches('^[0-9]+([kMGT]|[KMGT]i)?$') && quantity(self).compareTo(quantity('", $least, "')) >= 0")
    };
}

/// Of `../storage.rs`. Whether what is pinned or prefetched is a reference is left to the operator.
const STORAGE: &[Rule] = &[
    rule(
        "spec.runtime.storage.directory",
        "self.matches('^(/[A-Za-z0-9._-]+)+$') && !(self + '/').matches('/[.]{1,2}/')",
        "must be an absolute path of at most 128 bytes, of letters, digits and . _ -, without . and .., such as /data/berth",
    ),
    rule(
        "spec.runtime.storage.directory",
        "!self.matches('^/(dev|proc|sys|run|var/run|tmp|etc|boot|opt/berth|var/lib/(berth|kubelet|containerd))(/|$)')",
        "must not be in /dev, /proc, /sys, /run, /var/run, /tmp, /etc, /boot, /opt/berth, /var/lib/berth, /var/lib/kubelet or /var/lib/containerd: name a directory of its own on a disk, such as /data/berth",
    ),
    rule("spec.runtime.storage.imageFsQuota", quantity!("1Mi"), "is not a quantity of at least 1Mi, such as 50Gi"),
    rule(
        "spec.runtime.storage.writableLayerLimit",
        quantity!("64Ki"),
        "is not a quantity of at least 64Ki, such as 10Gi",
    ),
    rule("spec.runtime.storage.gc.high", "self >= 1 && self <= 100", "must be a percentage, 1 to 100"),
    rule("spec.runtime.storage.gc.low", "self >= 1 && self <= 100", "must be a percentage, 1 to 100"),
    about(
        "spec.runtime.storage.gc",
        ".low",
        "!has(self.high) || !has(self.low) || self.low < self.high",
        "must be below gc.high",
    ),
    rule("spec.runtime.storage.gc.minAge", any_duration!(), "is not a duration like 90s, 2m or 1h30m"),
];

/// Of `../sockets.rs`. `[!-.0-~]` is what is visible of ASCII but for the slash, so that characters are bytes.
const SOCKETS: &[Rule] = &[
    rule(
        "spec.runtime.sockets.cri[]",
        "self.matches('^(/var)?/run(/[!-.0-~]+)+$') && !(self + '/').matches('/[.]{1,2}/')",
        "must be a path below /run/ or /var/run/ of visible ASCII characters, without empty, . and .. parts, such as /run/containerd/containerd.sock",
    ),
    rule(
        "spec.runtime.sockets.cri[]",
        "!(self + '/').matches('^(/var)?/run/berth/')",
        "must not lie in /run/berth, which is Berth's own; take another directory",
    ),
    rule(
        "spec.runtime.sockets.cri",
        "self.all(a, self.exists_one(b, (b.startsWith('/var/run/') ? b.substring(4) : b) == (a.startsWith('/var/run/') ? a.substring(4) : a)))",
        "a path stands twice (/var/run is /run); take one of them out",
    ),
];

const NETWORK: &[Rule] = &[
    rule(
        "spec.network.subnet",
        "isCIDR(self) && cidr(self).ip().family() == 4 && cidr(self).prefixLength() >= 8 && cidr(self).prefixLength() <= 29",
        "must be an IPv4 subnet with a length of 8 to 29, such as 10.85.0.0/24",
    ),
    rule(
        "spec.network.subnet6",
        "isCIDR(self) && cidr(self).ip().family() == 6 && cidr(self).prefixLength() >= 8 && cidr(self).prefixLength() <= 120",
        "must be an IPv6 subnet with a length of 8 to 120, such as fd00:10:85::/64",
    ),
    rule("spec.network.rangeStart", "isIP(self) && ip(self).family() == 4", "must be an IPv4 address"),
    rule("spec.network.rangeEnd", "isIP(self) && ip(self).family() == 4", "must be an IPv4 address"),
    rule(
        "spec.network.ipFamilies",
        "'IPv4' in self && self.all(f, self.exists_one(g, g == f))",
        "must be [IPv4], [IPv4, IPv6] or [IPv6, IPv4]: the built-in network always has IPv4",
    ),
    about(
        "spec.network",
        ".subnet6",
        "!has(self.subnet6) || !has(self.ipFamilies) || 'IPv6' in self.ipFamilies",
        "needs IPv6 in spec.network.ipFamilies",
    ),
    rule("spec.network.mtu", "self >= 68 && self <= 65535", "must be 68 to 65535"),
    rule(
        "spec.network.cni.confDir",
        "self.startsWith('/') && !self.contains(':')",
        "must be an absolute path of at most 4095 bytes without ':'",
    ),
    rule("spec.network.cni.binDirs", "size(self) >= 1", "must have 1 to 16 entries"),
    rule(
        "spec.network.cni.binDirs[]",
        "self.startsWith('/') && !self.contains(':')",
        "must be an absolute path of at most 4095 bytes without ':'",
    ),
    rule("spec.network.cni.timeout", duration!("1s", "30m"), "must be a duration from 1s to 30m, like 90s or 3m"),
    rule("spec.network.cni.maxParallelAdds", "self >= 1 && self <= 1000", "must be 1 to 1000"),
];

/// Of TLS with a registry or mirror.
const TLS_ALONE: &str = "!has(self.insecure) || !self.insecure || (!has(self.caPem) && !has(self.caFile))";
const TLS_ALONE_WORDS: &str = "insecure and caPem or caFile exclude each other";
const TLS_PAIR: &str = "has(self.clientCertFile) == has(self.clientKeyFile)";
const TLS_PAIR_WORDS: &str = "and clientKeyFile must be set together";

const REGISTRIES: &[Rule] = &[
    rule(
        "spec.registries[].host",
        r"self == '*' || self.matches('^([*][.])?[A-Za-z0-9._:\\[\\]-]+$')",
        "must be a host name with an optional port, *.DOMAIN or *",
    ),
    about(
        "spec.registries[]",
        ".fallback",
        "!has(self.fallback) || self.fallback != 'Never' || (has(self.mirrors) && size(self.mirrors) > 0)",
        "Never needs a mirror, or nothing can be pulled",
    ),
    about(
        "spec.registries[]",
        ".plainHttp",
        "!has(self.plainHttp) || !self.plainHttp || !has(self.tls) || !(has(self.tls.caPem) || has(self.tls.caFile) || has(self.tls.clientCertFile) || has(self.tls.clientKeyFile) || has(self.tls.serverName) || (has(self.tls.insecure) && self.tls.insecure))",
        "and tls exclude each other",
    ),
    rule("spec.registries[].tls", TLS_ALONE, TLS_ALONE_WORDS),
    about("spec.registries[].tls", ".clientCertFile", TLS_PAIR, TLS_PAIR_WORDS),
    rule("spec.registries[].mirrors[].tls", TLS_ALONE, TLS_ALONE_WORDS),
    about("spec.registries[].mirrors[].tls", ".clientCertFile", TLS_PAIR, TLS_PAIR_WORDS),
    rule("spec.registries[].mirrors[].url", "!self.contains('..')", "must not have .. in it"),
    rule("spec.credentials.providerConfigFile", ABSOLUTE, ABSOLUTE_WORDS),
    rule("spec.credentials.providerBinDir", ABSOLUTE, ABSOLUTE_WORDS),
    rule("spec.credentials.dockerConfigFile", ABSOLUTE, ABSOLUTE_WORDS),
    rule(
        "spec.credentials.fromSecret[].name",
        "self.matches('^[-._a-zA-Z0-9]{1,253}$')",
        "must be 1 to 253 letters, digits and - . _",
    ),
    rule("spec.credentials.fromSecret[].sha256", "self.matches('^[0-9a-f]{64}$')", "must be 64 lower-case hex digits"),
    rule("spec.credentials.providerTimeout", duration!("1s", "5m"), "must be a duration from 1s to 5m, like 60s or 2m"),
    rule("spec.proxy.http", NO_PASSWORD, NO_PASSWORD_WORDS),
    rule("spec.proxy.http", PROXY, "must be http://HOST:PORT"),
    rule("spec.proxy.https", NO_PASSWORD, NO_PASSWORD_WORDS),
    rule("spec.proxy.https", PROXY, "must be http://HOST:PORT"),
    rule("spec.proxy.credentialsFile", ABSOLUTE, ABSOLUTE_WORDS),
    rule("spec.transfer.connectionsPerBlob", "self >= 1 && self <= 16", "must be 1 to 16"),
    rule("spec.transfer.bufferMebibytes", "self >= 4 && self <= 4096", "must be 4 to 4096"),
    rule("spec.transfer.attempts", "self >= 1 && self <= 20", "must be 1 to 20"),
    rule("spec.transfer.stallBytes", "self >= 1 && self <= 1073741824", "must be 1 to 1073741824"),
    rule("spec.transfer.stallTimeout", duration!("1s", "10m"), TO_TEN_MINUTES),
];

/// A number or a percentage. What is written as text must be a percentage.
macro_rules! share {
    ($least:literal) => {
        concat!("type(self) == int ? self >= ", $least, " && self <= 1000000 : self.matches('^0*([1-9][0-9]?|100)%$')")
    };
}
const NOT_NONE: &str = "must be at least 1 and at most 1000000, or a percentage from 1% to 100%; with none no node could ever be changed; spec.rollout.paused stops a rollout";

const ROLLOUT: &[Rule] = &[
    rule(
        "spec.nodeSelector.matchExpressions[]",
        "self.operator in ['In', 'NotIn'] ? has(self.values) && size(self.values) > 0 : !has(self.values) || size(self.values) == 0",
        "In and NotIn need 1 to 64 values, Exists and DoesNotExist take none",
    ),
    rule("spec.rollout.waves", "size(self) >= 1", "must have 1 to 10 entries"),
    rule(
        "spec.rollout.waves[]",
        share!("1"),
        "must be at least 1 and at most 1000000 nodes, or a percentage from 1% to 100%",
    ),
    rule("spec.rollout.maxUnavailable", share!("1"), NOT_NONE),
    rule("spec.rollout.maxInFlight", share!("1"), NOT_NONE),
    rule("spec.rollout.maxFailures", share!("0"), "must be at most 1000000 nodes, or a percentage from 1% to 100%"),
    rule("spec.rollout.nodeTimeout", TO_A_DAY, TO_A_DAY_WORDS),
    rule("spec.rollout.soak.canary", NONE_TO_A_DAY, NONE_TO_A_DAY_WORDS),
    rule("spec.rollout.soak.wave", NONE_TO_A_DAY, NONE_TO_A_DAY_WORDS),
    rule("spec.rollout.drain.timeout", TO_A_DAY, TO_A_DAY_WORDS),
    rule("spec.rollout.drain.retryAfter", TO_A_DAY, TO_A_DAY_WORDS),
];

const IMAGE_POLICY: &[Rule] = &[
    rule("spec.enforceAt", "size(self) >= 1", "must name at least one of Pull and Create"),
    rule(
        "spec.match.namespaceSelector.matchLabels",
        "self.all(key, key == 'kubernetes.io/metadata.name')",
        "a node knows only the label kubernetes.io/metadata.name",
    ),
    rule(
        "spec.match.namespaceSelector.matchExpressions[].key",
        "self == 'kubernetes.io/metadata.name'",
        "a node knows only the label kubernetes.io/metadata.name",
    ),
    rule(
        "spec.match.namespaceSelector.matchExpressions[]",
        "has(self.values) && size(self.values) > 0",
        "In and NotIn need values",
    ),
];

const REVISION: &[Rule] = &[
    rule("spec", "self == oldSelf", "a RuntimeRevision never changes; another content has another name"),
    rule("spec", "has(self.runtime) != has(self.policies)", "must have runtime or policies, and not both"),
    rule(
        "",
        "self.metadata.name.matches(has(self.spec.policies) ? '^policy-[0-9a-f]{24}$' : '^config-[0-9a-f]{24}$')",
        "must be named config-HASH or policy-HASH by the operator",
    ),
];

const NODE: &[Rule] =
    &[rule("", "self.metadata.name == self.spec.nodeName", "must have the name of its Node, spec.nodeName")];
