//! The node's side of the bridge network: bridge, sysctls, nftables tables, host ports. Blocking.
//!
//! Must not: decide who gets which address or port, or keep what the kernel keeps. Pods' interfaces are `connect.rs`'s, what
//! broke meanwhile is `repair.rs`'s.
use super::config::{BridgeConfig, mac_of};
use super::forwarding;
use super::subnet::{Routes, Taken};
use super::sysctl;
use crate::conntrack::ConntrackSocket;
use crate::netlink::{LinkInfo, NetlinkError, RouteSocket, route};
use crate::nft::{Element, Family, ForwardDrop, HostPort, NftSocket, TableSpec};
use berth_model::{Error, ErrorKind, Protocol, Result, ResultExt};
use ipnet::IpNet;
use nix::errno::Errno;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// MTU where there is no default route to learn it from: Ethernet's.
const DEFAULT_MTU: u32 = 1500;
/// How long the kernel may take to remove the interfaces of a network namespace that was dropped, before we do it.
const LEAVING: Duration = Duration::from_secs(10);

/// The bridge as it was last seen.
#[derive(Debug, Clone, Copy)]
pub(super) struct BridgeLink {
    pub(super) index: u32,
    pub(super) mtu: u32,
}

/// Open sockets to the node's network namespace, and what is known of it.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) config: BridgeConfig,
    pub(super) table: TableSpec,
    pub(super) route: RouteSocket,
    pub(super) nft: NftSocket,
    conntrack: ConntrackSocket,
    pub(super) bridge: Option<BridgeLink>,
    /// Chains of others that drop what pods send, as last seen.
    pub(super) firewalls: Vec<ForwardDrop>,
    /// Interfaces of pods that were detached, and when.
    leaving: HashMap<String, Instant>,
}

impl Host {
    /// Opens the sockets in the calling thread's network namespace, and chooses the subnets if they are derived (`recorded`:
    /// what was chosen before; `hold`: pods have addresses of it). Changes nothing.
    pub(super) fn open(config: &BridgeConfig, recorded: Option<Taken>, hold: bool) -> Result<Self> {
        let (route, nft, conntrack) = (RouteSocket::open()?, NftSocket::open()?, ConntrackSocket::open()?);
        let table = TableSpec {
            table: config.table.clone(),
            bridge: config.bridge.clone(),
            subnets: Vec::new(),
            strays: Vec::new(),
            guarded: false,
        };
        let (config, leaving, firewalls) = (config.clone(), HashMap::new(), Vec::new());
        let mut host = Self { config, table, route, nft, conntrack, bridge: None, firewalls, leaving };
        let (links, routes) = (host.route.links()?, host.route.routes()?);
        let routes = host.routes(&links, &routes);
        if let Some(hash) = host.config.derived_from {
            let taken = routes.choose(&host.config, hash, recorded, hold)?;
            (host.config.subnet, host.config.subnet6) = (taken.subnet, taken.subnet6);
        }
        host.config.subnets().into_iter().try_for_each(|net| routes.refuse_overlap(net))?;
        host.table.subnets = host.config.subnets();
        Ok(host)
    }

    /// Pods whose addresses are in no subnet any more keep their way out of the node.
    pub(super) fn keep_strays(&mut self, addresses: impl Iterator<Item = IpAddr>) {
        let subnets = &self.table.subnets;
        self.table.strays = addresses.filter(|address| !subnets.iter().any(|net| net.contains(address))).collect();
    }

    fn routes<'a>(&self, links: &'a [LinkInfo], all: &'a [route::RouteInfo]) -> Routes<'a> {
        let own = links.iter().find(|l| l.name == self.config.bridge).map(|l| l.index);
        Routes { links, all, own }
    }

