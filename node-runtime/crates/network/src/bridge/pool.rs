//! Who has which address and which host port.
//!
//! Addresses are handed out in rising order; one that was released comes again only when all others were used (then the
//! one released longest ago): a former pod's network namespace may live on for a while, and its peers remember it.
//! Must not: do I/O.
use super::config::BridgeConfig;
use super::lease::{Lease, host_interface};
use crate::nft::HostPort;
use berth_model::{Error, ErrorKind, PodId, PortMapping, Protocol, Result};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

/// Most host ports of one pod. A transaction of that many fits a socket's default send buffer.
const PORTS_MAX: usize = 256;

/// An address that a pod had, and the interface that it was at.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Released {
    address: Ipv4Addr,
    host_interface: String,
}

/// What a pod was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reservation {
    /// The lease.
    pub(super) lease: Lease,
    /// The interface of the pod that had the address before: it must be gone before the address is used.
    pub(super) former_interface: Option<String>,
}

/// Addresses and ports in use.
#[derive(Debug)]
pub(super) struct Pool {
    config: BridgeConfig,
    leases: BTreeMap<PodId, Lease>,
    by_address: HashMap<Ipv4Addr, PodId>,
    /// Addresses that were in use since the pool exists, released longest ago first.
    released: VecDeque<Released>,
    /// The next address that was not in use since the pool exists, and how many such are left to look at.
    next: u32,
    unseen: u32,
    serial: u64,
    ports: HashMap<(Protocol, u16), BTreeMap<Option<Ipv4Addr>, PodId>>,
}

impl Pool {
    /// A pool in which `leases` are in use.
    pub(super) fn new(config: &BridgeConfig, leases: Vec<(PodId, Lease)>) -> Self {
        let first = config.gateway().to_bits() + 1;
        let unseen = config.subnet.broadcast().to_bits() - first;
        let mut pool = Self {
            config: config.clone(),
            leases: BTreeMap::new(),
            by_address: HashMap::new(),
            released: VecDeque::new(),
            next: first,
            unseen,
            serial: 0,
            ports: HashMap::new(),
        };
        for (pod, lease) in leases {
            if lease.serial >= pool.serial && config.subnet.contains(&lease.address) {
                pool.serial = lease.serial;
                pool.next = lease.address.to_bits() + 1;
            }
            pool.insert(pod, lease);
        }
        pool
    }

    /// Gives a pod an address and its host ports. A pod that has a lease keeps its address.
    /// Errors: `AlreadyExists` (a host port), `ResourceExhausted` (addresses), `InvalidArgument` (a mapping).
    pub(super) fn reserve(&mut self, pod: &PodId, ports: &[PortMapping]) -> Result<Reservation> {
        self.check_ports(pod, ports)?;
        let (address, former_interface) = match self.leases.get(pod) {
            Some(lease) => (lease.address, Some(lease.host_interface.clone())),
            None => self.take_address()?,
        };
        self.drop_ports(pod);
        self.serial += 1;
        let host_interface = host_interface(pod);
        let lease = Lease { address, host_interface, ports: ports.to_vec(), serial: self.serial };
        self.insert(pod.clone(), lease.clone());
        Ok(Reservation { lease, former_interface })
    }

    /// Forgets a pod's host ports; its address stays in use.
    pub(super) fn drop_ports(&mut self, pod: &PodId) {
        if let Some(lease) = self.leases.get_mut(pod) {
            for port in std::mem::take(&mut lease.ports) {
                let key = (port.protocol, port.host_port);
                if let Some(owners) = self.ports.get_mut(&key) {
                    owners.retain(|_, owner| owner != pod);
                    if owners.is_empty() {
                        self.ports.remove(&key);
                    }
                }
            }
        }
    }

    /// Takes everything back that a pod had.
    pub(super) fn release(&mut self, pod: &PodId) {
        self.drop_ports(pod);
        if let Some(lease) = self.leases.remove(pod) {
            if self.by_address.get(&lease.address) == Some(pod) {
                self.by_address.remove(&lease.address);
            }
            self.released.push_back(Released { address: lease.address, host_interface: lease.host_interface });
        }
    }

    /// The lease of a pod.
    pub(super) fn get(&self, pod: &PodId) -> Option<&Lease> {
        self.leases.get(pod)
    }

    /// All leases.
    pub(super) fn leases(&self) -> impl Iterator<Item = (&PodId, &Lease)> {
        self.leases.iter()
    }

