//! rtnetlink: links, addresses and routes.
//!
//! Numbers: linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h, linux/veth.h. Must not: decide anything.
use super::codec::{Attributes, Message, read_u32};
use super::error::NetlinkError;
use super::socket::{F_CREATE, F_DUMP, F_EXCL, F_REPLACE, Request, Socket};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nix::errno::Errno;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_NEWNEIGH: u16 = 28;
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
const IFA_FLAGS: u16 = 8;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
/// `NUD_REACHABLE`: as if the neighbour had just answered.
const REACHABLE: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
/// `RTEXT_FILTER_SKIP_STATS`: leaves counters out of answers.
const SKIP_STATS: u32 = 1 << 3;
/// `IFF_UP` of linux/if.h.
const IFF_UP: u32 = 1;
/// `IF_OPER_UP` of linux/if.h.
const OPER_UP: u8 = 6;
/// `AF_INET` and `AF_INET6`.
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// `IFA_F_NODAD`: the address is used at once, without asking first whether a neighbour has it. Ours are leased: none has.
const NODAD: u32 = 2;
/// `RT_TABLE_MAIN`.
const TABLE_MAIN: u8 = 254;
/// `RT_TABLE_LOCAL`, and `RTN_LOCAL`.
const TABLE_LOCAL: u8 = 255;
const LOCAL: u8 = 2;
/// `RTPROT_STATIC`.
const PROTO_STATIC: u8 = 4;
/// `RTPROT_RA`: learnt from a router's advertisement.
const PROTO_RA: u8 = 9;
/// `RTN_UNICAST`.
const UNICAST: u8 = 1;
/// `RTN_LOCAL`, `RTN_ANYCAST`, `RTN_MULTICAST`: what the kernel adds to an address by itself.
const BY_KERNEL: [u8; 3] = [2, 4, 5];
/// Length of `struct ifinfomsg`.
const IFINFO: usize = 16;
/// Length of `struct ndmsg`.
const NDMSG: usize = 12;
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
    pub(crate) destination: IpNet,
    /// Index of the interface; none for unreachable routes and for several next hops.
    pub(crate) interface: Option<u32>,
    /// Did a router advertise it (IPv6)?
    pub(crate) advertised: bool,
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
        self.0.execute(requests).map(drop)
    }

    /// The same, with the interfaces that were looked up ([`look_up`]), in order.
    pub(crate) fn execute_and_look(&mut self, requests: Vec<Request>) -> Result<Vec<LinkInfo>, NetlinkError> {
        let answers = self.0.execute(requests)?;
        Ok(answers.iter().filter_map(|a| parse_link(&a.payload)).collect())
    }

    /// The interface of a name.
    pub(crate) fn link(&mut self, name: &str) -> Result<Option<LinkInfo>, NetlinkError> {
        match self.0.ask(look_up(name)) {
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

    /// The addresses of both families, each with the index of its interface.
    pub(crate) fn addresses(&mut self) -> Result<Vec<(u32, IpNet)>, NetlinkError> {
        // `AF_UNSPEC` dumps every family.
        let m = Message::new(RTM_GETADDR, F_DUMP, &address_header(0, 0, 0));
        let answers = self.0.ask(Request::new("list addresses", m))?;
        Ok(answers.iter().filter_map(|a| parse_address(&a.payload)).collect())
    }

    /// The routes of both families and of all tables.
    pub(crate) fn routes(&mut self) -> Result<Vec<RouteInfo>, NetlinkError> {
        let m = Message::new(RTM_GETROUTE, F_DUMP, &route_header(0, 0, 0, 0, 0));
        let answers = self.0.ask(Request::new("list routes", m))?;
        Ok(answers.iter().filter_map(|a| parse_route(&a.payload)).collect())
    }
}

/// Looks an interface up. From kernel 6.8 on that also makes it carry packets if it can (`rtnl_getlink`).
pub(crate) fn look_up(name: &str) -> Request {
    let mut m = Message::new(RTM_GETLINK, 0, &link_header(0, false));
    m.string(IFLA_IFNAME, name);
    m.u32(IFLA_EXT_MASK, SKIP_STATS);
    Request::new(format!("look up interface {name:?}"), m)
}

/// Creates a bridge, not set up. Its hardware address is given, or it would change as ports come and go.
pub(crate) fn create_bridge(name: &str, mac: Mac, mtu: u32) -> Request {
    let mut m = Message::new(RTM_NEWLINK, F_CREATE | F_EXCL, &link_header(0, false));
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

/// Sets the interface of a name up.
pub(crate) fn set_up_by_name(name: &str) -> Request {
    let mut m = Message::new(RTM_NEWLINK, 0, &link_header(0, true));
    m.string(IFLA_IFNAME, name);
    Request::new(format!("set interface {name:?} up"), m)
}

/// Creates an `ifb` interface, set up at once: what is redirected to it can be queued on its way in. Its alias is a request of
/// its own: the kernel takes none at creation (`rtnl_create_link`).
pub(crate) fn create_ifb(name: &str, mtu: u32, alias: &str) -> [Request; 2] {
    let mut m = Message::new(RTM_NEWLINK, F_CREATE | F_EXCL, &link_header(0, true));
    m.string(IFLA_IFNAME, name);
    m.u32(IFLA_MTU, mtu);
    m.nest(IFLA_LINKINFO, |m| m.string(IFLA_INFO_KIND, "ifb"));
    let mut text = Message::new(RTM_NEWLINK, 0, &link_header(0, false));
    text.string(IFLA_IFNAME, name);
    text.string(IFLA_IFALIAS, alias);
    let what = |verb: &str| format!("{verb} interface {name:?}");
    [Request::new(what("create"), m), Request::new(what("set the alias of"), text)]
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

/// Makes an interface, up, a port of a bridge.
pub(crate) fn set_master(index: u32, name: &str, bridge: u32) -> Request {
    let mut m = Message::new(RTM_NEWLINK, 0, &link_header(index, true));
    m.u32(IFLA_MASTER, bridge);
    Request::new(format!("set the bridge of interface {name:?}"), m)
}

/// Gives an interface an address; no error if it has it.
pub(crate) fn add_address(index: u32, address: IpNet) -> Request {
    let header = address_header(family(address.addr()), address.prefix_len(), index);
    let mut m = Message::new(RTM_NEWADDR, F_CREATE | F_REPLACE, &header);
    let octets = octets(address.addr());
    m.bytes(IFA_LOCAL, &octets);
    m.bytes(IFA_ADDRESS, &octets);
    match address {
        IpNet::V4(net) => m.bytes(IFA_BROADCAST, &net.broadcast().octets()),
        IpNet::V6(_) => m.u32(IFA_FLAGS, NODAD),
    }
    Request::new(format!("add address {address}"), m)
}

/// Makes a new IPv6 address one that packets are taken in for. The kernel does so itself, for every address and whatever its
/// flags, but from a work queue (net/ipv6/addrconf.c, `addrconf_dad_work`), on a busy node a second later: until then it
/// would drop what comes for the address.
pub(crate) fn take_in(index: u32, address: Ipv6Net) -> Request {
    let header = route_header(AF_INET6, 128, TABLE_LOCAL, PROTO_STATIC, LOCAL);
    let mut m = Message::new(RTM_NEWROUTE, F_CREATE | F_REPLACE, &header);
    m.bytes(RTA_DST, &address.addr().octets());
    m.u32(RTA_OIF, index);
    Request::new(format!("take in what comes for {address}"), m)
}

/// The addresses of an interface, usable at once.
pub(crate) fn add_addresses(index: u32, addresses: &[IpNet]) -> Vec<Request> {
    let one = |net: &IpNet| {
        let local = match net {
            IpNet::V4(_) => None,
            IpNet::V6(net) => Some(take_in(index, *net)),
        };
        std::iter::once(add_address(index, *net)).chain(local)
    };
    addresses.iter().flat_map(one).collect()
}

/// The default route of the gateway's family.
pub(crate) fn add_default_route(index: u32, gateway: IpAddr) -> Request {
    let header = route_header(family(gateway), 0, TABLE_MAIN, PROTO_STATIC, UNICAST);
    let mut m = Message::new(RTM_NEWROUTE, F_CREATE | F_EXCL, &header);
    m.bytes(RTA_GATEWAY, &octets(gateway));
    m.u32(RTA_OIF, index);
    Request::new(format!("add the default route by {gateway}"), m)
}

/// Tells an interface the hardware address of a neighbour, as if it had answered just now: it is asked again in time. A new
/// IPv6 address answers nobody until the kernel has joined its multicast group, which a busy node does a second later
/// (net/ipv6/addrconf.c, `addrconf_dad_work`).
pub(crate) fn add_neighbour(index: u32, address: IpAddr, mac: Mac) -> Request {
    let mut header = [0; NDMSG];
    header[0] = family(address);
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..10].copy_from_slice(&REACHABLE.to_ne_bytes());
    let mut m = Message::new(RTM_NEWNEIGH, F_CREATE | F_REPLACE, &header);
    m.bytes(NDA_DST, &octets(address));
    m.bytes(NDA_LLADDR, &mac);
    Request::new(format!("add neighbour {address}"), m)
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// An address of a message; `None` stands for the family's zero.
fn net(family: u8, bytes: Option<&[u8]>, prefix: u8) -> Option<IpNet> {
    match family {
        AF_INET => {
            let octets: [u8; 4] = bytes.map_or(Ok([0; 4]), TryInto::try_into).ok()?;
            Ipv4Net::new(octets.into(), prefix).ok().map(IpNet::V4)
        }
        AF_INET6 => {
            let octets: [u8; 16] = bytes.map_or(Ok([0; 16]), TryInto::try_into).ok()?;
            Ipv6Net::new(octets.into(), prefix).ok().map(IpNet::V6)
        }
        _ => None,
    }
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
fn address_header(family: u8, prefix_len: u8, index: u32) -> [u8; IFADDR] {
    let i = index.to_ne_bytes();
    [family, prefix_len, 0, 0, i[0], i[1], i[2], i[3]]
}

/// `struct rtmsg` of scope universe.
fn route_header(family: u8, dst_len: u8, table: u8, protocol: u8, kind: u8) -> [u8; RTMSG] {
    [family, dst_len, 0, 0, table, protocol, 0, kind, 0, 0, 0, 0]
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

fn parse_address(payload: &[u8]) -> Option<(u32, IpNet)> {
    let attributes = Attributes(payload.get(IFADDR..)?);
    // IPv6 has `IFA_LOCAL` only where a peer's address differs.
    let address = attributes.find(IFA_LOCAL).or_else(|| attributes.find(IFA_ADDRESS))?;
    Some((read_u32(payload, 4)?, net(*payload.first()?, Some(address), *payload.get(1)?)?))
}

fn parse_route(payload: &[u8]) -> Option<RouteInfo> {
    let attributes = Attributes(payload.get(RTMSG..)?);
    let family = *payload.first()?;
    if family == AF_INET6 && BY_KERNEL.contains(payload.get(7)?) {
        return None;
    }
    let destination = net(family, attributes.find(RTA_DST), *payload.get(1)?)?;
    let advertised = *payload.get(5)? == PROTO_RA;
    Some(RouteInfo { destination, interface: attributes.find_u32(RTA_OIF), advertised })
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
    fn routes_and_addresses_of_both_families_are_read() {
        for text in ["10.64.3.0/24", "fdbe:1:2::/64"] {
            let subnet: IpNet = text.parse().unwrap();
            let header = route_header(family(subnet.addr()), subnet.prefix_len(), TABLE_MAIN, PROTO_RA, UNICAST);
            let mut m = Message::new(RTM_NEWROUTE, 0, &header);
            m.bytes(RTA_DST, &octets(subnet.addr()));
            m.u32(RTA_OIF, 4);
            let bytes = m.finish(1);
            let got = parse_route(Messages(&bytes).next().unwrap().payload).unwrap();
            assert_eq!(got, RouteInfo { destination: subnet, interface: Some(4), advertised: true });
            let bytes = add_address(3, subnet).message.finish(1);
            assert_eq!(parse_address(Messages(&bytes).next().unwrap().payload), Some((3, subnet)));
        }
        for (gateway, all) in [("10.0.0.1", "0.0.0.0/0"), ("fdbe::1", "::/0")] {
            let bytes = add_default_route(3, gateway.parse().unwrap()).message.finish(1);
            let got = parse_route(Messages(&bytes).next().unwrap().payload).unwrap();
            assert_eq!((got.destination.to_string().as_str(), got.advertised), (all, false));
        }
    }

    #[test]
    fn an_ipv6_address_is_used_without_asking_neighbours() {
        let bytes = add_address(3, "fdbe::2/64".parse().unwrap()).message.finish(1);
        let payload = Messages(&bytes).next().unwrap().payload;
        assert_eq!(Attributes(&payload[IFADDR..]).find_u32(IFA_FLAGS), Some(NODAD));
    }
}
