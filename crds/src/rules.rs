//! The rules that types cannot carry, one function per part of a document. A refusal names the field by its path, what is allowed and,
//! where it is not plain, the remedy.
//! Must not: look at the node; a document is good or bad everywhere alike.
use crate::image_policy::{ImagePattern, ImagePolicy, NamespaceSelector};
use crate::profile::check_profiles;
use crate::registry::{check_credentials, check_proxy, check_registries, check_transfer};
use crate::rollout;
use crate::runtime_config::{Cni, IpFamily, Limits, Metrics, Network, Runtime, RuntimeConfig, Streaming, seconds};
use crate::sockets::check_sockets;
use crate::storage::{check_images, check_storage};
use berth_model::{Error, Result, ResultExt, Tag};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// Most directories of CNI plugins.
const MAX_BIN_DIRS: usize = 16;
/// Longest CNI configuration: that of a file (node-runtime/crates/network).
const MAX_CONF_LIST: usize = 256 << 10;
/// Longest path of a file.
const MAX_PATH: usize = 4095;
/// Most images of a policy, registries that it allows or denies, and values of one requirement.
const MAX_PATTERNS: usize = 256;
/// Most exceptions of a policy, tags that it forbids, and requirements.
const MAX_EXCEPTIONS: usize = 64;
/// Longest pattern of a policy in bytes: what a node compiles (node-runtime/crates/trust/src/pattern.rs).
const MAX_PATTERN: usize = 512;
/// Longest tag. Source: OCI distribution specification, "Pulling manifests".
const MAX_TAG: usize = 128;
/// Longest value of a label. Source: apimachinery, util/validation.
const MAX_LABEL_VALUE: usize = 63;
/// What `pids.max` takes at most on 64 bits: PID_MAX_LIMIT (`include/linux/threads.h`, `kernel/cgroup/pids.c`). With more, no container would start.
const MAX_PIDS: u64 = 4 << 20;

pub(crate) fn runtime_config(document: &RuntimeConfig) -> Result<()> {
    let spec = &document.spec;
    if spec.priority.is_some_and(|p| p > 1000) {
        return Err(Error::invalid("spec.priority", "must be 0 to 1000"));
    }
    if let Some(selector) = &spec.node_selector {
        selector.check("spec.nodeSelector")?;
    }
    rollout::check(&spec.rollout)?;
    runtime(&spec.runtime)?;
    limits(&spec.runtime.limits)?;
    check_storage(&spec.runtime.storage)?;
    check_sockets(&spec.runtime.sockets)?;
    check_images(&spec.images)?;
    streaming(&spec.runtime.streaming)?;
    check_registries(&spec.registries)?;
    check_credentials(&spec.credentials)?;
    check_proxy(&spec.proxy)?;
    check_transfer(&spec.transfer)?;
    check_profiles(&spec.profiles, &spec.runtime.default_profiles)?;
    network(&spec.network)?;
    spec.kubelet.config.check()?;
    metrics(&spec.metrics)
}

fn runtime(runtime: &Runtime) -> Result<()> {
    if let Some(version) = &runtime.version
        && !is_version(version)
    {
        let problem = format!("{version:?} is not a version such as 0.1.0 or 0.2.0-rc.1");
        return Err(Error::invalid("spec.runtime.version", problem));
    }
    match runtime.pids_limit {
        Some(limit) if limit < 20 => {
            Err(Error::invalid("spec.runtime.pidsLimit", "must be at least 20, or no container can run a shell"))
        }
        Some(limit) if limit > MAX_PIDS => {
            let problem = format!("must be at most {MAX_PIDS}, the kernel's own limit; without it there is no limit");
            Err(Error::invalid("spec.runtime.pidsLimit", problem))
        }
        _ => Ok(()),
    }
}

/// Three numbers and perhaps more, with what may stand in a directory's name only: versions are directories on the host.
fn is_version(text: &str) -> bool {
    let (numbers, rest) = text.split_at(text.find(['-', '+']).unwrap_or(text.len()));
    let number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    text.len() <= 64
        && numbers.split('.').count() == 3
        && numbers.split('.').all(number)
        && rest.len() != 1
        && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"-+.".contains(&b))
}

fn limits(limits: &Limits) -> Result<()> {
    // Zero would refuse every image; whoever wants that writes an ImagePolicy.
    let all = [
        ("maxManifestBytes", limits.max_manifest_bytes, 1024, 64 << 20),
        ("maxIndexEntries", limits.max_index_entries.map(u64::from), 1, 1000),
        ("maxLayers", limits.max_layers.map(u64::from), 1, 256),
        ("maxUncompressedPerLayer", limits.max_uncompressed_per_layer, 1 << 10, u64::MAX),
        ("maxUncompressedPerImage", limits.max_uncompressed_per_image, 1 << 10, u64::MAX),
        ("maxCompressionRatio", limits.max_compression_ratio.map(u64::from), 2, 1_000_000),
        ("maxTarEntries", limits.max_tar_entries, 1, u64::MAX),
    ];
    for (name, value, least, most) in all {
        if value.is_some_and(|v| v < least || v > most) {
            let bound = if most == u64::MAX { format!("at least {least}") } else { format!("{least} to {most}") };
            return Err(Error::invalid(format!("spec.runtime.limits.{name}"), format!("must be {bound}")));
        }
    }
    Ok(())
}

