//! The table of the bridge network: what its chains, sets and rules are.
//!
//! Everything that changes with pods is an element of a set, so that attaching a pod adds elements and no rule:
//! - `ports`: protocol and node port to pod address and port; `ports_by_address`: the same for one address of the node;
//! - `targets`: the pod ends of both, for the return path (see [`rules`]).
//!
//! Must not: keep state; the callers bring all ports whenever the table is written anew.
use super::expression::{
    Address, Compare, Expression, Meta, by_interface, destination_rewritten, in_subnet, to_this_node,
};
use super::object::{self, DATA_VALUE, ELEMENT_DATA, ELEMENT_KEY, ELEMENTS_LIST, Hook, LIST_ITEM, Part};
use crate::netlink::{Attributes, NetlinkError, Request, Socket};
use berth_model::Protocol;
use ipnet::Ipv4Net;
use nix::errno::Errno;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};

/// Length of `struct nfgenmsg`.
const NFGENMSG: usize = 4;
const PORTS: &str = "ports";
const PORTS_BY_ADDRESS: &str = "ports_by_address";
const TARGETS: &str = "targets";
const GUARD: &str = "guard";
const IN: &str = "prerouting";
const OUT: &str = "output";
const POST: &str = "postrouting";
const LOOPBACK: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
const MULTICAST: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4);

/// What the table is made for.
#[derive(Debug, Clone)]
pub(crate) struct TableSpec {
    /// Name of the table.
    pub(crate) table: String,
    /// Name of the bridge.
    pub(crate) bridge: String,
    /// Addresses of pods.
    pub(crate) subnet: Ipv4Net,
}

/// A port of the node that leads to a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct HostPort {
    /// Protocol.
    pub(crate) protocol: Protocol,
    /// Address of the node; `None` is all.
    pub(crate) address: Option<Ipv4Addr>,
    /// Port of the node.
    pub(crate) port: u16,
    /// Pod address and port.
    pub(crate) target: SocketAddrV4,
}

/// An element of one of the table's sets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Element {
    set: &'static str,
    key: Vec<u8>,
    data: Option<Vec<u8>>,
}

impl Element {
    /// The elements that make host ports work, without repetition.
    pub(crate) fn of(ports: &[HostPort]) -> BTreeSet<Element> {
        let mut elements = BTreeSet::new();
        for p in ports {
            let port = [register(&[number(p.protocol)]), register(&p.port.to_be_bytes())].concat();
            let (set, key) = match p.address {
                None => (PORTS, port),
                Some(address) => (PORTS_BY_ADDRESS, [&address.octets()[..], &port].concat()),
            };
            let (pod, pod_port) = (p.target.ip().octets(), register(&p.target.port().to_be_bytes()));
            elements.insert(Element { set, key, data: Some([pod, pod_port].concat()) });
            let target = [pod, register(&[number(p.protocol)]), pod_port].concat();
            elements.insert(Element { set: TARGETS, key: target, data: None });
        }
        elements
    }
}

impl std::fmt::Display for Element {
    /// `ports tcp . 8080 : 10.64.0.2 . 80`, as `nft` shows it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts = |bytes: &[u8], shape: &[Part]| {
            let words = bytes.chunks(4).zip(shape).map(|(b, part)| match (part, b) {
                (Part::Address, [a, b, c, d]) => Ipv4Addr::new(*a, *b, *c, *d).to_string(),
                (Part::Protocol, [n, ..]) => protocol_name(*n),
                (Part::Port, [high, low, ..]) => u16::from_be_bytes([*high, *low]).to_string(),
                _ => "?".to_owned(),
            });
            words.collect::<Vec<_>>().join(" . ")
        };
        write!(f, "{} {}", self.set, parts(&self.key, key_shape(self.set)))?;
        if let Some(data) = &self.data {
            write!(f, " : {}", parts(data, &[Part::Address, Part::Port]))?;
        }
        Ok(())
    }
}

/// An nfnetlink socket.
#[derive(Debug)]
pub(crate) struct NftSocket(Socket);

