//! Documents to Pods, strictly: what is not honoured is refused by its full path, and all problems are told at once. Rules on
//! values are those of the API server's validation, where they matter to one node.
use super::dns::Dns;
use super::reader::{Object, Problems};
use super::{HostPathKind, Pod, Volume, VolumeSource, known, parse_container, parse_security};
use anyhow::{Result, bail};
use serde_json::Value;

/// Most bytes of one file.
pub const MAX_BYTES: usize = 1 << 20;
const GRACE_DEFAULT: i64 = 30;
const MAX_NAMESERVERS: usize = 3;

/// The Pods of a YAML stream. `origin` names it in errors.
pub fn pods(origin: &str, text: &str) -> Result<Vec<Pod>> {
    if text.len() > MAX_BYTES {
        bail!("{origin}: is larger than {MAX_BYTES} bytes");
    }
    let documents = crate::commands::yaml::documents(text).map_err(|e| e.context(origin.to_owned()))?;
    if documents.is_empty() {
        bail!("{origin}: has no document");
    }
    documents.iter().map(|document| pod(origin, document)).collect()
}

fn pod(origin: &str, document: &Value) -> Result<Pod> {
    let problems = Problems::default();
    let pod = read(document, &problems);
    let problems = problems.into_inner();
    match pod {
        Some(pod) if problems.is_empty() => Ok(pod),
        _ => {
            let lines: Vec<_> = problems.iter().map(|p| format!("{origin}: {p}")).collect();
            bail!("{}", lines.join("\n"))
        }
    }
}

fn read(document: &Value, problems: &Problems) -> Option<Pod> {
    let mut root = Object::new(String::new(), document, known::POD, problems)?;
    let (version, kind) = (root.required("apiVersion"), root.required("kind"));
    if (version.as_str(), kind.as_str()) != ("v1", "Pod") && !version.is_empty() && !kind.is_empty() {
        root.refuse("kind", format!("is {version} {kind}; berth run takes v1 Pod and nothing else"));
        return None;
    }
    let mut pod = Pod { host_users: true, ..Pod::default() };
    match root.object("metadata", known::METADATA) {
        Some(metadata) => read_metadata(metadata, &mut pod),
        None => root.refuse("metadata.name", "is required"),
    }
    match root.object("spec", known::SPEC) {
        Some(spec) => read_spec(spec, &mut pod),
        None => root.refuse("spec.containers", "is required"),
    }
    root.finish();
    Some(pod)
}

fn read_metadata(mut o: Object<'_>, pod: &mut Pod) {
    pod.name = o.required("name");
    if !pod.name.is_empty() && !subdomain(&pod.name) {
        o.refuse("name", "must be lower-case letters, digits, '-' and '.', at most 253");
    }
    pod.namespace = o.string("namespace").filter(|n| !n.is_empty()).unwrap_or_else(|| "default".to_owned());
    if !label(&pod.namespace) {
        o.refuse("namespace", "must be lower-case letters, digits and '-', at most 63");
    }
    pod.labels = o.map("labels");
    pod.annotations = o.map("annotations");
    o.finish();
}

fn read_spec(mut o: Object<'_>, pod: &mut Pod) {
    pod.volumes = o.objects("volumes", known::VOLUME, read_volume).into_iter().flatten().collect();
    if let Some(name) = duplicate(pod.volumes.iter().map(|v| v.name.as_str())) {
        o.refuse("volumes", format!("{name:?} is there twice"));
    }
    let volumes = std::mem::take(&mut pod.volumes);
    let read = |container| parse_container::read(container, &volumes);
    pod.containers = o.objects("containers", known::CONTAINER, read);
    pod.volumes = volumes;
    if pod.containers.is_empty() {
        o.refuse("containers", "must have at least one entry");
    }
    if let Some(name) = duplicate(pod.containers.iter().map(|c| c.name.as_str())) {
        o.refuse("containers", format!("the name {name:?} is there twice"));
    }
    o.word("restartPolicy", &[("Never", ())]);
    pod.hostname = o.string("hostname").filter(|h| !h.is_empty());
    if pod.hostname.as_deref().is_some_and(|h| !label(h)) {
        o.refuse("hostname", "must be lower-case letters, digits and '-', at most 63");
    }
    let grace = o.integer("terminationGracePeriodSeconds", 0, i64::from(i32::MAX));
    pod.termination_grace_period = grace.unwrap_or(GRACE_DEFAULT);
    if let Some(security) = o.object("securityContext", known::POD_SECURITY) {
        pod.security = parse_security::pod(security);
    }
    read_host(&mut o, pod);
    read_dns(&mut o, pod);
    o.finish();
}

