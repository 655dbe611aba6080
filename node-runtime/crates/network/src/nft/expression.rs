//! nf_tables expressions: what a rule is made of.
//!
//! Registers are those of four bytes (`NFT_REG32_00` = 8 and on). Must not: know what the rules are for.
use super::Family;
use crate::netlink::Message;
use ipnet::IpNet;
use std::net::IpAddr;

/// `NFT_REG_VERDICT`.
const VERDICT: u32 = 0;
/// `NFT_REG32_00`.
const REGISTER: u32 = 8;
const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;
/// `NFTA_DATA_VALUE`, `NFTA_DATA_VERDICT`, `NFTA_VERDICT_CODE`.
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
/// `NF_DROP` and `NF_ACCEPT`.
const DROP: u32 = 0;
const ACCEPT: u32 = 1;
/// `IFNAMSIZ`: names of interfaces are compared whole, padded with zeros.
const IFNAMSIZ: usize = 16;
/// `NFT_PAYLOAD_NETWORK_HEADER`, `NFT_PAYLOAD_TRANSPORT_HEADER`.
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
/// `NFT_CT_STATUS`, and `IPS_DST_NAT` of linux/netfilter/nf_conntrack_common.h.
const CT_STATUS: u32 = 2;
const STATUS_DNAT: u32 = 1 << 5;
/// `NFT_CT_STATE`, and `NF_CT_STATE_BIT(IP_CT_NEW)`.
const CT_STATE: u32 = 0;
const STATE_NEW: u32 = 1 << 3;
/// `NFT_FIB_RESULT_ADDRTYPE`, `NFTA_FIB_F_DADDR`, and `RTN_LOCAL` of linux/rtnetlink.h.
const FIB_ADDRESS_TYPE: u32 = 3;
const FIB_DESTINATION: u32 = 2;
const LOCAL: u32 = 2;
/// `NFT_NAT_DNAT`.
const DNAT: u32 = 1;
/// `NF_NAT_RANGE_PROTO_RANDOM_FULLY` of linux/netfilter/nf_nat.h.
const RANDOM_FULLY: u32 = 1 << 4;

/// Comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compare {
    /// `NFT_CMP_EQ`.
    Equal = 0,
    /// `NFT_CMP_NEQ`.
    NotEqual = 1,
}

/// A field of the IP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Address {
    /// Of the sender.
    Source,
    /// Of the receiver.
    Destination,
}

impl Address {
    /// Offset in the header (RFC 791, RFC 8200), and length.
    fn place(self, family: Family) -> (u32, u32) {
        match (family, self) {
            (Family::V4, Self::Source) => (12, 4),
            (Family::V4, Self::Destination) => (16, 4),
            (Family::V6, Self::Source) => (8, 16),
            (Family::V6, Self::Destination) => (24, 16),
        }
    }
}

/// `NFT_META_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meta {
    /// Name of the interface that the packet came in by.
    InputName = 6,
    /// Name of the interface that the packet leaves by.
    OutputName = 7,
    /// Protocol of the transport header.
    Protocol = 16,
}

/// One expression. `register` counts from 0 in steps of four bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expression<'a> {
    /// Loads a property of the packet.
    Meta { key: Meta, register: u32 },
    /// Loads an address of the IP header.
    Address { family: Family, field: Address, register: u32 },
    /// Loads the destination port of TCP, UDP and SCTP.
    DestinationPort { register: u32 },
    /// Loads the flags of the connection.
    ConnectionStatus { register: u32 },
    /// Loads what the packet is to the connection.
    ConnectionState { register: u32 },
    /// Loads the type of the destination address as the routing tables have it.
    DestinationType { register: u32 },
    /// `register = register & mask`.
    Mask { register: u32, mask: Vec<u8> },
    /// Ends the rule unless the register compares.
    Compare { register: u32, how: Compare, value: Vec<u8> },
    /// Ends the rule unless the set holds the key; a map's value goes to `register` too.
    Lookup { set: &'a str, register: u32, map: bool },
    /// Rewrites the destination to the address and the port in the registers.
    Dnat { family: Family, address: u32, port: u32 },
    /// Rewrites the source to an address of the interface that the packet leaves by.
    Masquerade { random: bool },
    /// Counts packets and bytes.
    Counter,
    /// Drops the packet.
    Drop,
    /// Lets the packet pass this chain.
    Accept,
}

