//! rtnetlink: links, addresses and routes.
//!
//! Numbers: linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h, linux/veth.h. Must not: decide anything.
use super::codec::{Attributes, Message, read_u32};
use super::error::NetlinkError;
use super::socket::{F_CREATE, F_DUMP, F_EXCL, F_REPLACE, Request, Socket};
use ipnet::Ipv4Net;
use nix::errno::Errno;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BRPORT_MODE: u16 = 4;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
/// `RTEXT_FILTER_SKIP_STATS`: leaves counters out of answers.
const SKIP_STATS: u32 = 1 << 3;
/// `IFF_UP` of linux/if.h.
const IFF_UP: u32 = 1;
/// `IF_OPER_UP` of linux/if.h.
const OPER_UP: u8 = 6;
/// `AF_INET`.
const AF_INET: u8 = 2;
/// `RT_TABLE_MAIN`.
const TABLE_MAIN: u8 = 254;
/// `RTPROT_STATIC`.
const PROTO_STATIC: u8 = 4;
/// `RTN_UNICAST`.
const UNICAST: u8 = 1;
/// Length of `struct ifinfomsg`.
const IFINFO: usize = 16;
/// Length of `struct ifaddrmsg`.
const IFADDR: usize = 8;
/// Length of `struct rtmsg`.
const RTMSG: usize = 12;

/// A hardware address.
pub(crate) type Mac = [u8; 6];

/// What is known about an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LinkInfo {
    /// Index.
    pub(crate) index: u32,
    /// Name.
    pub(crate) name: String,
    /// Is it set up (`IFF_UP`)?
    pub(crate) up: bool,
    /// Does it carry packets by now (`IF_OPER_UP`)?
    pub(crate) carries: bool,
    /// Largest packet in bytes.
    pub(crate) mtu: u32,
    /// Index of the bridge that it is a port of.
    pub(crate) master: Option<u32>,
    /// `bridge`, `veth`, ...; empty for hardware.
    pub(crate) kind: String,
    /// Free text at the interface.
    pub(crate) alias: String,
}

/// A route of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RouteInfo {
    /// Destination.
    pub(crate) destination: Ipv4Net,
    /// Index of the interface; none for unreachable routes and for several next hops.
    pub(crate) interface: Option<u32>,
}

/// A veth pair to be made: one end here on a bridge, the other in another network namespace.
pub(crate) struct VethPair<'a> {
    /// Name of this end.
    pub(crate) name: &'a str,
    /// Index of the bridge.
    pub(crate) bridge: u32,
    /// Name of the other end.
    pub(crate) peer_name: &'a str,
    /// Hardware address of the other end.
    pub(crate) peer_mac: Mac,
    /// The network namespace of the other end.
    pub(crate) peer_netns: BorrowedFd<'a>,
    /// Largest packet in bytes, both ends.
    pub(crate) mtu: u32,
}

/// An rtnetlink socket.
#[derive(Debug)]
pub(crate) struct RouteSocket(Socket);

