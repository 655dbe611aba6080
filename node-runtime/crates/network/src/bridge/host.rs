//! The node's side of the bridge network: bridge, sysctls, nftables table, veth pairs. Blocking.
//!
//! Must not: decide who gets which address or port, or keep what the kernel keeps.
use super::config::{BridgeConfig, mac_of};
use super::sysctl;
use crate::conntrack::ConntrackSocket;
use crate::netlink::{LinkInfo, NetlinkError, RouteSocket, route};
use crate::netns;
use crate::nft::{Element, HostPort, NftSocket, TableSpec};
use berth_model::{Error, ErrorKind, Protocol, Result, ResultExt};
use ipnet::Ipv4Net;
use nix::errno::Errno;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Name of the interface in the pod.
pub(super) const POD_INTERFACE: &str = "eth0";
/// MTU where there is no default route to learn it from: Ethernet's.
const DEFAULT_MTU: u32 = 1500;
/// How bridges of this product say what `net.ipv4.ip_forward` was before the first of them: in their alias, so that it
/// lives exactly as long as the bridge, and that other roots see it.
const FORMER_FORWARD: &str = "berth ip_forward=";
/// How long the kernel may take to remove the interfaces of a network namespace that was dropped, before we do it.
const LEAVING: Duration = Duration::from_secs(10);

/// How long to wait for an interface to carry packets: the link watch runs once a second.
const CARRIER: Duration = Duration::from_millis(1500);
/// How often to look, on kernels before 6.8.
const CARRIER_POLL: Duration = Duration::from_millis(1);

/// The bridge as it was last seen.
#[derive(Debug, Clone, Copy)]
struct BridgeLink {
    index: u32,
    mtu: u32,
}

/// Open sockets to the node's network namespace, and what is known of it.
#[derive(Debug)]
pub(super) struct Host {
    config: BridgeConfig,
    table: TableSpec,
    route: RouteSocket,
    nft: NftSocket,
    conntrack: ConntrackSocket,
    bridge: Option<BridgeLink>,
    /// Interfaces of pods that were detached, and when.
    leaving: HashMap<String, Instant>,
}

impl Host {
    /// Opens the sockets in the calling thread's network namespace; changes nothing.
    pub(super) fn open(config: &BridgeConfig) -> Result<Self> {
        let table = TableSpec { table: config.table.clone(), bridge: config.bridge.clone(), subnet: config.subnet };
        let (route, nft, conntrack) = (RouteSocket::open()?, NftSocket::open()?, ConntrackSocket::open()?);
        let config = config.clone();
        let mut host = Self { config, table, route, nft, conntrack, bridge: None, leaving: HashMap::new() };
        let links = host.route.links()?;
        host.check_overlap(&links)?;
        Ok(host)
    }

    /// Brings bridge, sysctls and table to what they should be. Idempotent, and without a gap for traffic.
    pub(super) fn ensure(&mut self, ports: &[HostPort]) -> Result<()> {
        let links = self.route.links()?;
        self.check_overlap(&links)?;
        let bridge = self.ensure_bridge(&links)?;
        self.route.execute(vec![route::add_address(bridge.index, self.config.gateway_net())])?;
        sysctl::ensure(sysctl::IP_FORWARD, "1")?;
        sysctl::ensure(&sysctl::route_localnet(&self.config.bridge), "1")?;
        self.nft.replace(&self.table, ports)?;
        self.bridge = Some(bridge);
        Ok(())
    }