fn read_host(o: &mut Object<'_>, pod: &mut Pod) {
    pod.host_network = o.boolean("hostNetwork").unwrap_or(false);
    pod.host_pid = o.boolean("hostPID").unwrap_or(false);
    pod.host_ipc = o.boolean("hostIPC").unwrap_or(false);
    pod.share_process_namespace = o.boolean("shareProcessNamespace").unwrap_or(false);
    pod.host_users = o.boolean("hostUsers").unwrap_or(true);
    if pod.share_process_namespace && pod.host_pid {
        o.refuse("shareProcessNamespace", "is not possible together with hostPID");
    }
    if !pod.host_users {
        let host = [("hostNetwork", pod.host_network), ("hostPID", pod.host_pid), ("hostIPC", pod.host_ipc)];
        for (name, _) in host.iter().filter(|(_, on)| *on) {
            o.refuse(name, "is not possible together with hostUsers: false");
        }
    }
    for (i, container) in pod.containers.iter().enumerate() {
        for (p, port) in container.ports.iter().enumerate() {
            if pod.host_network && port.host_port.is_some_and(|host| host != port.container_port) {
                o.refuse(
                    &format!("containers[{i}].ports[{p}].hostPort"),
                    "must be the containerPort where hostNetwork is true",
                );
            }
        }
    }
    let taken =
        pod.containers.iter().flat_map(|c| &c.ports).filter_map(|p| Some((p.host_port?, p.protocol, &p.host_ip)));
    if let Some((port, ..)) = duplicate(taken) {
        o.refuse("containers", format!("host port {port} is wanted twice"));
    }
}

fn read_dns(o: &mut Object<'_>, pod: &mut Pod) {
    let nothing_else = o.word("dnsPolicy", &[("Default", false), ("None", true)]).unwrap_or(false);
    let mut dns = Dns { nothing_else, ..Dns::default() };
    if let Some(mut config) = o.object("dnsConfig", &[]) {
        dns.nameservers = config.strings("nameservers");
        dns.searches = config.strings("searches");
        dns.options = config
            .objects("options", &[], |mut option| {
                let (name, value) = (option.required("name"), option.string("value"));
                option.finish();
                value.map_or(name.clone(), |v| format!("{name}:{v}"))
            })
            .into_iter()
            .collect();
        if dns.nameservers.iter().any(|s| s.parse::<std::net::IpAddr>().is_err()) {
            config.refuse("nameservers", "must be addresses");
        }
        if dns.nameservers.len() > MAX_NAMESERVERS {
            config.refuse("nameservers", format!("has more than {MAX_NAMESERVERS} entries"));
        }
        if dns.searches.iter().chain(&dns.options).any(|s| s.is_empty() || s.contains(char::is_whitespace)) {
            config.refuse("searches", "and options must be single words");
        }
        config.finish();
    }
    if nothing_else && dns.nameservers.is_empty() {
        o.refuse("dnsConfig.nameservers", "is required where dnsPolicy is None");
    }
    pod.dns = dns;
}

fn read_volume(mut o: Object<'_>) -> Option<Volume> {
    let name = o.required("name");
    if !name.is_empty() && !label(&name) {
        o.refuse("name", "must be lower-case letters, digits and '-', at most 63");
    }
    let host = o.object("hostPath", &[]).map(read_host_path);
    let empty = o.object("emptyDir", known::EMPTY_DIR).map(|mut empty| {
        empty.word("medium", &[("", ())]);
        empty.finish();
        VolumeSource::EmptyDir
    });
    let other = known::VOLUME.iter().any(|source| {
        o.take(source).is_some_and(|_| {
            o.refuse(source, "berth run does not support it; it knows hostPath and emptyDir");
            true
        })
    });
    let source = match (host, empty) {
        (Some(source), None) | (None, Some(source)) => Some(source),
        (Some(_), Some(_)) => {
            o.refuse("emptyDir", "is not possible together with hostPath");
            None
        }
        (None, None) => {
            if !other {
                o.refuse("hostPath", "or emptyDir is required");
            }
            None
        }
    };
    o.finish();
    Some(Volume { name, source: source? })
}

fn read_host_path(mut o: Object<'_>) -> VolumeSource {
    let path = o.required("path");
    if !path.is_empty() && (!path.starts_with('/') || path.split('/').any(|part| part == "..")) {
        o.refuse("path", "must be absolute, without '..'");
    }
    let kinds = [
        ("", HostPathKind::Any),
        ("DirectoryOrCreate", HostPathKind::DirectoryOrCreate),
        ("Directory", HostPathKind::Directory),
        ("FileOrCreate", HostPathKind::FileOrCreate),
        ("File", HostPathKind::File),
        ("Socket", HostPathKind::Socket),
        ("CharDevice", HostPathKind::CharDevice),
        ("BlockDevice", HostPathKind::BlockDevice),
    ];
    let kind = o.word("type", &kinds).unwrap_or(HostPathKind::Any);
    o.finish();
    VolumeSource::HostPath { path, kind }
}

/// The first value that is there twice.
pub(super) fn duplicate<T: Ord>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut all: Vec<T> = values.collect();
    all.sort();
    let at = all.windows(2).position(|pair| pair[0] == pair[1])?;
    Some(all.swap_remove(at))
}

/// A DNS label (RFC 1123).
pub fn label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

fn subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(label)
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