impl NftSocket {
    /// Opens one in the calling thread's network namespace.
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        Socket::open(netlink_sys::protocols::NETLINK_NETFILTER).map(Self)
    }

    /// Writes the whole table anew, in one step: packets meet the old table or the new one.
    pub(crate) fn replace(&mut self, spec: &TableSpec, ports: &[HostPort]) -> Result<(), NetlinkError> {
        // To delete a table that may be missing, create it first.
        let mut requests =
            vec![object::new_table(&spec.table), object::delete_table(&spec.table), object::new_table(&spec.table)];
        requests.extend(sets(spec));
        requests.extend(chains(spec));
        requests.extend(rules(spec));
        requests.extend(Element::of(ports).iter().map(|e| add(spec, e)));
        self.transact(requests)
    }

    /// Adds the elements of ports. Adding what is there is no error.
    pub(crate) fn add(&mut self, spec: &TableSpec, ports: &[HostPort]) -> Result<(), NetlinkError> {
        self.transact(Element::of(ports).iter().map(|e| add(spec, e)).collect())
    }

    /// Deletes the elements of ports; `ENOENT`, and nothing deleted, if one is missing.
    pub(crate) fn remove(&mut self, spec: &TableSpec, ports: &[HostPort]) -> Result<(), NetlinkError> {
        let delete = |e: &Element| object::delete_element(&spec.table, e.set, &e.key, &e.to_string());
        self.transact(Element::of(ports).iter().map(delete).collect())
    }

    /// Is the table there?
    pub(crate) fn exists(&mut self, table: &str) -> Result<bool, NetlinkError> {
        match self.0.ask(object::get_table(table)) {
            Ok(answers) => Ok(!answers.is_empty()),
            Err(e) if e.is(Errno::ENOENT) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Deletes the table; no error if it is not there.
    pub(crate) fn delete(&mut self, table: &str) -> Result<(), NetlinkError> {
        match self.transact(vec![object::delete_table(table)]) {
            Err(e) if e.is(Errno::ENOENT) => Ok(()),
            result => result,
        }
    }

    /// All elements of the table's sets, as the kernel has them.
    pub(crate) fn elements(&mut self, table: &str) -> Result<BTreeSet<Element>, NetlinkError> {
        let mut all = BTreeSet::new();
        for set in [PORTS, PORTS_BY_ADDRESS, TARGETS] {
            for answer in self.0.ask(object::list_elements(table, set))? {
                all.extend(parse_elements(set, &answer.payload));
            }
        }
        Ok(all)
    }

    fn transact(&mut self, requests: Vec<Request>) -> Result<(), NetlinkError> {
        self.0.transact(object::begin(), requests, object::end())
    }
}

fn add(spec: &TableSpec, e: &Element) -> Request {
    object::add_element(&spec.table, e.set, &e.key, e.data.as_deref(), &e.to_string())
}

fn key_shape(set: &str) -> &'static [Part] {
    match set {
        PORTS => &[Part::Protocol, Part::Port],
        _ => &[Part::Address, Part::Protocol, Part::Port],
    }
}

fn sets(spec: &TableSpec) -> Vec<Request> {
    let pod: Option<&[Part]> = Some(&[Part::Address, Part::Port]);
    let new = |name, id, data| object::new_set(&spec.table, name, id, key_shape(name), data);
    vec![new(PORTS, 1, pod), new(PORTS_BY_ADDRESS, 2, pod), new(TARGETS, 3, None)]
}

fn chains(spec: &TableSpec) -> Vec<Request> {
    let new = |name, kind, number, priority| object::new_chain(&spec.table, name, Hook { kind, number, priority });
    vec![
        new(GUARD, "filter", object::PREROUTING, object::PRIORITY_RAW),
        new(IN, "nat", object::PREROUTING, object::PRIORITY_DNAT),
        new(OUT, "nat", object::OUTPUT, object::PRIORITY_DNAT),
        new(POST, "nat", object::POSTROUTING, object::PRIORITY_SNAT),
    ]
}

