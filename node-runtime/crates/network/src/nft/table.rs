//! The table of the bridge network: what its chains, sets and rules are. One for each family of the network.
//!
//! Everything that changes with pods is an element of a set, so that attaching a pod adds elements and no rule:
//! - `ports`: protocol and node port to pod address and port; `ports_by_address`: the same for one address of the node;
//! - `targets`: the pod ends of both, for the return path (see [`rules`]).
//!
//! Must not: keep state, or talk to the kernel; the callers bring all ports whenever the table is written anew.
use super::expression::{
    Address, Compare, Expression, Meta, by_interface, destination_rewritten, in_subnet, new_connection, octets,
    to_this_node,
};
use super::object::{self, DATA_VALUE, ELEMENT_DATA, ELEMENT_KEY, ELEMENTS_LIST, Hook, LIST_ITEM, Part};
use super::{Family, TableName};
use crate::netlink::{Attributes, Request};
use berth_model::Protocol;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Length of `struct nfgenmsg`.
pub(super) const NFGENMSG: usize = 4;
const PORTS: &str = "ports";
const PORTS_BY_ADDRESS: &str = "ports_by_address";
const TARGETS: &str = "targets";
/// The sets of a table.
pub(super) const SETS: [&str; 3] = [PORTS, PORTS_BY_ADDRESS, TARGETS];
const GUARD: &str = "guard";
const IN: &str = "prerouting";
const FORWARD: &str = "forward";
const OUT: &str = "output";
const POST: &str = "postrouting";
const LOOPBACK: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8));
const LOOPBACK6: IpNet = IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128));
const MULTICAST: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4));
const MULTICAST6: IpNet = IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8));

/// What the table is made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableSpec {
    /// Name of the table.
    pub(crate) table: String,
    /// Name of the bridge.
    pub(crate) bridge: String,
    /// Addresses of pods, one subnet of each family.
    pub(crate) subnets: Vec<IpNet>,
    /// Addresses of pods that are in none of them: they were made while the subnet was another one.
    pub(crate) strays: Vec<IpAddr>,
    /// Was another table made to accept what the bridge forwards? Then this one keeps up what that table was for: nobody
    /// outside opens a connection to a pod but by a host port or a service.
    pub(crate) guarded: bool,
}

impl TableSpec {
    /// The table of a family.
    pub(crate) fn name(&self, family: Family) -> TableName<'_> {
        TableName { family, name: &self.table }
    }

    /// The tables, one of each family of the network.
    pub(crate) fn names(&self) -> impl Iterator<Item = TableName<'_>> {
        self.subnets.iter().map(|net| self.name(Family::of(net.addr())))
    }
}

/// A port of the node that leads to a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct HostPort {
    /// Protocol.
    pub(crate) protocol: Protocol,
    /// Address of the node, of the target's family; `None` is all of that family.
    pub(crate) address: Option<IpAddr>,
    /// Port of the node.
    pub(crate) port: u16,
    /// Pod address and port.
    pub(crate) target: SocketAddr,
}

/// An element of one of the table's sets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Element {
    pub(super) family: Family,
    pub(super) set: &'static str,
    pub(super) key: Vec<u8>,
    pub(super) data: Option<Vec<u8>>,
}

impl Element {
    /// The elements that make host ports work, without repetition.
    pub(crate) fn of(ports: &[HostPort]) -> BTreeSet<Element> {
        let mut elements = BTreeSet::new();
        for p in ports {
            let family = Family::of(p.target.ip());
            let port = [register(&[number(p.protocol)]), register(&p.port.to_be_bytes())].concat();
            let (set, key) = match p.address {
                None => (PORTS, port),
                Some(address) => (PORTS_BY_ADDRESS, [octets(address), port].concat()),
            };
            let (pod, pod_port) = (octets(p.target.ip()), register(&p.target.port().to_be_bytes()));
            elements.insert(Element { family, set, key, data: Some([&pod[..], &pod_port].concat()) });
            let target = [&pod[..], &register(&[number(p.protocol)]), &pod_port].concat();
            elements.insert(Element { family, set: TARGETS, key: target, data: None });
        }
        elements
    }
}

