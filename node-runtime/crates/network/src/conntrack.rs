//! Connection tracking: makes the kernel forget flows that were translated otherwise than they would be now.
//!
//! A UDP client that never pauses keeps its flow alive, and with it the decision that was made for its first packet: to the
//! pod that had the host port before, or to none. New TCP connections are flows of their own and need no such help.
//! Numbers: linux/netfilter/nfnetlink_conntrack.h; the filter's flags are in the kernel's net/netfilter/nf_conntrack_netlink.c.
//! Must not: touch a flow that did not go to this node's own addresses.
use crate::netlink::socket::F_DUMP;
use crate::netlink::{Attributes, Message, NetlinkError, Request, Socket};
use crate::nft::{Family, HostPort};
use berth_model::Protocol;
use ipnet::IpNet;
use nix::errno::Errno;
use std::net::IpAddr;

/// `NFNL_SUBSYS_CTNETLINK`.
const SUBSYSTEM: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;
/// Length of `struct nfgenmsg`.
const HEADER: usize = 4;
const TUPLE_ORIG: u16 = 1;
const ZONE: u16 = 18;
const FILTER: u16 = 25;
const FILTER_ORIG_FLAGS: u16 = 1;
const FILTER_REPLY_FLAGS: u16 = 2;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const IP_V4_DST: u16 = 2;
const IP_V6_DST: u16 = 4;
const PROTO_NUM: u16 = 1;
const PROTO_DST_PORT: u16 = 3;
/// `CTA_FILTER_F_CTA_PROTO_NUM` and `CTA_FILTER_F_CTA_PROTO_DST_PORT`.
const BY_PROTOCOL_AND_PORT: u32 = (1 << 3) | (1 << 5);
/// `IPPROTO_UDP`.
const UDP: u8 = 17;
/// Most flows to forget for one port: 64 KiB of requests at 128 bytes each would be too long for one datagram.
const AT_ONCE: usize = 256;

/// An nfnetlink socket for connection tracking.
#[derive(Debug)]
pub(crate) struct ConntrackSocket(Socket);

impl ConntrackSocket {
    /// Opens one in the calling thread's network namespace.
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        Socket::open(netlink_sys::protocols::NETLINK_NETFILTER).map(Self)
    }

    /// Forgets the UDP flows to these ports of the node's addresses (`local`).
    pub(crate) fn forget(&mut self, ports: &[HostPort], local: &[IpNet]) -> Result<(), NetlinkError> {
        for port in ports.iter().filter(|p| p.protocol == Protocol::Udp) {
            let family = Family::of(port.target.ip());
            let request = Request::new(format!("list flows to UDP port {}", port.port), list(family, port.port));
            let answers = self.0.ask(request)?;
            let ours = |to: IpAddr| match port.address {
                Some(address) => to == address,
                None => to.is_loopback() || local.iter().any(|net| net.addr() == to),
            };
            let flows: Vec<Request> =
                answers.iter().filter_map(|a| delete(family, &a.payload, port.port, ours)).collect();
            for flows in flows.chunks(AT_ONCE) {
                match self.0.execute(flows.to_vec()) {
                    // It ended by itself.
                    Err(e) if e.is(Errno::ENOENT) => {}
                    result => drop(result?),
                }
            }
        }
        Ok(())
    }
}

/// `struct nfgenmsg`.
fn header(family: Family) -> [u8; HEADER] {
    [family as u8, 0, 0, 0]
}

/// The address that the first packet went to.
fn destination(family: Family, ip: Attributes<'_>) -> Option<IpAddr> {
    match family {
        Family::V4 => <[u8; 4]>::try_from(ip.find(IP_V4_DST)?).ok().map(IpAddr::from),
        Family::V6 => <[u8; 16]>::try_from(ip.find(IP_V6_DST)?).ok().map(IpAddr::from),
    }
}

/// Asks for the flows whose first packet went to a UDP port.
fn list(family: Family, port: u16) -> Message {
    let mut m = Message::new(SUBSYSTEM << 8 | GET, F_DUMP, &header(family));
    m.nest(FILTER, |m| {
        m.u32(FILTER_ORIG_FLAGS, BY_PROTOCOL_AND_PORT);
        m.u32(FILTER_REPLY_FLAGS, 0);
    });
    m.nest(TUPLE_ORIG, |m| {
        m.nest(TUPLE_PROTO, |m| {
            m.bytes(PROTO_NUM, &[UDP]);
            m.bytes(PROTO_DST_PORT, &port.to_be_bytes());
        });
    });
    m
}

/// The request that makes the kernel forget a flow, if it is one to `port` of an address that is `ours`.
fn delete(family: Family, flow: &[u8], port: u16, ours: impl Fn(IpAddr) -> bool) -> Option<Request> {
    let attributes = Attributes(flow.get(HEADER..)?);
    let tuple = attributes.find(TUPLE_ORIG)?;
    let to = destination(family, Attributes(tuple).find_nested(TUPLE_IP)?)?;
    let transport = Attributes(tuple).find_nested(TUPLE_PROTO)?;
    let same = transport.find(PROTO_NUM)? == [UDP] && transport.find(PROTO_DST_PORT)? == port.to_be_bytes();
    if !same || !ours(to) {
        return None;
    }
    let mut m = Message::new(SUBSYSTEM << 8 | DELETE, 0, &header(family));
    m.nest_after(TUPLE_ORIG, tuple, |_| {});
    if let Some(zone) = attributes.find(ZONE) {
        m.bytes(ZONE, zone);
    }
    Some(Request::new(format!("forget a flow to UDP port {port}"), m))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::codec::Messages;

    fn flow(to: &str, port: u16) -> Vec<u8> {
        let to: IpAddr = to.parse().unwrap();
        let mut m = Message::new(SUBSYSTEM << 8, 0, &header(Family::of(to)));
        m.nest(TUPLE_ORIG, |m| {
            m.nest(TUPLE_IP, |m| match to {
                IpAddr::V4(v4) => m.bytes(IP_V4_DST, &v4.octets()),
                IpAddr::V6(v6) => m.bytes(IP_V6_DST, &v6.octets()),
            });
            m.nest(TUPLE_PROTO, |m| {
                m.bytes(PROTO_NUM, &[UDP]);
                m.bytes(PROTO_DST_PORT, &port.to_be_bytes());
            });
        });
        m.bytes(ZONE, &[0, 7]);
        let bytes = m.finish(1);
        Messages(&bytes).next().unwrap().payload.to_vec()
    }

    #[test]
    fn only_flows_to_the_port_of_an_own_address_are_forgotten() {
        for (family, own, other) in [(Family::V4, "192.0.2.2", "192.0.2.1"), (Family::V6, "2001:db8::2", "2001:db8::1")]
        {
            let ours = |to: IpAddr| to.to_string() == own;
            assert!(delete(family, &flow(other, 53), 53, ours).is_none());
            assert!(delete(family, &flow(own, 54), 53, ours).is_none());
            let flow = flow(own, 53);
            let bytes = delete(family, &flow, 53, ours).unwrap().message.finish(1);
            let got = Messages(&bytes).next().unwrap();
            assert_eq!((got.kind, got.payload[0]), (0x102, family as u8));
            let (sent, listed) = (Attributes(&got.payload[4..]), Attributes(&flow[4..]));
            assert_eq!(sent.find(TUPLE_ORIG), listed.find(TUPLE_ORIG));
            assert_eq!(sent.find(ZONE), Some(&[0, 7][..]));
            assert!(delete(family, &flow[..flow.len() / 2], 53, ours).is_none(), "a torn answer is no flow");
        }
    }
}
