//! A Pod to the CRI requests that a kubelet would make of it. The kubelet's labels are set, so that crictl and its like find
//! what belongs together.
use super::expand::{environment, expand, known};
use super::resources::{PERIOD, Requirements, oom_score_adj};
use super::security::{self, Image};
use super::{Container, Pod, Propagation, Protocol, RecursiveReadOnly, VolumeMount, VolumeSource};
use berth_proto::cri as wire;
use std::collections::HashMap;
use std::path::PathBuf;

/// Label with a pod's name, as the kubelet sets it.
const POD_NAME: &str = "io.kubernetes.pod.name";
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
const POD_UID: &str = "io.kubernetes.pod.uid";
const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Annotation of a container with the seconds that it gets to stop in, as the kubelet sets it.
pub const GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";
/// Longest host name (sethostname(2) takes 64 bytes, DNS 63).
const HOSTNAME_MAX: usize = 63;

/// What the Pod does not say: chosen, or read from the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    pub uid: String,
    pub log_directory: PathBuf,
    /// Where the pod's `emptyDir` volumes lie, by name.
    pub empty_dirs: PathBuf,
    /// Text of the node's resolv.conf.
    pub resolv_conf: String,
    /// Bytes of the node's memory.
    pub node_memory: i64,
    /// Whether the node can mount read-only recursively.
    pub recursive_read_only: bool,
    /// First id of the pod's user namespace, if it has one.
    pub first_user_id: u32,
    /// The node's `/sys/devices/system/cpu/cpu*/thermal_throttle`.
    pub thermal_paths: Vec<String>,
}

/// RunPodSandbox.
pub fn sandbox(pod: &Pod, facts: &Facts) -> wire::PodSandboxConfig {
    let dns = pod.dns.resolve(&facts.resolv_conf);
    let hostname = pod.hostname.clone().unwrap_or_else(|| pod.name.clone());
    let hostname: String = hostname.chars().take(HOSTNAME_MAX).collect();
    wire::PodSandboxConfig {
        metadata: Some(wire::PodSandboxMetadata {
            name: pod.name.clone(),
            uid: facts.uid.clone(),
            namespace: pod.namespace.clone(),
            attempt: 0,
        }),
        // On the node's network the pod has the node's name.
        hostname: if pod.host_network { String::new() } else { hostname.trim_end_matches(['-', '.']).to_owned() },
        log_directory: facts.log_directory.to_string_lossy().into_owned(),
        dns_config: Some(wire::DnsConfig { servers: dns.servers, searches: dns.searches, options: dns.options }),
        port_mappings: if pod.host_network { Vec::new() } else { ports(pod) },
        labels: labels(pod, facts, pod.labels.iter().map(|(k, v)| (k.clone(), v.clone()))),
        annotations: pod.annotations.clone().into_iter().collect(),
        linux: Some(wire::LinuxPodSandboxConfig {
            security_context: Some(security::sandbox(pod, facts)),
            sysctls: pod.security.sysctls.clone().into_iter().collect(),
            resources: Some(sum(pod)),
            ..Default::default()
        }),
        windows: None,
    }
}

/// CreateContainer. Errors name the container and the reason.
pub fn container(
    pod: &Pod,
    container: &Container,
    image: &Image,
    facts: &Facts,
) -> Result<wire::ContainerConfig, String> {
    let fail = |problem: String| format!("container {}: {problem}", container.name);
    let env = environment(&container.env);
    let names = known(&env);
    let expanded = |list: &[String]| list.iter().map(|text| expand(text, &names)).collect();
    let all: Vec<&Requirements> = pod.containers.iter().map(|c| &c.resources).collect();
    let mut resources = limits(&container.resources);
    resources.oom_score_adj = oom_score_adj(&container.resources, &all, facts.node_memory);
    let own = [(CONTAINER_NAME.to_owned(), container.name.clone())];
    Ok(wire::ContainerConfig {
        metadata: Some(wire::ContainerMetadata { name: container.name.clone(), attempt: 0 }),
        image: Some(wire::ImageSpec {
            image: image.id.clone(),
            user_specified_image: container.image.clone(),
            ..Default::default()
        }),
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone(),
        mounts: container.mounts.iter().map(|m| mount(pod, m, facts)).collect(),
        labels: labels(pod, facts, own.into_iter()),
        annotations: HashMap::from([(GRACE_PERIOD.to_owned(), pod.termination_grace_period.to_string())]),
        log_path: format!("{}/0.log", container.name),
        stdin: container.stdin,
        stdin_once: container.stdin_once,
        tty: container.tty,
        linux: Some(wire::LinuxContainerConfig {
            resources: Some(resources),
            security_context: Some(security::container(pod, container, image, facts).map_err(fail)?),
        }),
        envs: env.iter().map(|(k, v)| wire::KeyValue { key: k.clone(), value: v.clone().into_bytes() }).collect(),
        ..Default::default()
    })
}