impl std::fmt::Display for Element {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.set, words(&self.key, &key_shape(self.family, self.set)))?;
        if let Some(data) = &self.data {
            write!(f, " : {}", words(data, &[address(self.family), Part::Port]))?;
        }
        Ok(())
    }
}

/// The parts of a key or value for people.
fn words(bytes: &[u8], shape: &[Part]) -> String {
    let mut rest = bytes;
    let mut words = Vec::new();
    for part in shape {
        let (bytes, after) = rest.split_at_checked(part.width()).unwrap_or_default();
        rest = after;
        words.push(match (part, bytes) {
            (Part::Address4, [a, b, c, d]) => Ipv4Addr::new(*a, *b, *c, *d).to_string(),
            (Part::Address6, bytes) => {
                <[u8; 16]>::try_from(bytes).map_or_else(|_| "?".to_owned(), |b| Ipv6Addr::from(b).to_string())
            }
            (Part::Protocol, [n, ..]) => protocol_name(*n),
            (Part::Port, [high, low, ..]) => u16::from_be_bytes([*high, *low]).to_string(),
            _ => "?".to_owned(),
        });
    }
    words.join(" . ")
}

/// Everything that makes the tables, for one transaction in which they are not there.
pub(super) fn whole(spec: &TableSpec) -> Vec<Request> {
    let mut requests = Vec::new();
    for (n, net) in (0..).zip(&spec.subnets) {
        let family = Family::of(net.addr());
        requests.push(object::new_table(spec.name(family)));
        requests.extend(sets(spec, family, n));
        requests.extend(chains(spec, family));
        requests.extend(rules(spec, *net));
    }
    requests
}

/// How many rules the table of a subnet's family has.
pub(super) fn rule_count(spec: &TableSpec, net: IpNet) -> usize {
    rules(spec, net).len()
}

/// Adds an element.
pub(super) fn add(spec: &TableSpec, e: &Element) -> Request {
    object::add_element(spec.name(e.family), e.set, &e.key, e.data.as_deref(), &e.to_string())
}

fn address(family: Family) -> Part {
    match family {
        Family::V4 => Part::Address4,
        Family::V6 => Part::Address6,
    }
}

fn key_shape(family: Family, set: &str) -> Vec<Part> {
    match set {
        PORTS => vec![Part::Protocol, Part::Port],
        _ => vec![address(family), Part::Protocol, Part::Port],
    }
}

/// `n` is the number of tables before this one in the transaction.
fn sets(spec: &TableSpec, family: Family, n: u32) -> Vec<Request> {
    let pod = [address(family), Part::Port];
    let new = |name, id, data| object::new_set(spec.name(family), name, 3 * n + id, &key_shape(family, name), data);
    vec![new(PORTS, 1, Some(&pod[..])), new(PORTS_BY_ADDRESS, 2, Some(&pod[..])), new(TARGETS, 3, None)]
}

fn chains(spec: &TableSpec, family: Family) -> Vec<Request> {
    let new =
        |name, kind, number, priority| object::new_chain(spec.name(family), name, Hook { kind, number, priority });
    let mut chains = Vec::new();
    if family == Family::V4 {
        chains.push(new(GUARD, "filter", object::PREROUTING, object::PRIORITY_RAW));
    }
    chains.push(new(IN, "nat", object::PREROUTING, object::PRIORITY_DNAT));
    if spec.guarded {
        chains.push(new(FORWARD, "filter", object::FORWARD, object::PRIORITY_FILTER));
    }
    chains.push(new(OUT, "nat", object::OUTPUT, object::PRIORITY_DNAT));
    chains.push(new(POST, "nat", object::POSTROUTING, object::PRIORITY_SNAT));
    chains
}

