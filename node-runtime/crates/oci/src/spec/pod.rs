//! RunPodSandbox: what is refused, and the namespaces to make.
use super::facts::{NodeFacts, PodPaths};
use super::{paths, sysctl};
use crate::pod_dir::PodDir;
use berth_model::{DnsConfig, Error, ErrorKind, IdMapping, NamespaceMode, NamespaceOptions, PodConfig, Result};
use berth_monitor_api::spec::{CgroupJoin, PidInit, SandboxSpec, Shm, UserNamespace};

/// Size of a pod's /dev/shm in bytes, as with the peers.
const SHM_SIZE: u64 = 64 * 1024 * 1024;
/// The pod's init outlives its containers when memory runs out, as a pause process does.
const INIT_OOM_SCORE: i32 = -998;
/// Longest name of an object in Kubernetes, in bytes.
const MAX_NAME: usize = 253;
/// Longest host name (`HOST_NAME_MAX`).
const MAX_HOSTNAME: usize = 64;
/// Most entries of one kind in resolv.conf; Kubernetes allows 3 servers and 32 search domains.
const MAX_DNS: usize = 64;

/// Refuses what no pod can be made from. Errors: `InvalidArgument` naming the field; `FailedPrecondition` for what this node
/// cannot do.
pub fn validate_pod(pod: &PodConfig, node: &NodeFacts) -> Result<()> {
    for (field, value) in [
        ("metadata.name", &pod.metadata.name),
        ("metadata.namespace", &pod.metadata.namespace),
        ("metadata.uid", &pod.metadata.uid),
    ] {
        paths::name(field, value, MAX_NAME)?;
    }
    handler(&pod.handler)?;
    hostname(&pod.hostname)?;
    if !pod.log_directory.is_empty() {
        paths::absolute("log_directory", &pod.log_directory)?;
    }
    dns(&pod.dns)?;
    cgroup_parent(&pod.cgroup_parent)?;
    if let Some(i) = pod.ports.iter().position(|port| port.container_port == 0 || port.host_port == 0) {
        return Err(Error::invalid(format!("port_mappings[{i}]"), "ports go from 1 to 65535"));
    }
    namespaces(&pod.security.namespaces, node)?;
    sysctl::sysctls(pod).map(drop)
}

/// A pod that asks for another isolation must not run in the default one.
fn handler(name: &str) -> Result<()> {
    if name.is_empty() {
        return Ok(());
    }
    let problem = format_args!("this node has no handler {name:?}, only the default one; see the pod's RuntimeClass");
    Err(Error::invalid("runtime_handler", problem))
}

fn hostname(name: &str) -> Result<()> {
    if name.len() > MAX_HOSTNAME {
        return Err(Error::invalid(
            "hostname",
            format_args!("{} bytes are more than the limit of {MAX_HOSTNAME}", name.len()),
        ));
    }
    let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if !name.bytes().all(valid) {
        return Err(Error::invalid(
            "hostname",
            format_args!("{name:?} may only have letters, digits, `-`, `.` and `_`"),
        ));
    }
    Ok(())
}

/// One entry is one word of resolv.conf: anything else would write lines of its own.
fn dns(dns: &DnsConfig) -> Result<()> {
    for (field, entries) in [("servers", &dns.servers), ("searches", &dns.searches), ("options", &dns.options)] {
        if entries.len() > MAX_DNS {
            return Err(Error::invalid(format!("dns_config.{field}"), format_args!("more than {MAX_DNS} entries")));
        }
        let word = |text: &String| !text.is_empty() && text.len() <= 255 && text.bytes().all(|b| b.is_ascii_graphic());
        if let Some(i) = entries.iter().position(|entry| !word(entry)) {
            return Err(Error::invalid(
                format!("dns_config.{field}[{i}]"),
                format_args!("{:?} must be one word of at most 255 characters", entries[i]),
            ));
        }
    }
    Ok(())
}