    /// Brings bridge, sysctls and tables to what they should be. Idempotent, and without a gap for traffic. `owned` are the
    /// interfaces of pods: those that lost the bridge get it back.
    pub(super) fn ensure(&mut self, ports: &[HostPort], owned: &HashSet<String>) -> Result<()> {
        let (links, routes) = (self.route.links()?, self.route.routes()?);
        let overlaps = self.routes(&links, &routes);
        self.config.subnets().into_iter().try_for_each(|net| overlaps.refuse_overlap(net))?;
        let dual = self.config.subnet6.is_some();
        if dual {
            forwarding::require_ipv6()?;
        }
        let alias = forwarding::alias_for(&self.config.bridge, dual, &links, &routes)?;
        let bridge = self.ensure_bridge(&links, &routes, &alias)?;
        if dual {
            forwarding::enable_ipv6(&self.config.bridge)?;
        } else {
            self.without_six(&links)?;
        }
        self.route.execute(route::add_addresses(bridge.index, &self.config.gateway_nets()))?;
        forwarding::enable(&self.config.bridge, dual, &alias)?;
        self.watch_firewalls();
        self.nft.replace(&self.table, ports)?;
        self.bridge = Some(bridge);
        self.return_ports(&links, bridge.index, owned)
    }

    fn ensure_bridge(&mut self, links: &[LinkInfo], routes: &[route::RouteInfo], alias: &str) -> Result<BridgeLink> {
        let name = self.config.bridge.clone();
        let found = links.iter().find(|l| l.name == name);
        let mtu = match (found, self.config.mtu) {
            (_, Some(mtu)) => mtu,
            (Some(bridge), None) => bridge.mtu,
            (None, None) => uplink_mtu(links, routes),
        };
        let Some(bridge) = found else {
            self.route.execute(vec![route::create_bridge(&name, mac_of(self.config.gateway()), mtu)])?;
            let created = self.route.link(&name)?;
            let index =
                created.ok_or_else(|| Error::internal(format!("bridge {name:?} vanished after its creation")))?.index;
            // Up only then: it would ask for its link-local address by the defaults.
            forwarding::keep_to_itself(&name)?;
            self.route.execute(vec![route::set_alias(index, alias), route::set_up(index, &name)])?;
            return Ok(BridgeLink { index, mtu });
        };
        if bridge.kind != "bridge" {
            let kind = if bridge.kind.is_empty() { "hardware interface" } else { &bridge.kind };
            let message = format!("interface {name:?} is no bridge but a {kind}: rename it, or use another root");
            return Err(Error::new(ErrorKind::FailedPrecondition, message));
        }
        let mut changes = Vec::new();
        if bridge.mtu != mtu {
            changes.push(route::set_mtu(bridge.index, &name, mtu));
        }
        if !bridge.up {
            changes.push(route::set_up(bridge.index, &name));
        }
        // A daemon that was killed right after it had created the bridge has not left it an alias.
        if bridge.alias.is_empty() || (self.config.subnet6.is_some() && bridge.alias != alias) {
            changes.push(route::set_alias(bridge.index, alias));
        }
        if !changes.is_empty() {
            self.route.execute(changes)?;
        }
        Ok(BridgeLink { index: bridge.index, mtu })
    }

    /// Another MTU for the bridge and for pods that are connected from now on; `None` is that of the default route's interface.
    /// After an error, the former one stays.
    pub(super) fn set_mtu(&mut self, mtu: Option<u32>) -> Result<()> {
        let config = BridgeConfig { mtu, ..self.config.clone() };
        config.validate()?;
        if let Some(bridge) = self.bridge {
            let mtu = match mtu {
                Some(mtu) => mtu,
                None => uplink_mtu(&self.route.links()?, &self.route.routes()?),
            };
            self.route.execute(vec![route::set_mtu(bridge.index, &config.bridge, mtu)])?;
            self.bridge = Some(BridgeLink { mtu, ..bridge });
        }
        self.config = config;
        Ok(())
    }

    /// Takes back what the network needed while it had IPv6, if it ever did.
    fn without_six(&mut self, links: &[LinkInfo]) -> Result<()> {
        self.nft.delete(self.table.name(Family::V6))?;
        let Some(bridge) = links.iter().find(|l| l.name == self.config.bridge) else { return Ok(()) };
        let Some(alias) = forwarding::alias_without_six(&bridge.alias) else { return Ok(()) };
        let others: Vec<LinkInfo> = links.iter().filter(|l| l.index != bridge.index).cloned().collect();
        forwarding::restore(&bridge.alias, &others, true)?;
        // Takes the gateway's address with it.
        sysctl::ensure(&sysctl::disable_ipv6(&bridge.name), "1")?;
        sysctl::ensure(&sysctl::disable_ipv6(&bridge.name), "0")?;
        Ok(self.route.execute(vec![route::set_alias(bridge.index, &alias)])?)
    }