impl Expression<'_> {
    /// Appends the expression as an attribute of a list.
    pub(super) fn write(&self, m: &mut Message, item: u16) {
        m.nest(item, |m| {
            m.string(EXPR_NAME, self.name());
            m.nest(EXPR_DATA, |m| self.write_data(m));
        });
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Meta { .. } => "meta",
            Self::Address { .. } | Self::DestinationPort { .. } => "payload",
            Self::ConnectionStatus { .. } | Self::ConnectionState { .. } => "ct",
            Self::DestinationType { .. } => "fib",
            Self::Mask { .. } => "bitwise",
            Self::Compare { .. } => "cmp",
            Self::Lookup { .. } => "lookup",
            Self::Dnat { .. } => "nat",
            Self::Masquerade { .. } => "masq",
            Self::Counter => "counter",
            Self::Drop | Self::Accept => "immediate",
        }
    }

    /// The numbers are the positions in the `enum nft_*_attributes` of the expression.
    fn write_data(&self, m: &mut Message) {
        match self {
            Self::Meta { key, register } => numbers(m, &[(1, REGISTER + register), (2, *key as u32)]),
            Self::Address { family, field, register } => {
                let (offset, len) = field.place(*family);
                numbers(m, &[(1, REGISTER + register), (2, NETWORK_HEADER), (3, offset), (4, len)]);
            }
            Self::DestinationPort { register } => {
                numbers(m, &[(1, REGISTER + register), (2, TRANSPORT_HEADER), (3, 2), (4, 2)]);
            }
            Self::ConnectionStatus { register } => numbers(m, &[(1, REGISTER + register), (2, CT_STATUS)]),
            Self::ConnectionState { register } => numbers(m, &[(1, REGISTER + register), (2, CT_STATE)]),
            Self::DestinationType { register } => {
                numbers(m, &[(1, REGISTER + register), (2, FIB_ADDRESS_TYPE), (3, FIB_DESTINATION)]);
            }
            Self::Mask { register, mask } => {
                let len = u32::try_from(mask.len()).unwrap_or(u32::MAX);
                numbers(m, &[(1, REGISTER + register), (2, REGISTER + register), (3, len)]);
                m.nest(4, |m| m.bytes(DATA_VALUE, mask));
                m.nest(5, |m| m.bytes(DATA_VALUE, &vec![0; mask.len()]));
            }
            Self::Compare { register, how, value } => {
                numbers(m, &[(1, REGISTER + register), (2, *how as u32)]);
                m.nest(3, |m| m.bytes(DATA_VALUE, value));
            }
            Self::Lookup { set, register, map } => {
                m.string(1, set);
                m.be32(2, REGISTER + register);
                if *map {
                    m.be32(3, REGISTER + register);
                }
            }
            Self::Dnat { family, address, port } => {
                numbers(m, &[(1, DNAT), (2, *family as u32), (3, REGISTER + address), (5, REGISTER + port)]);
            }
            Self::Masquerade { random } => {
                if *random {
                    m.be32(1, RANDOM_FULLY);
                }
            }
            // The kernel starts at zero.
            Self::Counter => {}
            Self::Drop => verdict(m, DROP),
            Self::Accept => verdict(m, ACCEPT),
        }
    }
}

fn numbers(m: &mut Message, attributes: &[(u16, u32)]) {
    attributes.iter().for_each(|(kind, value)| m.be32(*kind, *value));
}

fn verdict(m: &mut Message, code: u32) {
    m.be32(1, VERDICT);
    m.nest(2, |m| m.nest(DATA_VERDICT, |m| m.be32(VERDICT_CODE, code)));
}

/// `ip|ip6 saddr|daddr [!=] NET`.
pub(super) fn in_subnet<'a>(field: Address, how: Compare, net: IpNet) -> [Expression<'a>; 3] {
    [
        Expression::Address { family: Family::of(net.addr()), field, register: 0 },
        Expression::Mask { register: 0, mask: octets(net.netmask()) },
        Expression::Compare { register: 0, how, value: octets(net.network()) },
    ]
}