    /// All host ports, as nftables has them.
    pub(super) fn host_ports(&self) -> Vec<HostPort> {
        self.leases.values().flat_map(host_ports).collect()
    }

    fn insert(&mut self, pod: PodId, lease: Lease) {
        self.by_address.insert(lease.address, pod.clone());
        for port in &lease.ports {
            let owners = self.ports.entry((port.protocol, port.host_port)).or_default();
            owners.insert(node_address(port.host_ip), pod.clone());
        }
        self.leases.insert(pod, lease);
    }

    fn take_address(&mut self) -> Result<(Ipv4Addr, Option<String>)> {
        let first = self.config.gateway().to_bits() + 1;
        let broadcast = self.config.subnet.broadcast().to_bits();
        while self.unseen > 0 {
            self.unseen -= 1;
            if !(first..broadcast).contains(&self.next) {
                self.next = first;
            }
            let address = Ipv4Addr::from_bits(self.next);
            self.next += 1;
            let seen = self.by_address.contains_key(&address) || self.released.iter().any(|r| r.address == address);
            if !seen {
                return Ok((address, None));
            }
        }
        // An address is released once for each of its leases, and may be in use again by a lease that was there first.
        while let Some(released) = self.released.pop_front() {
            let ours = self.config.subnet.contains(&released.address);
            if ours && !self.by_address.contains_key(&released.address) {
                return Ok((released.address, Some(released.host_interface)));
            }
        }
        let (subnet, size) = (self.config.subnet, broadcast - first);
        Err(Error::new(
            ErrorKind::ResourceExhausted,
            format!(
                "subnet {subnet} of the built-in network: all of its {size} pod addresses are in use; remove pods, or \
                 give the network a larger subnet"
            ),
        ))
    }

    fn check_ports(&self, pod: &PodId, ports: &[PortMapping]) -> Result<()> {
        if ports.len() > PORTS_MAX {
            return Err(Error::invalid("ports", format!("{} are too many; the limit is {PORTS_MAX}", ports.len())));
        }
        let mut own: Vec<(Protocol, u16, Option<Ipv4Addr>)> = Vec::new();
        for (i, port) in ports.iter().enumerate() {
            let field = |name: &str| format!("ports[{i}].{name}");
            if port.host_port == 0 || port.container_port == 0 {
                let name = if port.host_port == 0 { "hostPort" } else { "containerPort" };
                return Err(Error::invalid(field(name), "must be 1 to 65535"));
            }
            if let Some(IpAddr::V6(v6)) = port.host_ip.filter(|ip| !ip.is_unspecified()) {
                let problem = format!("{v6}: the built-in network has only IPv4 yet");
                return Err(Error::invalid(field("hostIP"), problem));
            }
            let address = node_address(port.host_ip);
            let clash = |other: Option<Ipv4Addr>| other.is_none() || address.is_none() || other == address;
            if own.iter().any(|o| o.0 == port.protocol && o.1 == port.host_port && clash(o.2)) {
                return Err(Error::invalid(field("hostPort"), format!("{} is mapped twice", words(port))));
            }
            own.push((port.protocol, port.host_port, address));
            let owners = self.ports.get(&(port.protocol, port.host_port)).into_iter().flatten();
            if let Some((_, owner)) = owners.into_iter().find(|(at, owner)| *owner != pod && clash(**at)) {
                let message = format!("{}: host port {} is taken by pod {owner}", field("hostPort"), words(port));
                return Err(Error::new(ErrorKind::AlreadyExists, message));
            }
        }
        Ok(())
    }
}

/// The host ports of a lease, as nftables has them.
pub(super) fn host_ports(lease: &Lease) -> Vec<HostPort> {
    let map = |p: &PortMapping| HostPort {
        protocol: p.protocol,
        address: node_address(p.host_ip),
        port: p.host_port,
        target: SocketAddrV4::new(lease.address, p.container_port),
    };
    lease.ports.iter().map(map).collect()
}

/// An unspecified address of the node is all of them.
fn node_address(ip: Option<IpAddr>) -> Option<Ipv4Addr> {
    match ip {
        Some(IpAddr::V4(v4)) if !v4.is_unspecified() => Some(v4),
        _ => None,
    }
}

fn words(port: &PortMapping) -> String {
    let protocol = match port.protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    };
    match node_address(port.host_ip) {
        Some(ip) => format!("{protocol} {ip}:{}", port.host_port),
        None => format!("{protocol} {}", port.host_port),
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