    /// Makes the pods' interfaces ports of the bridge again: it may have been deleted and made anew.
    fn return_ports(&mut self, links: &[LinkInfo], bridge: u32, owned: &HashSet<String>) -> Result<()> {
        let lost = links.iter().filter(|l| owned.contains(&l.name) && (l.master != Some(bridge) || !l.up));
        let requests: Vec<_> =
            lost.flat_map(|l| [route::set_master(l.index, &l.name, bridge), route::set_hairpin(&l.name)]).collect();
        if requests.is_empty() {
            return Ok(());
        }
        match self.route.execute(requests) {
            // Its pod ended meanwhile.
            Err(e) if e.is(Errno::ENODEV) => Ok(()),
            result => Ok(result?),
        }
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
        let local = self.route.addresses().map(|all| all.into_iter().map(|(_, net)| net).collect::<Vec<IpNet>>());
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

    /// An interface that will be used again.
    pub(super) fn stays(&mut self, name: &str) {
        self.leaving.remove(name);
    }

    /// Remembers that the kernel is about to remove an interface.
    pub(super) fn leaves(&mut self, name: &str) {
        self.leaving.insert(name.to_owned(), Instant::now());
    }

    /// Deletes the interfaces of this network that are nobody's; returns their names.
    pub(super) fn remove_strays(&mut self, owned: &HashSet<String>) -> Result<Vec<String>> {
        let now = Instant::now();
        self.leaving.retain(|_, since| now.duration_since(*since) < LEAVING);
        let mut removed = Vec::new();
        for link in self.own_links()? {
            let keep = owned.contains(&link.name) || self.leaving.contains_key(&link.name);
            if !keep && self.remove_link(&link.name)? {
                removed.push(link.name);
            }
        }
        Ok(removed)
    }

    /// Makes the sets of the tables hold these ports' elements and no other; returns the elements that were too many.
    pub(super) fn sync_ports(&mut self, all: &[HostPort]) -> Result<Vec<String>> {
        let expected = Element::of(all);
        let actual = match self.nft.elements(&self.table) {
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

    /// Removes tables, interfaces and bridge, and takes back the sysctls with the last bridge of this product.
    pub(super) fn destroy(&mut self) -> Result<()> {
        for family in [Family::V4, Family::V6] {
            self.nft.delete(self.table.name(family))?;
        }
        self.nft.close_forward(&self.table)?;
        self.table.guarded = false;
        for link in self.own_links()? {
            self.remove_link(&link.name)?;
        }
        self.bridge = None;
        let links = self.route.links()?;
        let Some(bridge) = links.iter().find(|l| l.name == self.config.bridge && l.kind == "bridge") else {
            return Ok(());
        };
        let others: Vec<LinkInfo> = links.iter().filter(|l| l.index != bridge.index).cloned().collect();
        self.remove_link(&bridge.name)?;
        forwarding::restore(&bridge.alias, &others, false).context(|| "restore forwarding")
    }

    /// Ports of the bridge, and the interfaces that limit what pods send.
    fn own_links(&mut self) -> Result<Vec<LinkInfo>> {
        let alias = self.limiter_alias();
        let links = self.route.links()?;
        let bridge = links.iter().find(|l| l.name == self.config.bridge).map(|l| l.index);
        let ours = |l: &LinkInfo| match l.kind.as_str() {
            "veth" => bridge.is_some() && l.master == bridge,
            "ifb" => l.alias == alias,
            _ => false,
        };
        Ok(links.into_iter().filter(ours).collect())
    }

    /// What stands at the interfaces that limit: whose they are.
    pub(super) fn limiter_alias(&self) -> String {
        format!("berth egress of {}", self.config.bridge)
    }
}

/// The MTU of the default route's interface: packets of that size leave the node whole.
fn uplink_mtu(links: &[LinkInfo], routes: &[route::RouteInfo]) -> u32 {
    let default = |four: bool| {
        let routes = routes.iter().filter(move |r| r.destination.prefix_len() == 0);
        routes.filter(move |r| r.destination.addr().is_ipv4() == four).find_map(|r| r.interface)
    };
    let uplink = default(true).or_else(|| default(false));
    links.iter().find(|l| Some(l.index) == uplink).map_or(DEFAULT_MTU, |l| l.mtu)
}
