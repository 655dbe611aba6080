//! Who has which address and which host port.
//!
//! Addresses are handed out in rising order; one that was released comes again only when all others were used (then the
//! one released longest ago): a former pod's network namespace may live on for a while, and its peers remember it.
//! Must not: do I/O.
use super::config::BridgeConfig;
use super::lease::{Lease, PodNetwork, host_interface, limiter};
use super::ports::{self, host_ports};
use crate::mac::Mac;
use crate::nft::HostPort;
use berth_model::{Error, ErrorKind, PodId, Protocol, Result};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};

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
    /// Host ports by the node's addresses; an unspecified address is all of its family.
    ports: HashMap<(Protocol, u16), BTreeMap<IpAddr, PodId>>,
}

/// How full the network is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolUsage {
    /// Subnet of the addresses.
    pub subnet: ipnet::Ipv4Net,
    /// How many pods can have an address.
    pub size: u32,
    /// How many have one.
    pub used: u32,
}

impl Pool {
    /// A pool in which `leases` are in use.
    pub(super) fn new(config: &BridgeConfig, leases: Vec<(PodId, Lease)>) -> Self {
        let first = config.first_pod().to_bits();
        let unseen = size(config);
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
    /// Errors: `AlreadyExists` (a host port, a hardware address), `ResourceExhausted` (addresses), `InvalidArgument` (a mapping).
    pub(super) fn reserve(&mut self, pod: &PodId, wish: &PodNetwork) -> Result<Reservation> {
        ports::check(&wish.ports, self.config.subnet6.is_some(), |key, place| {
            let owners = self.ports.get(&key).into_iter().flatten();
            let owner = owners.into_iter().find(|(at, owner)| *owner != pod && ports::clash(**at, place));
            owner.map(|(_, owner)| self.title(owner))
        })?;
        self.check_mac(pod, wish.mac)?;
        let (address, former_interface) = match self.leases.get(pod) {
            Some(lease) => (lease.address, Some(lease.host_interface.clone())),
            None => self.take_address()?,
        };
        self.drop_ports(pod);
        self.serial += 1;
        let lease = Lease {
            address,
            address6: self.config.beside(address),
            host_interface: host_interface(pod),
            ports: wish.ports.clone(),
            serial: self.serial,
            name: wish.name.clone(),
            limiter: wish.bandwidth.egress.map(|_| limiter(pod)),
            mac: wish.mac,
        };
        self.insert(pod.clone(), lease.clone());
        Ok(Reservation { lease, former_interface })
    }

    /// Two pods with one hardware address on one bridge would take each other's packets.
    fn check_mac(&self, pod: &PodId, wanted: Option<Mac>) -> Result<()> {
        let Some(mac) = wanted else { return Ok(()) };
        let mut others = self.leases.iter().filter(|(other, lease)| *other != pod && lease.mac == Some(mac));
        others.next().map_or(Ok(()), |(owner, _)| Err(mac.taken(&self.title(owner))))
    }

    /// A pod for people.
    fn title(&self, pod: &PodId) -> String {
        match self.leases.get(pod).map(|lease| lease.name.as_str()) {
            Some(name) if !name.is_empty() => format!("{name} ({pod})"),
            _ => pod.to_string(),
        }
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
        let dual = self.config.subnet6.is_some();
        self.leases.values().flat_map(|lease| host_ports(lease, dual)).collect()
    }

    /// The same without those of some pods.
    pub(super) fn host_ports_but(&self, pods: &HashSet<PodId>) -> Vec<HostPort> {
        let dual = self.config.subnet6.is_some();
        let rest = self.leases.iter().filter(|(pod, _)| !pods.contains(*pod));
        rest.flat_map(|(_, lease)| host_ports(lease, dual)).collect()
    }

    /// How full it is.
    pub(super) fn usage(&self) -> PoolUsage {
        let pods = self.config.first_pod()..=self.config.last_pod();
        let used = self.leases.values().filter(|lease| pods.contains(&lease.address)).count();
        let used = u32::try_from(used).unwrap_or(u32::MAX);
        PoolUsage { subnet: self.config.subnet, size: size(&self.config), used }
    }

    fn insert(&mut self, pod: PodId, lease: Lease) {
        self.by_address.insert(lease.address, pod.clone());
        for port in &lease.ports {
            let owners = self.ports.entry((port.protocol, port.host_port)).or_default();
            let places = ports::places(port.host_ip, self.config.subnet6.is_some());
            owners.extend(places.into_iter().map(|place| (place, pod.clone())));
        }
        self.leases.insert(pod, lease);
    }

    fn take_address(&mut self) -> Result<(Ipv4Addr, Option<String>)> {
        let pods = self.config.first_pod()..=self.config.last_pod();
        while self.unseen > 0 {
            self.unseen -= 1;
            if !pods.contains(&Ipv4Addr::from_bits(self.next)) {
                self.next = pods.start().to_bits();
            }
            let address = Ipv4Addr::from_bits(self.next);
            self.next += 1;
            if !self.in_use(address) && !self.released.iter().any(|r| r.address == address) {
                return Ok((address, None));
            }
        }
        // An address is released once for each of its leases, and may be in use again by a lease that was there first.
        while let Some(released) = self.released.pop_front() {
            if pods.contains(&released.address) && !self.in_use(released.address) {
                return Ok((released.address, Some(released.host_interface)));
            }
        }
        let PoolUsage { subnet, size, used } = self.usage();
        Err(Error::new(
            ErrorKind::ResourceExhausted,
            format!(
                "subnet {subnet} of the built-in network: {used} of its {size} pod addresses are in use; remove pods, or \
                 give the network a larger subnet (spec.network.subnet)"
            ),
        ))
    }

    /// Has a pod the address, or the IPv6 address beside it? Leases of a former subnet may have one without the other.
    fn in_use(&self, address: Ipv4Addr) -> bool {
        let beside = self.config.beside(address);
        self.by_address.contains_key(&address)
            || (beside.is_some() && self.leases.values().any(|lease| lease.address6 == beside))
    }
}

/// How many addresses there are for pods.
fn size(config: &BridgeConfig) -> u32 {
    config.last_pod().to_bits() - config.first_pod().to_bits() + 1
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