fn streaming(streaming: &Streaming) -> Result<()> {
    let field = |name: &str| format!("spec.runtime.streaming.{name}");
    if let Some(bind) = &streaming.bind
        && bind.parse::<IpAddr>().is_err()
        && bind.parse::<SocketAddr>().is_err()
    {
        return Err(Error::invalid(field("bind"), format!("{bind:?} is not ADDRESS or ADDRESS:PORT")));
    }
    if let Some(ttl) = &streaming.token_ttl
        && !seconds(ttl).is_some_and(|s| (1..=600).contains(&s))
    {
        let problem = format!("{ttl:?} is not a duration from 1s to 10m, like 60s or 2m");
        return Err(Error::invalid(field("tokenTTL"), problem));
    }
    for (name, path) in [("tlsCertFile", &streaming.tls_cert_file), ("tlsKeyFile", &streaming.tls_key_file)] {
        if let Some(path) = path
            && (!path.starts_with('/') || path.len() > MAX_PATH || path.contains('\0'))
        {
            let problem = format!("must be an absolute path of at most {MAX_PATH} bytes");
            return Err(Error::invalid(field(name), problem));
        }
    }
    Ok(())
}

fn network(network: &Network) -> Result<()> {
    if let Some(subnet) = &network.subnet
        && !matches!(net(subnet), Some((IpAddr::V4(_), 8..=29)))
    {
        let problem = format!("{subnet:?} is not an IPv4 subnet with a length of 8 to 29, such as 10.85.0.0/24");
        return Err(Error::invalid("spec.network.subnet", problem));
    }
    if let Some(subnet) = &network.subnet6
        && !matches!(net(subnet), Some((IpAddr::V6(_), 8..=120)))
    {
        let problem = format!("{subnet:?} is not an IPv6 subnet with a length of 8 to 120, such as fd00:10:85::/64");
        return Err(Error::invalid("spec.network.subnet6", problem));
    }
    for (name, address) in [("rangeStart", &network.range_start), ("rangeEnd", &network.range_end)] {
        if let Some(address) = address
            && address.parse::<std::net::Ipv4Addr>().is_err()
        {
            let problem = format!("{address:?} is not an IPv4 address");
            return Err(Error::invalid(format!("spec.network.{name}"), problem));
        }
    }
    if let Some(families) = &network.ip_families {
        let twice = families.iter().enumerate().any(|(i, family)| families[..i].contains(family));
        if twice || !families.contains(&IpFamily::V4) {
            let problem = "must be [IPv4], [IPv4, IPv6] or [IPv6, IPv4]: the built-in network always has IPv4";
            return Err(Error::invalid("spec.network.ipFamilies", problem));
        }
        if network.subnet6.is_some() && !families.contains(&IpFamily::V6) {
            return Err(Error::invalid("spec.network.subnet6", "needs IPv6 in spec.network.ipFamilies"));
        }
    }
    // RFC 791: every host takes 68 bytes. The upper bound is that of pods' interfaces (veth).
    if network.mtu.is_some_and(|mtu| !(68..=65_535).contains(&mtu)) {
        return Err(Error::invalid("spec.network.mtu", "must be 68 to 65535"));
    }
    cni(&network.cni)
}

fn cni(cni: &Cni) -> Result<()> {
    let absolute = |field: String, path: &str| {
        // Plugins get the directories as one text with colons between them.
        if !path.starts_with('/') || path.len() > MAX_PATH || path.contains([':', '\0']) {
            return Err(Error::invalid(
                field,
                format!("must be an absolute path of at most {MAX_PATH} bytes without ':'"),
            ));
        }
        Ok(())
    };
    if let Some(dir) = &cni.conf_dir {
        absolute("spec.network.cni.confDir".to_owned(), dir)?;
    }
    if let Some(dirs) = &cni.bin_dirs {
        if dirs.is_empty() || dirs.len() > MAX_BIN_DIRS {
            return Err(Error::invalid("spec.network.cni.binDirs", format!("must have 1 to {MAX_BIN_DIRS} entries")));
        }
        for (i, dir) in dirs.iter().enumerate() {
            absolute(format!("spec.network.cni.binDirs[{i}]"), dir)?;
        }
    }
    if let Some(timeout) = &cni.timeout
        && !seconds(timeout).is_some_and(|s| (1..=1800).contains(&s))
    {
        let problem = format!("{timeout:?} is not a duration from 1s to 30m, like 90s or 3m");
        return Err(Error::invalid("spec.network.cni.timeout", problem));
    }
    // What stands in it, those judge who know plugins: the daemon, and `berth config check`.
    if cni.conf_list.as_ref().is_some_and(|text| text.is_empty() || text.len() > MAX_CONF_LIST) {
        let problem = format!("must be a CNI configuration list of 1 to {MAX_CONF_LIST} bytes");
        return Err(Error::invalid("spec.network.cni.confList", problem));
    }
    if cni.max_parallel_adds.is_some_and(|n| !(1..=1000).contains(&n)) {
        return Err(Error::invalid("spec.network.cni.maxParallelAdds", "must be 1 to 1000"));
    }
    Ok(())
}