impl RouteSocket {
    /// Opens one in the calling thread's network namespace.
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        Socket::open(netlink_sys::protocols::NETLINK_ROUTE).map(Self)
    }

    /// Several requests in one datagram, in order.
    pub(crate) fn execute(&mut self, requests: Vec<Request>) -> Result<(), NetlinkError> {
        self.0.execute(requests)
    }

    /// The interface of a name.
    pub(crate) fn link(&mut self, name: &str) -> Result<Option<LinkInfo>, NetlinkError> {
        let mut m = Message::new(RTM_GETLINK, 0, &link_header(0, false));
        m.string(IFLA_IFNAME, name);
        m.u32(IFLA_EXT_MASK, SKIP_STATS);
        match self.0.ask(Request::new(format!("look up interface {name:?}"), m)) {
            Ok(answers) => Ok(answers.iter().find_map(|a| parse_link(&a.payload))),
            Err(e) if e.is(Errno::ENODEV) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// All interfaces.
    pub(crate) fn links(&mut self) -> Result<Vec<LinkInfo>, NetlinkError> {
        let mut m = Message::new(RTM_GETLINK, F_DUMP, &link_header(0, false));
        m.u32(IFLA_EXT_MASK, SKIP_STATS);
        let answers = self.0.ask(Request::new("list interfaces", m))?;
        Ok(answers.iter().filter_map(|a| parse_link(&a.payload)).collect())
    }

    /// The IPv4 addresses, each with the index of its interface.
    pub(crate) fn addresses(&mut self) -> Result<Vec<(u32, Ipv4Net)>, NetlinkError> {
        let m = Message::new(RTM_GETADDR, F_DUMP, &address_header(0, 0));
        let answers = self.0.ask(Request::new("list addresses", m))?;
        Ok(answers.iter().filter_map(|a| parse_address(&a.payload)).collect())
    }

    /// The IPv4 routes of all tables.
    pub(crate) fn routes(&mut self) -> Result<Vec<RouteInfo>, NetlinkError> {
        let m = Message::new(RTM_GETROUTE, F_DUMP, &route_header(0, 0, 0, 0));
        let answers = self.0.ask(Request::new("list routes", m))?;
        Ok(answers.iter().filter_map(|a| parse_route(&a.payload)).collect())
    }
}

/// Creates a bridge, set up at once. Its hardware address is given, or it would change as ports come and go.
pub(crate) fn create_bridge(name: &str, mac: Mac, mtu: u32) -> Request {
    let mut m = Message::new(RTM_NEWLINK, F_CREATE | F_EXCL, &link_header(0, true));
    m.string(IFLA_IFNAME, name);
    m.bytes(IFLA_ADDRESS, &mac);
    m.u32(IFLA_MTU, mtu);
    m.nest(IFLA_LINKINFO, |m| m.string(IFLA_INFO_KIND, "bridge"));
    Request::new(format!("create bridge {name:?}"), m)
}

/// Creates a pair of veth interfaces, this end up and on the bridge.
pub(crate) fn create_veth(pair: &VethPair<'_>) -> Request {
    let mut m = Message::new(RTM_NEWLINK, F_CREATE | F_EXCL, &link_header(0, true));
    m.string(IFLA_IFNAME, pair.name);
    m.u32(IFLA_MTU, pair.mtu);
    m.u32(IFLA_MASTER, pair.bridge);
    m.nest(IFLA_LINKINFO, |m| {
        m.string(IFLA_INFO_KIND, "veth");
        m.nest(IFLA_INFO_DATA, |m| {
            // Down: the kernel opens a veth only when both ends are there (drivers/net/veth.c, veth_open).
            m.nest_after(VETH_INFO_PEER, &link_header(0, false), |m| {
                m.string(IFLA_IFNAME, pair.peer_name);
                m.bytes(IFLA_ADDRESS, &pair.peer_mac);
                m.u32(IFLA_MTU, pair.mtu);
                m.bytes(IFLA_NET_NS_FD, &pair.peer_netns.as_raw_fd().to_ne_bytes());
            });
        });
    });
    Request::new(format!("create interface {:?} with its peer {:?} in the pod", pair.name, pair.peer_name), m)
}

/// Lets a bridge send packets back out of the port by which they came.
pub(crate) fn set_hairpin(name: &str) -> Request {
    let mut m = Message::new(RTM_NEWLINK, 0, &link_header(0, false));
    m.string(IFLA_IFNAME, name);
    m.nest(IFLA_LINKINFO, |m| m.nest(IFLA_INFO_SLAVE_DATA, |m| m.bytes(IFLA_BRPORT_MODE, &[1])));
    Request::new(format!("set hairpin mode of bridge port {name:?}"), m)
}

/// Sets an interface up.
pub(crate) fn set_up(index: u32, name: &str) -> Request {
    Request::new(format!("set interface {name:?} up"), Message::new(RTM_NEWLINK, 0, &link_header(index, true)))
}

/// Sets the largest packet of an interface, in bytes.
pub(crate) fn set_mtu(index: u32, name: &str, mtu: u32) -> Request {
    let mut m = Message::new(RTM_NEWLINK, 0, &link_header(index, false));
    m.u32(IFLA_MTU, mtu);
    Request::new(format!("set the MTU of interface {name:?} to {mtu}"), m)
}

/// Sets the free text of an interface.
pub(crate) fn set_alias(index: u32, alias: &str) -> Request {
    let mut m = Message::new(RTM_NEWLINK, 0, &link_header(index, false));
    m.string(IFLA_IFALIAS, alias);
    Request::new(format!("set the alias of interface {index}"), m)
}

/// Deletes an interface. Slow: the kernel waits for a grace period (about 20 ms).
pub(crate) fn delete_link(index: u32, name: &str) -> Request {
    let m = Message::new(RTM_DELLINK, 0, &link_header(index, false));
    Request::new(format!("delete interface {name:?}"), m)
}

/// Gives an interface an address; no error if it has it.
pub(crate) fn add_address(index: u32, address: Ipv4Net) -> Request {
    let mut m = Message::new(RTM_NEWADDR, F_CREATE | F_REPLACE, &address_header(address.prefix_len(), index));
    m.bytes(IFA_LOCAL, &address.addr().octets());
    m.bytes(IFA_ADDRESS, &address.addr().octets());
    m.bytes(IFA_BROADCAST, &address.broadcast().octets());
    Request::new(format!("add address {address}"), m)
}

/// The default route.
pub(crate) fn add_default_route(index: u32, gateway: Ipv4Addr) -> Request {
    let mut m = Message::new(RTM_NEWROUTE, F_CREATE | F_EXCL, &route_header(0, TABLE_MAIN, PROTO_STATIC, UNICAST));
    m.bytes(RTA_GATEWAY, &gateway.octets());
    m.u32(RTA_OIF, index);
    Request::new(format!("add the default route by {gateway}"), m)
}

/// `struct ifinfomsg`; `up` sets `IFF_UP`, otherwise no flag is touched.
fn link_header(index: u32, up: bool) -> [u8; IFINFO] {
    let mut h = [0; IFINFO];
    h[4..8].copy_from_slice(&index.to_ne_bytes());
    let flags = if up { IFF_UP } else { 0 };
    h[8..12].copy_from_slice(&flags.to_ne_bytes());
    h[12..16].copy_from_slice(&flags.to_ne_bytes());
    h
}

/// `struct ifaddrmsg` of scope universe.
fn address_header(prefix_len: u8, index: u32) -> [u8; IFADDR] {
    let i = index.to_ne_bytes();
    [AF_INET, prefix_len, 0, 0, i[0], i[1], i[2], i[3]]
}

/// `struct rtmsg` of scope universe.
fn route_header(dst_len: u8, table: u8, protocol: u8, kind: u8) -> [u8; RTMSG] {
    [AF_INET, dst_len, 0, 0, table, protocol, 0, kind, 0, 0, 0, 0]
}

fn parse_link(payload: &[u8]) -> Option<LinkInfo> {
    let attributes = Attributes(payload.get(IFINFO..)?);
    Some(LinkInfo {
        index: read_u32(payload, 4)?,
        name: attributes.find_string(IFLA_IFNAME)?,
        up: read_u32(payload, 8)? & IFF_UP != 0,
        carries: attributes.find(IFLA_OPERSTATE) == Some(&[OPER_UP]),
        mtu: attributes.find_u32(IFLA_MTU).unwrap_or_default(),
        master: attributes.find_u32(IFLA_MASTER),
        kind: attributes.find_nested(IFLA_LINKINFO).and_then(|i| i.find_string(IFLA_INFO_KIND)).unwrap_or_default(),
        alias: attributes.find_string(IFLA_IFALIAS).unwrap_or_default(),
    })
}

fn parse_address(payload: &[u8]) -> Option<(u32, Ipv4Net)> {
    let attributes = Attributes(payload.get(IFADDR..)?);
    let octets: [u8; 4] = attributes.find(IFA_LOCAL)?.try_into().ok()?;
    Some((read_u32(payload, 4)?, Ipv4Net::new(octets.into(), *payload.get(1)?).ok()?))
}

fn parse_route(payload: &[u8]) -> Option<RouteInfo> {
    let attributes = Attributes(payload.get(RTMSG..)?);
    if *payload.first()? != AF_INET {
        return None;
    }
    let octets: [u8; 4] = match attributes.find(RTA_DST) {
        Some(bytes) => bytes.try_into().ok()?,
        None => [0; 4],
    };
    let destination = Ipv4Net::new(octets.into(), *payload.get(1)?).ok()?;
    Some(RouteInfo { destination, interface: attributes.find_u32(RTA_OIF) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::codec::Messages;

    #[test]
    fn a_veth_pair_is_one_request_with_the_peer_nested() {
        let file = std::fs::File::open("/proc/self/status").unwrap();
        let netns = std::os::fd::AsFd::as_fd(&file);
        let pair = VethPair {
            name: "bv1",
            bridge: 7,
            peer_name: "eth0",
            peer_mac: [2, 0xbe, 10, 64, 0, 2],
            peer_netns: netns,
            mtu: 1400,
        };
        let bytes = create_veth(&pair).message.finish(1);
        let message = Messages(&bytes).next().unwrap();
        assert_eq!((message.kind, message.flags), (RTM_NEWLINK, F_CREATE | F_EXCL));
        let link = parse_link(message.payload).unwrap();
        assert_eq!((link.name.as_str(), link.master, link.mtu, link.up), ("bv1", Some(7), 1400, true));
        let data =
            Attributes(&message.payload[IFINFO..]).find_nested(IFLA_LINKINFO).unwrap().find_nested(IFLA_INFO_DATA);
        let peer = data.unwrap().find(VETH_INFO_PEER).unwrap();
        let parsed = parse_link(peer).unwrap();
        assert_eq!((parsed.name.as_str(), parsed.up, parsed.mtu), ("eth0", false, 1400));
        let attributes = Attributes(&peer[IFINFO..]);
        assert_eq!(attributes.find(IFLA_ADDRESS).unwrap(), [2, 0xbe, 10, 64, 0, 2]);
        assert_eq!(attributes.find_u32(IFLA_NET_NS_FD).unwrap(), file.as_raw_fd().cast_unsigned());
    }

    #[test]
    fn a_default_route_and_a_subnet_are_read_apart() {
        let subnet: Ipv4Net = "10.64.3.0/24".parse().unwrap();
        let mut m = Message::new(RTM_NEWROUTE, 0, &route_header(24, TABLE_MAIN, 2, UNICAST));
        m.bytes(RTA_DST, &subnet.addr().octets());
        m.u32(RTA_OIF, 4);
        let bytes = m.finish(1);
        let got = parse_route(Messages(&bytes).next().unwrap().payload).unwrap();
        assert_eq!(got, RouteInfo { destination: subnet, interface: Some(4) });
        let bytes = add_default_route(3, Ipv4Addr::new(10, 0, 0, 1)).message.finish(1);
        let got = parse_route(Messages(&bytes).next().unwrap().payload).unwrap();
        assert_eq!(got.destination.prefix_len(), 0);
    }
}