    fn ensure_bridge(&mut self, links: &[LinkInfo]) -> Result<BridgeLink> {
        let name = self.config.bridge.clone();
        let found = links.iter().find(|l| l.name == name);
        let mtu = match (found, self.config.mtu) {
            (_, Some(mtu)) => mtu,
            (Some(bridge), None) => bridge.mtu,
            (None, None) => self.uplink_mtu(links)?,
        };
        if let Some(bridge) = found {
            if bridge.kind != "bridge" {
                let kind = if bridge.kind.is_empty() { "hardware interface" } else { &bridge.kind };
                let message = format!("interface {name:?} is no bridge but a {kind}: rename it, or use another root");
                return Err(Error::new(ErrorKind::FailedPrecondition, message));
            }
            if bridge.mtu != mtu {
                self.route.execute(vec![route::set_mtu(bridge.index, &name, mtu)])?;
            }
            if !bridge.up {
                self.route.execute(vec![route::set_up(bridge.index, &name)])?;
            }
            return Ok(BridgeLink { index: bridge.index, mtu });
        }
        let former = former_forward(links).map_or_else(|| sysctl::read(sysctl::IP_FORWARD), Ok)?;
        self.route.execute(vec![route::create_bridge(&name, mac_of(self.config.gateway()), mtu)])?;
        let created = self.route.link(&name)?;
        let index =
            created.ok_or_else(|| Error::internal(format!("bridge {name:?} vanished after its creation")))?.index;
        self.route.execute(vec![route::set_alias(index, &format!("{FORMER_FORWARD}{former}"))])?;
        Ok(BridgeLink { index, mtu })
    }

    /// Another MTU for the bridge and for pods that are connected from now on; `None` is that of the default route's interface.
    pub(super) fn set_mtu(&mut self, mtu: Option<u32>) -> Result<()> {
        self.config.mtu = mtu;
        let Some(bridge) = self.bridge else { return Ok(()) };
        let mtu = match mtu {
            Some(mtu) => mtu,
            None => {
                let links = self.route.links()?;
                self.uplink_mtu(&links)?
            }
        };
        let name = self.config.bridge.clone();
        self.route.execute(vec![route::set_mtu(bridge.index, &name, mtu)])?;
        self.bridge = Some(BridgeLink { mtu, ..bridge });
        Ok(())
    }

    /// The MTU of the default route's interface: packets of that size leave the node whole.
    fn uplink_mtu(&mut self, links: &[LinkInfo]) -> Result<u32> {
        let routes = self.route.routes()?;
        let uplink = routes.iter().filter(|r| r.destination.prefix_len() == 0).find_map(|r| r.interface);
        Ok(links.iter().find(|l| Some(l.index) == uplink).map_or(DEFAULT_MTU, |l| l.mtu))
    }

    /// Refuses a subnet that another route of the node leads to, in whole or in part.
    fn check_overlap(&mut self, links: &[LinkInfo]) -> Result<()> {
        let subnet = self.config.subnet;
        let own = links.iter().find(|l| l.name == self.config.bridge).map(|l| l.index);
        for found in self.route.routes()? {
            let net = found.destination;
            let overlaps = net.prefix_len() > 0 && (net.contains(&subnet) || subnet.contains(&net));
            if !overlaps || (own.is_some() && found.interface == own) {
                continue;
            }
            let name = links.iter().find(|l| Some(l.index) == found.interface).map(|l| l.name.as_str());
            let place = name.map_or_else(|| "without interface".to_owned(), |n| format!("on interface {n:?}"));
            return Err(Error::new(
                ErrorKind::FailedPrecondition,
                format!(
                    "subnet {subnet} of the built-in network overlaps with the node's route {net} {place}: give the \
                     network another subnet"
                ),
            ));
        }
        Ok(())
    }

    /// Creates a pod's veth pair, and sets its end in the pod up with address and default route. `inside` is a socket in the
    /// pod's network namespace.
    pub(super) fn connect(
        &mut self,
        name: &str,
        address: Ipv4Addr,
        netns: &File,
        inside: &mut RouteSocket,
    ) -> Result<()> {
        let Some(bridge) = self.bridge else {
            return Err(Error::new(ErrorKind::Unavailable, "the built-in network is not set up yet"));
        };
        let pair = route::VethPair {
            name,
            bridge: bridge.index,
            peer_name: POD_INTERFACE,
            peer_mac: mac_of(address),
            peer_netns: netns.as_fd(),
            mtu: bridge.mtu,
        };
        // Where br_netfilter is on, a pod's packet to its own host port or service is translated within the bridge, and so
        // leaves by the port by which it came.
        self.route.execute(vec![route::create_veth(&pair), route::set_hairpin(name)])?;
        self.leaving.remove(name);
        let link = inside.link(POD_INTERFACE)?;
        let index =
            link.ok_or_else(|| Error::internal(format!("{POD_INTERFACE} is not in the pod's namespace")))?.index;
        let net = Ipv4Net::new_assert(address, self.config.subnet.prefix_len());
        inside.execute(vec![
            netns::loopback(),
            route::set_up(index, POD_INTERFACE),
            route::add_address(index, net),
            route::add_default_route(index, self.config.gateway()),
        ])?;
        wait_for_carrier(&mut self.route, name)?;
        // With its first port, the bridge itself gets its carrier too.
        wait_for_carrier(&mut self.route, &self.config.bridge)?;
        wait_for_carrier(inside, POD_INTERFACE)
    }