/// Address and length of a subnet.
fn net(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    Some((address.parse().ok()?, length.parse().ok()?))
}

fn metrics(metrics: &Metrics) -> Result<()> {
    if let Some(address) = &metrics.address
        && address.parse::<SocketAddr>().is_err()
    {
        return Err(Error::invalid("spec.metrics.address", "must be ADDRESS:PORT, such as 127.0.0.1:9464"));
    }
    Ok(())
}

pub(crate) fn image_policy(document: &ImagePolicy) -> Result<()> {
    let spec = &document.spec;
    if spec.enforce_at.is_empty() {
        return Err(Error::invalid("spec.enforceAt", "must name at least one of Pull and Create"));
    }
    spec.matches.namespace_selector.as_ref().map_or(Ok(()), namespaces)
}

/// How much a policy that newly enters may hold. Of one that is in force it says nothing: a limit that comes with a version would take
/// the policy away, or the node's start.
pub(crate) fn image_policy_limits(document: &ImagePolicy) -> Result<()> {
    let spec = &document.spec;
    let patterns = |list: &[ImagePattern]| list.iter().map(|entry| entry.pattern.clone()).collect::<Vec<_>>();
    let (images, exclude) = (patterns(&spec.matches.images), patterns(&spec.matches.exclude));
    let lists = [
        ("spec.match.images", ".pattern", &images, MAX_PATTERNS, MAX_PATTERN),
        ("spec.match.exclude", ".pattern", &exclude, MAX_EXCEPTIONS, MAX_PATTERN),
        ("spec.registries.allow", "", &spec.registries.allow, MAX_PATTERNS, MAX_PATTERN),
        ("spec.registries.deny", "", &spec.registries.deny, MAX_PATTERNS, MAX_PATTERN),
        ("spec.references.forbidTags", "", &spec.references.forbid_tags, MAX_EXCEPTIONS, MAX_TAG),
    ];
    for (field, member, list, most, longest) in lists {
        at_most(field, list.len(), most)?;
        if let Some((i, text)) = list.iter().enumerate().find(|(_, text)| text.len() > longest) {
            return Err(too_long(format!("{field}[{i}]{member}"), text, longest));
        }
    }
    for (i, tag) in spec.references.forbid_tags.iter().enumerate() {
        // One that no image can have would forbid nothing.
        Tag::parse(tag).context(|| format!("spec.references.forbidTags[{i}]: {tag:?}"))?;
    }
    spec.matches.namespace_selector.as_ref().map_or(Ok(()), namespaces_limits)
}

fn at_most(field: impl fmt::Display, len: usize, most: usize) -> Result<()> {
    if len > most {
        return Err(Error::invalid(field, format!("has {len} entries, the limit is {most}")));
    }
    Ok(())
}

fn too_long(field: impl fmt::Display, text: &str, longest: usize) -> Error {
    Error::invalid(field, format!("is {} bytes long, the limit is {longest}", text.len()))
}

fn namespaces(selector: &NamespaceSelector) -> Result<()> {
    let keys = selector.match_labels.keys().chain(selector.match_expressions.iter().map(|e| &e.key));
    for key in keys {
        if key != "kubernetes.io/metadata.name" {
            return Err(Error::invalid(
                "spec.match.namespaceSelector",
                format!("a node knows only the label kubernetes.io/metadata.name, not {key:?}"),
            ));
        }
    }
    if selector.match_expressions.iter().any(|e| e.values.is_empty()) {
        return Err(Error::invalid("spec.match.namespaceSelector.matchExpressions", "In and NotIn need values"));
    }
    Ok(())
}

fn namespaces_limits(selector: &NamespaceSelector) -> Result<()> {
    let at = "spec.match.namespaceSelector.matchExpressions";
    if let Some(value) = selector.match_labels.values().find(|value| value.len() > MAX_LABEL_VALUE) {
        return Err(too_long("spec.match.namespaceSelector.matchLabels", value, MAX_LABEL_VALUE));
    }
    at_most(at, selector.match_expressions.len(), MAX_EXCEPTIONS)?;
    for (i, expression) in selector.match_expressions.iter().enumerate() {
        at_most(format!("{at}[{i}].values"), expression.values.len(), MAX_PATTERNS)?;
        if let Some((n, value)) = expression.values.iter().enumerate().find(|(_, v)| v.len() > MAX_LABEL_VALUE) {
            return Err(too_long(format!("{at}[{i}].values[{n}]"), value, MAX_LABEL_VALUE));
        }
    }
    Ok(())
}