fn labels(pod: &Pod, facts: &Facts, more: impl Iterator<Item = (String, String)>) -> HashMap<String, String> {
    let ours = [(POD_NAME, &pod.name), (POD_NAMESPACE, &pod.namespace), (POD_UID, &facts.uid)];
    more.chain(ours.into_iter().map(|(k, v)| (k.to_owned(), v.clone()))).collect()
}

fn ports(pod: &Pod) -> Vec<wire::PortMapping> {
    let published = pod.containers.iter().flat_map(|c| &c.ports).filter_map(|p| Some((p, p.host_port?)));
    let mapping = |(port, host): (&super::Port, u16)| wire::PortMapping {
        protocol: match port.protocol {
            Protocol::Tcp => wire::Protocol::Tcp,
            Protocol::Udp => wire::Protocol::Udp,
            Protocol::Sctp => wire::Protocol::Sctp,
        } as i32,
        container_port: i32::from(port.container_port),
        host_port: i32::from(host),
        host_ip: port.host_ip.clone(),
    };
    published.map(mapping).collect()
}

fn mount(pod: &Pod, mount: &VolumeMount, facts: &Facts) -> wire::Mount {
    let volume = &pod.volumes[mount.volume];
    let host_path = match &volume.source {
        VolumeSource::HostPath { path, .. } => path.clone(),
        VolumeSource::EmptyDir => facts.empty_dirs.join(&volume.name).to_string_lossy().into_owned(),
    };
    let recursive_read_only = match mount.recursive {
        RecursiveReadOnly::Disabled => false,
        RecursiveReadOnly::IfPossible => facts.recursive_read_only,
        RecursiveReadOnly::Enabled => true,
    };
    let propagation = match mount.propagation {
        Propagation::None => wire::MountPropagation::PropagationPrivate,
        Propagation::HostToContainer => wire::MountPropagation::PropagationHostToContainer,
        Propagation::Bidirectional => wire::MountPropagation::PropagationBidirectional,
    };
    wire::Mount {
        container_path: mount.path.clone(),
        host_path,
        readonly: mount.read_only,
        recursive_read_only,
        propagation: propagation as i32,
        uid_mappings: security::id_mappings(pod, facts),
        gid_mappings: security::id_mappings(pod, facts),
        ..Default::default()
    }
}

fn limits(r: &Requirements) -> wire::LinuxContainerResources {
    wire::LinuxContainerResources {
        cpu_period: PERIOD,
        cpu_quota: r.quota(),
        cpu_shares: r.shares(),
        memory_limit_in_bytes: r.memory_limit.unwrap_or(0),
        ..Default::default()
    }
}

/// The pod's own limits: sums, and no limit where one container has none.
fn sum(pod: &Pod) -> wire::LinuxContainerResources {
    let request = |read: fn(&Requirements) -> Option<i64>| {
        pod.containers.iter().map(|c| read(&c.resources).unwrap_or(0)).fold(0i64, i64::saturating_add)
    };
    let limit = |read: fn(&Requirements) -> Option<i64>| {
        let limits = pod.containers.iter().map(|c| read(&c.resources)).collect::<Option<Vec<_>>>();
        limits.map(|l| l.into_iter().fold(0i64, i64::saturating_add))
    };
    limits(&Requirements {
        cpu_request: Some(request(|r| r.cpu_request)),
        cpu_limit: limit(|r| r.cpu_limit),
        memory_request: None,
        memory_limit: limit(|r| r.memory_limit),
    })
}

#[cfg(test)]
#[path = "translate_tests.rs"]
mod tests;
