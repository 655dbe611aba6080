//! PodSandboxConfig.
use super::{bounded, enumeration, line, required, resources, security, text};
use berth_model::{DnsConfig, Error, PodConfig, PodMetadata, PortMapping, Protocol, Result};
use berth_proto::cri as wire;

/// Most port mappings of a pod.
const MAX_PORTS: usize = 4096;

/// Decodes a sandbox's configuration.
pub(crate) fn pod_config(config: Option<wire::PodSandboxConfig>, handler: String) -> Result<PodConfig> {
    let config = required("config", config)?;
    let linux = config.linux.unwrap_or_default();
    let field = "config.linux.resources";
    Ok(PodConfig {
        metadata: metadata(config.metadata)?,
        hostname: line("config.hostname", config.hostname)?,
        log_directory: bounded("config.log_directory", config.log_directory)?,
        dns: dns(config.dns_config.unwrap_or_default())?,
        ports: ports(config.port_mappings)?,
        labels: config.labels.into_iter().collect(),
        annotations: config.annotations.into_iter().collect(),
        cgroup_parent: bounded("config.linux.cgroup_parent", linux.cgroup_parent)?,
        sysctls: linux.sysctls.into_iter().collect(),
        security: security::sandbox(linux.security_context.unwrap_or_default())?,
        overhead: resources("config.linux.overhead", linux.overhead.unwrap_or_default())?,
        resources: resources(field, linux.resources.unwrap_or_default())?,
        handler,
    })
}

fn metadata(metadata: Option<wire::PodSandboxMetadata>) -> Result<PodMetadata> {
    let metadata = required("config.metadata", metadata)?;
    Ok(PodMetadata {
        name: text("config.metadata.name", metadata.name)?,
        namespace: text("config.metadata.namespace", metadata.namespace)?,
        uid: text("config.metadata.uid", metadata.uid)?,
        attempt: metadata.attempt,
    })
}

fn dns(dns: wire::DnsConfig) -> Result<DnsConfig> {
    let lines = |field: &str, values: Vec<String>| -> Result<Vec<String>> {
        values.into_iter().map(|v| line(&format!("config.dns_config.{field}"), v)).collect()
    };
    Ok(DnsConfig {
        servers: lines("servers", dns.servers)?,
        searches: lines("searches", dns.searches)?,
        options: lines("options", dns.options)?,
    })
}

/// Host port 0 means "none" and never "pick one": such mappings say nothing to us.
fn ports(ports: Vec<wire::PortMapping>) -> Result<Vec<PortMapping>> {
    if ports.len() > MAX_PORTS {
        let problem = format!("has {} entries, the limit is {MAX_PORTS}", ports.len());
        return Err(Error::invalid("config.port_mappings", problem));
    }
    let mut decoded = Vec::new();
    for (i, port) in ports.into_iter().enumerate() {
        let field = format!("config.port_mappings[{i}]");
        if port.host_port == 0 {
            continue;
        }
        let number = |name: &str, value: i32| match u16::try_from(value) {
            Ok(n) if n > 0 => Ok(n),
            _ => Err(Error::invalid(format!("{field}.{name}"), format!("{value} is not a port; ports are 1 to 65535"))),
        };
        let protocol = match enumeration(&format!("{field}.protocol"), port.protocol)? {
            wire::Protocol::Tcp => Protocol::Tcp,
            wire::Protocol::Udp => Protocol::Udp,
            wire::Protocol::Sctp => Protocol::Sctp,
        };
        let host_ip = match port.host_ip.as_str() {
            "" => None,
            ip => Some(ip.parse().map_err(|_| Error::invalid(format!("{field}.host_ip"), "is not an address"))?),
        };
        decoded.push(PortMapping {
            protocol,
            container_port: number("container_port", port.container_port)?,
            host_port: number("host_port", port.host_port)?,
            host_ip,
        });
    }
    Ok(decoded)
}
