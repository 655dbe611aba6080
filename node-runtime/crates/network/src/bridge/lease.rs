//! What is recorded: the attachment that goes into the pod's record, and the lease that the store keeps.
use super::config::{OWN_MACS, mac_of};
use crate::bandwidth::Bandwidth;
use crate::mac::Mac;
use berth_model::{Error, PodConfig, PodId, PortMapping, Result};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Largest lease that is read back, in bytes.
const LEASE_MAX: usize = 256 * 1024;

/// How a pod hangs on the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Name of the interface in the pod.
    pub interface: String,
    /// Name of its other end on the node.
    pub host_interface: String,
    /// Hardware address of the interface in the pod, as `02:be:0a:40:00:02`.
    pub mac: String,
    /// Addresses of the pod, each with its subnet's prefix, that of the primary family first.
    pub addresses: Vec<IpNet>,
    /// Where the pod's default route of the first address' family goes.
    pub gateway: IpAddr,
    /// Where that of the other family goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second_gateway: Option<IpAddr>,
}

/// What a pod wants of its network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodNetwork {
    /// `namespace/name`, for messages to others.
    pub name: String,
    /// Host ports.
    pub ports: Vec<PortMapping>,
    /// Most bits a second.
    pub bandwidth: Bandwidth,
    /// Hardware address of the interface in the pod; by default one that follows from the pod's address.
    pub mac: Option<Mac>,
}

impl PodNetwork {
    /// What a pod's configuration says. Errors: `InvalidArgument` naming an annotation.
    pub fn of(config: &PodConfig) -> Result<Self> {
        let bandwidth = Bandwidth::from_annotations(&config.annotations)?;
        let name = format!("{}/{}", config.metadata.namespace, config.metadata.name);
        let mac = Mac::for_bridge(&config.annotations, OWN_MACS)?;
        Ok(Self { name, ports: config.ports.clone(), bandwidth, mac })
    }
}

/// Where leases are kept. Keys are pod ids. `put` and `remove` are durable when they return; they are called from threads
/// that may block.
pub trait Leases: Send + Sync {
    /// All leases.
    fn all(&self) -> Result<Vec<(String, Vec<u8>)>>;
    /// Writes one.
    fn put(&self, key: &str, value: &[u8]) -> Result<()>;
    /// Removes one; no error if it is not there.
    fn remove(&self, key: &str) -> Result<()>;
}

/// An address in use, and all that hangs on it. New fields must be optional: the version before reads what this one writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lease {
    /// The pod's address.
    pub(super) address: Ipv4Addr,
    /// Name of the pod's interface on the node.
    pub(super) host_interface: String,
    /// Host ports.
    #[serde(default)]
    pub(super) ports: Vec<PortMapping>,
    /// Grows with every lease: the highest one was handed out last.
    #[serde(default)]
    pub(super) serial: u64,
    /// The pod's IPv6 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) address6: Option<Ipv6Addr>,
    /// `namespace/name` of the pod.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) name: String,
    /// Name of the `ifb` interface that limits what the pod sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) limiter: Option<String>,
    /// The hardware address that the pod asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) mac: Option<Mac>,
}

impl Lease {
    /// The pod's addresses.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        [Some(IpAddr::V4(self.address)), self.address6.map(IpAddr::V6)].into_iter().flatten()
    }

    /// Hardware address of the interface in the pod.
    pub(super) fn hardware_address(&self) -> [u8; 6] {
        self.mac.map_or_else(|| mac_of(self.address), Mac::bytes)
    }

    /// As bytes for the store.
    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|e| Error::internal(format!("encode an address lease: {e}")))
    }

    /// From the store.
    pub(super) fn decode(key: &str, value: &[u8]) -> Result<(PodId, Self)> {
        if value.len() > LEASE_MAX {
            return Err(Error::internal(format!("address lease {key}: {} bytes are too many", value.len())));
        }
        let lease = serde_json::from_slice(value).map_err(|e| Error::internal(format!("address lease {key}: {e}")))?;
        Ok((PodId::parse(key)?, lease))
    }
}

/// The node's end of a pod's veth pair: told from the id alone, so that it can be found without a record.
pub(super) fn host_interface(pod: &PodId) -> String {
    format!("bv{}", pod.short())
}

/// The interface that limits what a pod sends.
pub(super) fn limiter(pod: &PodId) -> String {
    format!("bi{}", pod.short())
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_model::Protocol;

    #[test]
    fn a_lease_reads_back_and_a_torn_one_is_an_error() {
        let pod = PodId::from_random([7; 32]);
        let lease = Lease {
            address: Ipv4Addr::new(10, 64, 0, 2),
            host_interface: host_interface(&pod),
            ports: vec![PortMapping { protocol: Protocol::Udp, container_port: 53, host_port: 5353, host_ip: None }],
            serial: 9,
            address6: Some("fdbe::2".parse().unwrap()),
            name: "default/web".into(),
            limiter: Some(limiter(&pod)),
            mac: None,
        };
        let bytes = lease.encode().unwrap();
        assert_eq!(Lease::decode(pod.as_str(), &bytes).unwrap(), (pod.clone(), lease));
        assert!(Lease::decode(pod.as_str(), &bytes[..bytes.len() - 1]).is_err());
        assert!(Lease::decode("short", &bytes).is_err());
        let former = br#"{"address":"10.64.0.2","host_interface":"bv1","ports":[],"serial":1}"#;
        let (_, read) = Lease::decode(pod.as_str(), former).unwrap();
        assert_eq!(
            (read.address6, read.limiter, read.mac),
            (None, None, None),
            "what the version before wrote is read"
        );
        assert_eq!(host_interface(&pod).len(), 14, "interface names have at most 15 characters");
    }
}
