//! Host ports of SCTP on a real kernel, which need not have SCTP itself: the packets of an association's beginning (RFC 9260)
//! are sent and received by raw sockets, so that what the node's kernel translates is real traffic. Needs root, `ip` and `nft`.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test says what went wrong by panicking")]

use crate::network::{Netns, Node, dual, ip, port};
use berth_model::Protocol;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, sockopt};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
/// Length of IPv4's header, which raw sockets of that family get too.
const IPV4_HEADER: usize = 20;

/// A packet with one chunk.
#[derive(Debug, PartialEq, Eq)]
struct Packet {
    from: u16,
    to: u16,
    /// Verification tag: none in an INIT, then that of the receiver.
    tag: u32,
    chunk: u8,
    /// The sender's own tag.
    own: u32,
}

impl Packet {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes =
            [&self.from.to_be_bytes()[..], &self.to.to_be_bytes(), &self.tag.to_be_bytes(), &[0; 4]].concat();
        // Window, streams out and in, first sequence number.
        let mut body = [&self.own.to_be_bytes()[..], &[0, 1, 0, 0], &[0, 1, 0, 1], &[0, 0, 0, 9]].concat();
        if self.chunk == INIT_ACK {
            // A state cookie is part of it.
            body.extend([0, 7, 0, 8, 1, 2, 3, 4]);
        }
        bytes.extend([self.chunk, 0]);
        bytes.extend(u16::try_from(body.len() + 4).unwrap().to_be_bytes());
        bytes.extend(body);
        let sum = crc32c(&bytes);
        bytes[8..12].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads a packet whose checksum is right.
    fn parse(bytes: &[u8]) -> Self {
        let mut plain = bytes.to_vec();
        plain[8..12].fill(0);
        assert_eq!(crc32c(&plain).to_le_bytes(), bytes[8..12], "the checksum of a translated packet");
        let two = |at: usize| u16::from_be_bytes(bytes[at..at + 2].try_into().unwrap());
        let four = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        Self { from: two(0), to: two(2), tag: four(4), chunk: bytes[12], own: four(16) }
    }
}

fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 })
    };
    !bytes.iter().fold(u32::MAX, step)
}

struct Raw(OwnedFd, bool);

impl Raw {
    fn open(netns: &Netns, v4: bool) -> Self {
        let family = if v4 { AddressFamily::INET } else { AddressFamily::INET6 };
        let open = || rustix::net::socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::SCTP));
        let socket = netns.run(|| open().unwrap());
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(Duration::from_secs(3))).unwrap();
        Self(socket, v4)
    }

    fn send(&self, to: IpAddr, packet: &Packet) {
        rustix::net::sendto(&self.0, &packet.bytes(), SendFlags::empty(), &SocketAddr::new(to, 0)).unwrap();
    }

    fn receive(&self) -> (Packet, IpAddr) {
        let mut buffer = [0; 256];
        let (len, _, from) = rustix::net::recvfrom(&self.0, &mut buffer[..], RecvFlags::empty()).expect("nothing came");
        let from = SocketAddr::try_from(from.unwrap()).unwrap().ip();
        (Packet::parse(&buffer[if self.1 { IPV4_HEADER } else { 0 }..len]), from)
    }
}

#[test]
fn an_association_begins_through_a_host_port_by_both_families() {
    let node = Node::new();
    let (bridge, _) = node.bridge(dual(1));
    let pod = node.pod(&bridge, &[port(Protocol::Sctp, 8081, 5000, None)]);
    let other = node.pod(&bridge, &[]);
    for (name, from, to, seen) in [
        ("from the world", &node.world, "192.0.2.2", Some("192.0.2.1")),
        ("from the world by IPv6", &node.world, "2001:db8::2", Some("2001:db8::1")),
        ("from another pod", &other.netns, "192.0.2.2", None),
        ("from another pod by IPv6", &other.netns, "2001:db8::2", None),
    ] {
        let to = ip(to);
        let (client, server) = (Raw::open(from, to.is_ipv4()), Raw::open(&pod.netns, to.is_ipv4()));
        let init = Packet { from: 40_000, to: 8081, tag: 0, chunk: INIT, own: 77 };
        client.send(to, &init);
        let (got, peer) = server.receive();
        assert_eq!((got.to, got.chunk, got.own), (5000, INIT, 77), "{name}");
        if let Some(seen) = seen {
            assert_eq!(peer, ip(seen), "{name}: the client's address");
        }
        let answer = Packet { from: 5000, to: got.from, tag: 77, chunk: INIT_ACK, own: 88 };
        server.send(peer, &answer);
        let (back, peer) = client.receive();
        assert_eq!(back, Packet { from: 8081, to: 40_000, tag: 77, chunk: INIT_ACK, own: 88 }, "{name}");
        assert_eq!(peer, to, "{name}: from the address that was asked");
    }
    node.detach(&bridge, &pod);
    assert!(!node.netns.ruleset().contains("elements"), "{}", node.netns.ruleset());
}