/// Syntax alone; where it lies is the cgroup driver's matter.
fn cgroup_parent(parent: &str) -> Result<()> {
    if parent.is_empty() { Ok(()) } else { paths::absolute("linux.cgroup_parent", &format!("/{parent}")).map(drop) }
}

fn namespaces(options: &NamespaceOptions, node: &NodeFacts) -> Result<()> {
    let field = |name: &str| format!("linux.security_context.namespace_options.{name}");
    for (name, mode) in [("network", options.network), ("ipc", options.ipc)] {
        if !matches!(mode, NamespaceMode::Pod | NamespaceMode::Node) {
            return Err(Error::invalid(field(name), format_args!("{mode:?} is not possible; use POD or NODE")));
        }
    }
    if options.pid == NamespaceMode::Target {
        return Err(Error::invalid(field("pid"), "TARGET is for containers only; use POD, CONTAINER or NODE"));
    }
    let Some((uid, gid)) = options.user else { return Ok(()) };
    if !node.user_namespaces {
        let problem =
            "this node's kernel cannot shift ids of mounts, which user namespaces need (Linux 6.3, idmapped mounts)";
        return Err(Error::new(ErrorKind::FailedPrecondition, format!("{}: {problem}", field("userns_options"))));
    }
    mapping(&field("userns_options.uids"), uid)?;
    mapping(&field("userns_options.gids"), gid)?;
    for (name, mode) in [("pid", options.pid), ("ipc", options.ipc)] {
        if mode == NamespaceMode::Node {
            return Err(Error::invalid(
                field(name),
                "NODE is not possible in a pod with a user namespace: the kernel forbids its mounts",
            ));
        }
    }
    Ok(())
}

fn mapping(field: &str, map: IdMapping) -> Result<()> {
    if map.container != 0 || map.length == 0 {
        return Err(Error::invalid(field, "id 0 of the container must be mapped"));
    }
    // u32::MAX is no id (it means "leave as it is" to chown and setresuid), so a range must end below it.
    if u64::from(map.host) + u64::from(map.length) > u64::from(u32::MAX) {
        return Err(Error::invalid(
            field,
            format_args!("{} ids from {} on reach beyond the last id", map.length, map.host),
        ));
    }
    Ok(())
}

/// What a sandbox is made from.
pub struct SandboxInputs<'a> {
    /// The request, validated.
    pub pod: &'a PodConfig,
    /// The pod's directory.
    pub dir: &'a PodDir,
    /// SELinux label of the pod's own files.
    pub file_label: Option<String>,
    /// Cgroup of the pod's init; needed where the pod shares a PID namespace.
    pub init_cgroup: Option<CgroupJoin>,
}

/// The namespaces of a pod. Errors: `InvalidArgument` for sysctls, `Internal` where the init's cgroup is missing.
pub fn sandbox_spec(inputs: &SandboxInputs<'_>) -> Result<SandboxSpec> {
    let (pod, namespaces) = (inputs.pod, &inputs.pod.security.namespaces);
    let paths = PodPaths::of(inputs.dir, pod);
    let pid_init = match (namespaces.pid, &inputs.init_cgroup) {
        (NamespaceMode::Pod, Some(cgroup)) => Some(PidInit { cgroup: cgroup.clone(), oom_score_adj: INIT_OOM_SCORE }),
        (NamespaceMode::Pod, None) => {
            return Err(Error::internal("a shared PID namespace was planned without a cgroup for its init"));
        }
        _ => None,
    };
    let user = namespaces.user.zip(paths.user).map(|((uid, gid), path)| UserNamespace { path, uid, gid });
    Ok(SandboxSpec {
        shm: paths.ipc.is_some().then_some(Shm { path: paths.shm, size: SHM_SIZE, label: inputs.file_label.clone() }),
        hostname: if paths.uts.is_some() { pod.hostname.clone() } else { String::new() },
        net: paths.net,
        ipc: paths.ipc,
        uts: paths.uts,
        user,
        sysctls: sysctl::sysctls(pod)?,
        pid_init,
    })
}