    /// Deletes an interface if it is there; slow if it is.
    pub(super) fn remove_link(&mut self, name: &str) -> Result<bool> {
        self.leaving.remove(name);
        let Some(link) = self.route.link(name)? else {
            return Ok(false);
        };
        match self.route.execute(vec![route::delete_link(link.index, name)]) {
            Ok(()) => Ok(true),
            // The kernel was faster.
            Err(e) if e.is(Errno::ENODEV) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// Adds host ports. `all` are those of all pods: whoever flushed the ruleset meanwhile took the whole table with it.
    pub(super) fn add_ports(&mut self, ports: &[HostPort], all: &[HostPort]) -> Result<()> {
        let result = self.nft.add(&self.table, ports);
        self.or_replace(result, all)?;
        self.forget_flows(ports);
        Ok(())
    }

    /// Removes host ports. `all` are those that stay.
    pub(super) fn remove_ports(&mut self, ports: &[HostPort], all: &[HostPort]) -> Result<()> {
        let result = self.nft.remove(&self.table, ports);
        self.or_replace(result, all)?;
        self.forget_flows(ports);
        Ok(())
    }

    /// Lets UDP clients meet the table as it is now. They would in the end anyway: a failure stops nothing.
    fn forget_flows(&mut self, ports: &[HostPort]) {
        if !ports.iter().any(|p| p.protocol == Protocol::Udp) {
            return;
        }
        let local = self.route.addresses().map(|all| all.into_iter().map(|(_, net)| net).collect::<Vec<_>>());
        if let Err(e) = local.and_then(|local| self.conntrack.forget(ports, &local)) {
            tracing::warn!(error = ?e, "UDP clients may reach a host port's former pod until they pause");
        }
    }

    /// A missing table or element means that somebody else changed the table: it is written anew.
    fn or_replace(&mut self, result: Result<(), NetlinkError>, all: &[HostPort]) -> Result<()> {
        match result {
            Err(e) if e.is(Errno::ENOENT) || e.is(Errno::EEXIST) || e.is(Errno::EBUSY) => {
                tracing::warn!(table = self.table.table, error = ?e, "nftables table was changed from outside; rewriting it");
                Ok(self.nft.replace(&self.table, all)?)
            }
            other => Ok(other?),
        }
    }

    /// Remembers that the kernel is about to remove an interface.
    pub(super) fn leaves(&mut self, name: &str) {
        self.leaving.insert(name.to_owned(), Instant::now());
    }

    /// Deletes the veth interfaces on the bridge that are nobody's; returns their names.
    pub(super) fn remove_strays(&mut self, owned: &HashSet<String>) -> Result<Vec<String>> {
        let now = Instant::now();
        self.leaving.retain(|_, since| now.duration_since(*since) < LEAVING);
        let mut removed = Vec::new();
        for link in self.ports_of_bridge()? {
            let keep = owned.contains(&link.name) || self.leaving.contains_key(&link.name);
            if !keep && self.remove_link(&link.name)? {
                removed.push(link.name);
            }
        }
        Ok(removed)
    }

    /// Makes the sets of the table hold these ports' elements and no other; returns the elements that were too many.
    pub(super) fn sync_ports(&mut self, all: &[HostPort]) -> Result<Vec<String>> {
        let expected = Element::of(all);
        let actual = match self.nft.elements(&self.table.table) {
            Err(e) if e.is(Errno::ENOENT) => None,
            other => Some(other?),
        };
        if actual.as_ref() == Some(&expected) {
            return Ok(Vec::new());
        }
        self.nft.replace(&self.table, all)?;
        let actual: BTreeSet<Element> = actual.unwrap_or_default();
        Ok(actual.difference(&expected).map(ToString::to_string).collect())
    }

    /// What keeps the network from working, in a sentence.
    pub(super) fn ready(&mut self) -> Result<(), String> {
        let problem = self.problem().unwrap_or_else(|e| Some(e.to_string()));
        problem.map_or(Ok(()), |p| Err(format!("built-in network: {p}")))
    }

    fn problem(&mut self) -> Result<Option<String>> {
        let name = &self.config.bridge;
        let Some(link) = self.route.link(name)? else {
            return Ok(Some(format!("bridge {name:?} does not exist")));
        };
        if !link.up {
            return Ok(Some(format!("bridge {name:?} is down")));
        }
        let address = self.config.gateway_net();
        if !self.route.addresses()?.contains(&(link.index, address)) {
            return Ok(Some(format!("bridge {name:?} lacks its address {address}")));
        }
        if !self.nft.exists(&self.config.table)? {
            return Ok(Some(format!("nftables table ip {} does not exist", self.config.table)));
        }
        if sysctl::read(sysctl::IP_FORWARD)? != "1" {
            return Ok(Some("sysctl net.ipv4.ip_forward is 0".to_owned()));
        }
        Ok(None)
    }

    /// Removes table, interfaces and bridge, and takes back `net.ipv4.ip_forward` with the last bridge of this product.
    pub(super) fn destroy(&mut self) -> Result<()> {
        self.nft.delete(&self.table.table)?;
        for port in self.ports_of_bridge()? {
            self.remove_link(&port.name)?;
        }
        self.bridge = None;
        let links = self.route.links()?;
        let Some(bridge) = links.iter().find(|l| l.name == self.config.bridge && l.kind == "bridge") else {
            return Ok(());
        };
        let former = former_forward(std::slice::from_ref(bridge));
        let last = !links.iter().any(|l| l.index != bridge.index && l.alias.starts_with(FORMER_FORWARD));
        self.remove_link(&bridge.name)?;
        match former {
            Some(value) if last => sysctl::ensure(sysctl::IP_FORWARD, &value).context(|| "restore forwarding"),
            _ => Ok(()),
        }
    }

    fn ports_of_bridge(&mut self) -> Result<Vec<LinkInfo>> {
        let links = self.route.links()?;
        let Some(bridge) = links.iter().find(|l| l.name == self.config.bridge).map(|l| l.index) else {
            return Ok(Vec::new());
        };
        Ok(links.into_iter().filter(|l| l.master == Some(bridge) && l.kind == "veth").collect())
    }
}

/// Waits until an interface carries packets. The kernel enables queue and bridge port of a veth only when its link watch
/// ran, up to a second after both ends are up (net/core/link_watch.c), and drops packets until then: a pod's first SYN or ARP
/// request would be lost, and sent again a second later. From 6.8 on, looking an interface up runs the link watch for it
/// (`rtnl_getlink`), so the first look is the last.
fn wait_for_carrier(socket: &mut RouteSocket, name: &str) -> Result<()> {
    let deadline = Instant::now() + CARRIER;
    loop {
        match socket.link(name)? {
            None => return Err(Error::internal(format!("interface {name:?} vanished while it was set up"))),
            Some(link) if link.carries => return Ok(()),
            Some(_) if Instant::now() >= deadline => {
                tracing::warn!(interface = name, "interface carries no packets yet; the pod's first ones may be lost");
                return Ok(());
            }
            Some(_) => std::thread::sleep(CARRIER_POLL),
        }
    }
}

/// What the bridges of this product say of `net.ipv4.ip_forward`.
fn former_forward(links: &[LinkInfo]) -> Option<String> {
    let value = links.iter().find_map(|l| l.alias.strip_prefix(FORMER_FORWARD))?;
    // Only these: the alias can be changed by anybody with the right to, and goes into a sysctl.
    matches!(value, "0" | "1").then(|| value.to_owned())
}