/// The rules, in order. In the words of `nft`:
/// - guard: `iifname BRIDGE ip daddr 127.0.0.0/8 drop`. Host ports on 127.0.0.1 need `route_localnet`, which would let a
///   pod reach what listens on the node's loopback (CVE-2020-8558).
/// - prerouting, output: `fib daddr type local dnat ip to ... map @ports_by_address`, then `@ports`.
/// - postrouting:
///   - pod to host port to pod: masqueraded, or the answer would go straight over the bridge, past the translation;
///   - 127.0.0.1 to host port to pod: masqueraded, or the pod would answer to its own loopback;
///   - pods to anywhere else: masqueraded.
fn rules(spec: &TableSpec) -> Vec<Request> {
    let rule = |chain: &str, parts: &[&[Expression<'_>]]| object::new_rule(&spec.table, chain, &parts.concat());
    let from_pod = in_subnet(Address::Source, Compare::Equal, spec.subnet);
    let bridge_out = by_interface(Meta::OutputName, &spec.bridge);
    let random = [Expression::Masquerade { random: true }];
    let to_loopback = in_subnet(Address::Destination, Compare::Equal, LOOPBACK);
    let mut rules =
        vec![rule(GUARD, &[&by_interface(Meta::InputName, &spec.bridge), &to_loopback, &[Expression::Drop]])];
    for chain in [IN, OUT] {
        rules.push(rule(chain, &[&to_this_node(), &translate(PORTS_BY_ADDRESS)]));
        rules.push(rule(chain, &[&to_this_node(), &translate(PORTS)]));
    }
    let at_target = [&key(TARGETS)[..], &[Expression::Lookup { set: TARGETS, register: 0, map: false }]].concat();
    rules.push(rule(POST, &[&from_pod, &destination_rewritten(), &at_target, &random]));
    let from_loopback = in_subnet(Address::Source, Compare::Equal, LOOPBACK);
    rules.push(rule(POST, &[&from_loopback, &bridge_out, &random]));
    let outside = in_subnet(Address::Destination, Compare::NotEqual, spec.subnet);
    let unicast = in_subnet(Address::Destination, Compare::NotEqual, MULTICAST);
    rules.push(rule(POST, &[&from_pod, &outside, &unicast, &random]));
    rules
}

/// Loads a set's key.
fn key(set: &str) -> Vec<Expression<'static>> {
    let load = |(register, part): (u32, &Part)| match part {
        Part::Address => Expression::Address { field: Address::Destination, register },
        Part::Protocol => Expression::Meta { key: Meta::Protocol, register },
        Part::Port => Expression::DestinationPort { register },
    };
    (0..).zip(key_shape(set)).map(load).collect()
}

/// `dnat ip to KEY map @set`.
fn translate(set: &'static str) -> Vec<Expression<'static>> {
    let mut expressions = key(set);
    expressions.push(Expression::Lookup { set, register: 0, map: true });
    expressions.push(Expression::Dnat { address: 0, port: 1 });
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

fn parse_elements(set: &'static str, payload: &[u8]) -> Vec<Element> {
    let attributes = Attributes(payload.get(NFGENMSG..).unwrap_or_default());
    let Some(list) = attributes.find_nested(ELEMENTS_LIST) else {
        return Vec::new();
    };
    let value = |item: Attributes<'_>, kind| item.find_nested(kind)?.find(DATA_VALUE).map(<[u8]>::to_vec);
    list.filter(|(kind, _)| *kind == LIST_ITEM)
        .filter_map(|(_, item)| {
            let item = Attributes(item);
            Some(Element { set, key: value(item, ELEMENT_KEY)?, data: value(item, ELEMENT_DATA) })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(address: Option<Ipv4Addr>, target: &str) -> HostPort {
        HostPort { protocol: Protocol::Tcp, address, port: 8080, target: target.parse().unwrap() }
    }

    #[test]
    fn elements_are_keyed_as_the_rules_load_them() {
        let elements = Element::of(&[port(None, "10.64.0.2:80"), port(Some(Ipv4Addr::LOCALHOST), "10.64.0.2:80")]);
        let words: Vec<_> = elements.iter().map(Element::to_string).collect();
        assert_eq!(
            words,
            [
                "ports tcp . 8080 : 10.64.0.2 . 80",
                "ports_by_address 127.0.0.1 . tcp . 8080 : 10.64.0.2 . 80",
                "targets 10.64.0.2 . tcp . 80",
            ]
        );
        let first = elements.first().unwrap();
        assert_eq!(first.key, [6, 0, 0, 0, 31, 144, 0, 0]);
        assert_eq!(first.data.as_deref().unwrap(), [10, 64, 0, 2, 0, 80, 0, 0]);
    }
}
