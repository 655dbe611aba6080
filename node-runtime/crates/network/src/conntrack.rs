//! Connection tracking: makes the kernel forget flows that were translated otherwise than they would be now.
//!
//! A UDP client that never pauses keeps its flow alive, and with it the decision that was made for its first packet: to the
//! pod that had the host port before, or to none. New TCP connections are flows of their own and need no such help.
//! Numbers: linux/netfilter/nfnetlink_conntrack.h; the filter's flags are in the kernel's net/netfilter/nf_conntrack_netlink.c.
//! Must not: touch a flow that did not go to this node's own addresses.
use crate::netlink::socket::F_DUMP;
use crate::netlink::{Attributes, Message, NetlinkError, Request, Socket};
use crate::nft::HostPort;
use berth_model::Protocol;
use ipnet::Ipv4Net;
use nix::errno::Errno;
use std::net::Ipv4Addr;

/// `NFNL_SUBSYS_CTNETLINK`.
const SUBSYSTEM: u16 = 1;
const GET: u16 = 1;
const DELETE: u16 = 2;
/// `struct nfgenmsg` of `AF_INET`.
const HEADER: [u8; 4] = [2, 0, 0, 0];
const TUPLE_ORIG: u16 = 1;
const ZONE: u16 = 18;
const FILTER: u16 = 25;
const FILTER_ORIG_FLAGS: u16 = 1;
const FILTER_REPLY_FLAGS: u16 = 2;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const IP_V4_DST: u16 = 2;
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
    pub(crate) fn forget(&mut self, ports: &[HostPort], local: &[Ipv4Net]) -> Result<(), NetlinkError> {
        for port in ports.iter().filter(|p| p.protocol == Protocol::Udp) {
            let answers = self.0.ask(Request::new(format!("list flows to UDP port {}", port.port), list(port.port)))?;
            let ours = |to: Ipv4Addr| match port.address {
                Some(address) => to == address,
                None => to.is_loopback() || local.iter().any(|net| net.addr() == to),
            };
            let flows: Vec<Request> = answers.iter().filter_map(|a| delete(&a.payload, port.port, ours)).collect();
            for flows in flows.chunks(AT_ONCE) {
                match self.0.execute(flows.to_vec()) {
                    // It ended by itself.
                    Err(e) if e.is(Errno::ENOENT) => {}
                    result => result?,
                }
            }
        }
        Ok(())
    }
}

/// Asks for the flows whose first packet went to a UDP port.
fn list(port: u16) -> Message {
    let mut m = Message::new(SUBSYSTEM << 8 | GET, F_DUMP, &HEADER);
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
fn delete(flow: &[u8], port: u16, ours: impl Fn(Ipv4Addr) -> bool) -> Option<Request> {
    let attributes = Attributes(flow.get(HEADER.len()..)?);
    let tuple = attributes.find(TUPLE_ORIG)?;
    let to: [u8; 4] = Attributes(tuple).find_nested(TUPLE_IP)?.find(IP_V4_DST)?.try_into().ok()?;
    let transport = Attributes(tuple).find_nested(TUPLE_PROTO)?;
    let same = transport.find(PROTO_NUM)? == [UDP] && transport.find(PROTO_DST_PORT)? == port.to_be_bytes();
    if !same || !ours(to.into()) {
        return None;
    }
    let mut m = Message::new(SUBSYSTEM << 8 | DELETE, 0, &HEADER);
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

    fn flow(to: [u8; 4], port: u16) -> Vec<u8> {
        let mut m = Message::new(SUBSYSTEM << 8, 0, &HEADER);
        m.nest(TUPLE_ORIG, |m| {
            m.nest(TUPLE_IP, |m| m.bytes(IP_V4_DST, &to));
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
        let ours = |to: Ipv4Addr| to == Ipv4Addr::new(192, 0, 2, 2);
        assert!(delete(&flow([192, 0, 2, 1], 53), 53, ours).is_none());
        assert!(delete(&flow([192, 0, 2, 2], 54), 53, ours).is_none());
        let flow = flow([192, 0, 2, 2], 53);
        let bytes = delete(&flow, 53, ours).unwrap().message.finish(1);
        let got = Messages(&bytes).next().unwrap();
        assert_eq!(got.kind, 0x102);
        let (sent, listed) = (Attributes(&got.payload[4..]), Attributes(&flow[4..]));
        assert_eq!(sent.find(TUPLE_ORIG), listed.find(TUPLE_ORIG));
        assert_eq!(sent.find(ZONE), Some(&[0, 7][..]));
        assert!(delete(&flow[..flow.len() / 2], 53, ours).is_none(), "a torn answer is no flow");
    }
}