/// An address as packets have it.
pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// `iifname|oifname [!=] NAME`.
pub(super) fn by_interface<'a>(key: Meta, how: Compare, name: &str) -> [Expression<'a>; 2] {
    let mut value = name.as_bytes().to_vec();
    value.resize(IFNAMSIZ, 0);
    [Expression::Meta { key, register: 0 }, Expression::Compare { register: 0, how, value }]
}

/// `ct status dnat`; with `Equal` its contrary.
pub(super) fn destination_rewritten<'a>(how: Compare) -> [Expression<'a>; 3] {
    [
        Expression::ConnectionStatus { register: 0 },
        Expression::Mask { register: 0, mask: STATUS_DNAT.to_ne_bytes().to_vec() },
        Expression::Compare { register: 0, how, value: vec![0; 4] },
    ]
}

/// `ct state new`.
pub(super) fn new_connection<'a>() -> [Expression<'a>; 3] {
    [
        Expression::ConnectionState { register: 0 },
        Expression::Mask { register: 0, mask: STATE_NEW.to_ne_bytes().to_vec() },
        Expression::Compare { register: 0, how: Compare::NotEqual, value: vec![0; 4] },
    ]
}

/// `fib daddr type local`.
pub(super) fn to_this_node<'a>() -> [Expression<'a>; 2] {
    [
        Expression::DestinationType { register: 0 },
        Expression::Compare { register: 0, how: Compare::Equal, value: LOCAL.to_ne_bytes().to_vec() },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Attributes;
    use crate::netlink::codec::Messages;

    /// Name and attributes of an expression as the kernel would read them.
    fn read(expression: &Expression<'_>) -> (String, Vec<(u16, Vec<u8>)>) {
        let mut m = Message::new(0, 0, &[]);
        expression.write(&mut m, 1);
        let bytes = m.finish(1);
        let item = Attributes(Messages(&bytes).next().unwrap().payload).find_nested(1).unwrap();
        let data = item.find_nested(EXPR_DATA).unwrap().map(|(k, v)| (k, v.to_vec())).collect();
        (item.find_string(EXPR_NAME).unwrap(), data)
    }

    #[test]
    fn expressions_have_the_attributes_of_the_header_file() {
        let be = |n: u32| n.to_be_bytes().to_vec();
        assert_eq!(
            read(&Expression::DestinationPort { register: 1 }),
            ("payload".into(), vec![(1, be(9)), (2, be(2)), (3, be(2)), (4, be(2))])
        );
        assert_eq!(
            read(&Expression::Lookup { set: "ports", register: 0, map: true }),
            ("lookup".into(), vec![(1, b"ports\0".to_vec()), (2, be(8)), (3, be(8))])
        );
        assert_eq!(
            read(&Expression::Dnat { family: Family::V4, address: 0, port: 1 }),
            ("nat".into(), vec![(1, be(1)), (2, be(2)), (3, be(8)), (5, be(9))])
        );
        assert_eq!(
            read(&Expression::Dnat { family: Family::V6, address: 0, port: 4 }),
            ("nat".into(), vec![(1, be(1)), (2, be(10)), (3, be(8)), (5, be(12))])
        );
        assert_eq!(
            read(&Expression::Address { family: Family::V6, field: Address::Destination, register: 0 }),
            ("payload".into(), vec![(1, be(8)), (2, be(1)), (3, be(24)), (4, be(16))])
        );
        assert_eq!(read(&Expression::Masquerade { random: true }), ("masq".into(), vec![(1, be(16))]));
        assert_eq!(read(&Expression::Masquerade { random: false }), ("masq".into(), vec![]));
        let (name, data) = read(&Expression::Drop);
        assert_eq!((name.as_str(), &data[0]), ("immediate", &(1, be(0))));
        let code = Attributes(&data[1].1).find_nested(DATA_VERDICT).unwrap().find(VERDICT_CODE).unwrap();
        assert_eq!(code, be(0));
    }

    #[test]
    fn an_interface_name_is_compared_whole() {
        let [_, compare] = by_interface(Meta::InputName, Compare::Equal, "br0");
        let Expression::Compare { value, .. } = compare else { unreachable!() };
        assert_eq!(value.len(), IFNAMSIZ);
        assert!(value.starts_with(b"br0\0"));
    }
}