/// The rules, in order. In the words of `nft`:
/// - guard (IPv4): `iifname BRIDGE ip daddr 127.0.0.0/8 drop`. Host ports on 127.0.0.1 need `route_localnet`, which would let
///   a pod reach what listens on the node's loopback (CVE-2020-8558). IPv6 has no such sysctl: the kernel drops what comes
///   to or from `::1` by any other interface (RFC 4291 2.5.3), and the answer to a translated packet from `::1` too.
/// - prerouting, output: `fib daddr type local dnat ip to ... map @ports_by_address`, then `@ports`. For `::1` that would
///   only make clients wait, so it is left out, and they are refused at once.
/// - forward, if guarded: `iifname != BRIDGE oifname BRIDGE ct state new ct status ! dnat drop`.
/// - postrouting:
///   - pod to host port to pod: masqueraded, or the answer would go straight over the bridge, past the translation;
///   - 127.0.0.1 to host port to pod: masqueraded, or the pod would answer to its own loopback;
///   - pods to anywhere else: masqueraded;
///   - pods of a former subnet to where the bridge is not: masqueraded.
fn rules(spec: &TableSpec, net: IpNet) -> Vec<Request> {
    let family = Family::of(net.addr());
    let rule = |chain: &str, parts: &[&[Expression<'_>]]| object::new_rule(spec.name(family), chain, &parts.concat());
    let (bridge_in, bridge_out) = (
        by_interface(Meta::InputName, Compare::Equal, &spec.bridge),
        by_interface(Meta::OutputName, Compare::Equal, &spec.bridge),
    );
    let mut rules = Vec::new();
    if family == Family::V4 {
        let to_loopback = in_subnet(Address::Destination, Compare::Equal, LOOPBACK);
        rules.push(rule(GUARD, &[&bridge_in, &to_loopback, &[Expression::Drop]]));
    }
    let not_loopback = in_subnet(Address::Destination, Compare::NotEqual, LOOPBACK6);
    let first: &[Expression<'_>] = if family == Family::V6 { &not_loopback } else { &[] };
    for chain in [IN, OUT] {
        let first = if chain == OUT { first } else { &[] };
        rules.push(rule(chain, &[first, &to_this_node(), &translate(family, PORTS_BY_ADDRESS)]));
        rules.push(rule(chain, &[first, &to_this_node(), &translate(family, PORTS)]));
    }
    if spec.guarded {
        let from_outside = by_interface(Meta::InputName, Compare::NotEqual, &spec.bridge);
        let uninvited = destination_rewritten(Compare::Equal);
        rules.push(rule(FORWARD, &[&from_outside, &bridge_out, &new_connection(), &uninvited, &[Expression::Drop]]));
    }
    rules.extend(source_rules(spec, net, &bridge_out));
    rules
}

/// Those of the chain `postrouting`.
fn source_rules(spec: &TableSpec, net: IpNet, bridge_out: &[Expression<'_>]) -> Vec<Request> {
    let family = Family::of(net.addr());
    let rule = |parts: &[&[Expression<'_>]]| object::new_rule(spec.name(family), POST, &parts.concat());
    let from_pod = in_subnet(Address::Source, Compare::Equal, net);
    let random = [Expression::Masquerade { random: true }];
    let at_target =
        [&key(family, TARGETS)[..], &[Expression::Lookup { set: TARGETS, register: 0, map: false }]].concat();
    let mut rules = vec![rule(&[&from_pod, &destination_rewritten(Compare::NotEqual), &at_target, &random])];
    if family == Family::V4 {
        rules.push(rule(&[&in_subnet(Address::Source, Compare::Equal, LOOPBACK), bridge_out, &random]));
    }
    let outside = in_subnet(Address::Destination, Compare::NotEqual, net);
    let multicast = if family == Family::V4 { MULTICAST } else { MULTICAST6 };
    let no_multicast = in_subnet(Address::Destination, Compare::NotEqual, multicast);
    rules.push(rule(&[&from_pod, &outside, &no_multicast, &random]));
    let off_bridge = by_interface(Meta::OutputName, Compare::NotEqual, &spec.bridge);
    let strays = spec.strays.iter().filter(|stray| Family::of(**stray) == family);
    rules.extend(strays.map(|stray| {
        let from_stray = in_subnet(Address::Source, Compare::Equal, IpNet::from(*stray));
        rule(&[&from_stray, &off_bridge, &no_multicast, &random])
    }));
    rules
}

/// Loads a set's key; returns the register after it.
fn key(family: Family, set: &str) -> Vec<Expression<'static>> {
    let mut register = 0;
    let load = |part: &Part| {
        let at = register;
        register += u32::try_from(part.width() / 4).unwrap_or(u32::MAX);
        match part {
            Part::Address4 | Part::Address6 => {
                Expression::Address { family, field: Address::Destination, register: at }
            }
            Part::Protocol => Expression::Meta { key: Meta::Protocol, register: at },
            Part::Port => Expression::DestinationPort { register: at },
        }
    };
    key_shape(family, set).iter().map(load).collect()
}

/// `dnat ip to KEY map @set`.
fn translate(family: Family, set: &'static str) -> Vec<Expression<'static>> {
    let mut expressions = key(family, set);
    expressions.push(Expression::Lookup { set, register: 0, map: true });
    let port = u32::try_from(address(family).width() / 4).unwrap_or(u32::MAX);
    expressions.push(Expression::Dnat { family, address: 0, port });
    expressions
}

/// A part of a key: up to four bytes, padded.
fn register(bytes: &[u8]) -> [u8; 4] {
    let mut register = [0; 4];
    register.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    register
}

/// Protocol numbers of IANA (`IPPROTO_*`).
fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

fn protocol_name(number: u8) -> String {
    match number {
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        132 => "sctp".to_owned(),
        other => other.to_string(),
    }
}

/// The elements of an answer to [`object::list_elements`].
pub(super) fn parse_elements(family: Family, set: &'static str, payload: &[u8]) -> Vec<Element> {
    let attributes = Attributes(payload.get(NFGENMSG..).unwrap_or_default());
    let Some(list) = attributes.find_nested(ELEMENTS_LIST) else {
        return Vec::new();
    };
    let value = |item: Attributes<'_>, kind| item.find_nested(kind)?.find(DATA_VALUE).map(<[u8]>::to_vec);
    list.filter(|(kind, _)| *kind == LIST_ITEM)
        .filter_map(|(_, item)| {
            let item = Attributes(item);
            Some(Element { family, set, key: value(item, ELEMENT_KEY)?, data: value(item, ELEMENT_DATA) })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(address: Option<IpAddr>, target: &str) -> HostPort {
        HostPort { protocol: Protocol::Tcp, address, port: 8080, target: target.parse().unwrap() }
    }

    #[test]
    fn elements_are_keyed_as_the_rules_load_them() {
        let elements = Element::of(&[
            port(None, "10.64.0.2:80"),
            port(Some(Ipv4Addr::LOCALHOST.into()), "10.64.0.2:80"),
            port(Some("2001:db8::1".parse().unwrap()), "[fdbe::2]:80"),
        ]);
        let words: Vec<_> = elements.iter().map(Element::to_string).collect();
        assert_eq!(
            words,
            [
                "ports tcp . 8080 : 10.64.0.2 . 80",
                "ports_by_address 127.0.0.1 . tcp . 8080 : 10.64.0.2 . 80",
                "targets 10.64.0.2 . tcp . 80",
                "ports_by_address 2001:db8::1 . tcp . 8080 : fdbe::2 . 80",
                "targets fdbe::2 . tcp . 80",
            ]
        );
        let first = elements.first().unwrap();
        assert_eq!(first.key, [6, 0, 0, 0, 31, 144, 0, 0]);
        assert_eq!(first.data.as_deref().unwrap(), [10, 64, 0, 2, 0, 80, 0, 0]);
    }
}
