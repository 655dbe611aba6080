//! What a bridge network is set up with.
use berth_model::{Error, Result};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Longest name of an interface (`IFNAMSIZ` less its NUL).
const NAME_MAX: usize = 15;
/// Longest name of an nftables table that we take; the kernel's own limit is 255.
const TABLE_MAX: usize = 64;
/// Smallest MTU of IPv4 (RFC 791), and the largest one that a veth takes.
const MTU: std::ops::RangeInclusive<u32> = 68..=65_535;
/// Smallest MTU of IPv6 (RFC 8200).
const MTU6_MIN: u32 = 1280;
/// Longest prefixes are those that leave a pod an address beside the gateway's.
const PREFIX: std::ops::RangeInclusive<u8> = 8..=29;
/// Shortest prefix of an IPv6 subnet.
const PREFIX6_MIN: u8 = 8;

/// A bridge network; name, subnet and table differ between roots of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeConfig {
    /// Name of the bridge, up to 15 characters of `[a-zA-Z0-9_-]`.
    pub bridge: String,
    /// Name of the nftables tables (families `ip` and `ip6`).
    pub table: String,
    /// Addresses of pods; the first one is the gateway's.
    pub subnet: Ipv4Net,
    /// The same for IPv6; `None` is an IPv4 network. A pod has the same place in both subnets.
    pub subnet6: Option<Ipv6Net>,
    /// Is IPv6 the primary family? Then a pod's first address is of it.
    pub prefer_ipv6: bool,
    /// First and last address that pods get; `None` is all of the subnet.
    pub range: Option<(Ipv4Addr, Ipv4Addr)>,
    /// Were the subnets derived from this hash of the root? Then others are taken where they are in use on the node, and
    /// the pod CIDR that the kubelet tells is followed.
    pub derived_from: Option<u32>,
    /// Largest packet in bytes; `None` takes that of the default route's interface.
    pub mtu: Option<u32>,
}

impl BridgeConfig {
    /// An IPv4 network with all defaults.
    pub fn new(bridge: impl Into<String>, table: impl Into<String>, subnet: Ipv4Net) -> Self {
        Self {
            bridge: bridge.into(),
            table: table.into(),
            subnet,
            subnet6: None,
            prefer_ipv6: false,
            range: None,
            derived_from: None,
            mtu: None,
        }
    }

    /// Checks names and ranges, and asks the kernel nothing. Errors: `InvalidArgument` naming the field.
    pub fn validate(&self) -> Result<()> {
        name("bridge", &self.bridge, NAME_MAX)?;
        name("table", &self.table, TABLE_MAX)?;
        if !PREFIX.contains(&self.subnet.prefix_len()) {
            return Err(Error::invalid("subnet", format!("{}: the prefix must be 8 to 29 bits long", self.subnet)));
        }
        if self.subnet.trunc() != self.subnet {
            return Err(Error::invalid("subnet", format!("{}: did you mean {}?", self.subnet, self.subnet.trunc())));
        }
        if let Some(subnet6) = self.subnet6 {
            self.validate_subnet6(subnet6)?;
        }
        if let Some((first, last)) = self.range {
            let pods = self.first_pod()..=self.last_pod();
            if first > last || !pods.contains(&first) || !pods.contains(&last) {
                let problem = format!("{first} to {last} must lie within {} to {}", pods.start(), pods.end());
                return Err(Error::invalid("rangeStart, rangeEnd", problem));
            }
        }
        match self.mtu {
            Some(mtu) if !MTU.contains(&mtu) => Err(Error::invalid("mtu", format!("{mtu} is not within 68 to 65535"))),
            Some(mtu) if self.subnet6.is_some() && mtu < MTU6_MIN => {
                Err(Error::invalid("mtu", format!("{mtu} is less than IPv6 needs, which is {MTU6_MIN}")))
            }
            _ => Ok(()),
        }
    }

    fn validate_subnet6(&self, subnet6: Ipv6Net) -> Result<()> {
        let longest = 96 + self.subnet.prefix_len();
        let refuse = |problem: String| Err(Error::invalid("subnet6", format!("{subnet6}: {problem}")));
        if !(PREFIX6_MIN..=longest).contains(&subnet6.prefix_len()) {
            let problem =
                format!("the prefix must be 8 to {longest} bits long, to hold as many pods as {}", self.subnet);
            return refuse(problem);
        }
        if subnet6.trunc() != subnet6 {
            return refuse(format!("did you mean {}?", subnet6.trunc()));
        }
        let network = subnet6.network();
        if network.is_multicast() || network.is_unicast_link_local() || network.is_unspecified() {
            return refuse("must be global or unique local addresses (fd00::/8)".to_owned());
        }
        Ok(())
    }

    /// The subnets, IPv4 first.
    pub(super) fn subnets(&self) -> Vec<IpNet> {
        std::iter::once(IpNet::V4(self.subnet)).chain(self.subnet6.map(IpNet::V6)).collect()
    }

    /// The first address of the subnet.
    pub(super) fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.subnet.network().to_bits() + 1)
    }

    /// The first address of the IPv6 subnet.
    pub(super) fn gateway6(&self) -> Option<Ipv6Addr> {
        self.beside(self.gateway())
    }

    /// The gateway's addresses with the subnets' prefixes, as the bridge has them.
    pub(super) fn gateway_nets(&self) -> Vec<IpNet> {
        self.nets(self.gateway(), self.gateway6())
    }

    /// Addresses with the subnets' prefixes, the primary family first.
    pub(super) fn nets(&self, address: Ipv4Addr, address6: Option<Ipv6Addr>) -> Vec<IpNet> {
        let mut nets = vec![IpNet::V4(Ipv4Net::new_assert(address, self.subnet.prefix_len()))];
        if let (Some(address6), Some(subnet6)) = (address6, self.subnet6) {
            nets.push(IpNet::V6(Ipv6Net::new_assert(address6, subnet6.prefix_len())));
        }
        if self.prefer_ipv6 {
            nets.reverse();
        }
        nets
    }

    /// The IPv6 address at the same place in its subnet as an IPv4 address in its own.
    pub(super) fn beside(&self, address: Ipv4Addr) -> Option<Ipv6Addr> {
        let place = address.to_bits().wrapping_sub(self.subnet.network().to_bits());
        self.subnet6.map(|subnet6| Ipv6Addr::from_bits(subnet6.network().to_bits() + u128::from(place)))
    }

    /// The first and the last address that a pod may have.
    pub fn pod_range(&self) -> (Ipv4Addr, Ipv4Addr) {
        (self.first_pod(), self.last_pod())
    }

    /// The first address that a pod may have.
    pub(super) fn first_pod(&self) -> Ipv4Addr {
        let first = Ipv4Addr::from_bits(self.gateway().to_bits() + 1);
        self.range.map_or(first, |(start, _)| start.max(first))
    }

    /// The last address that a pod may have.
    pub(super) fn last_pod(&self) -> Ipv4Addr {
        let last = Ipv4Addr::from_bits(self.subnet.broadcast().to_bits() - 1);
        self.range.map_or(last, |(_, end)| end.min(last))
    }
}

fn name(field: &str, name: &str, max: usize) -> Result<()> {
    let good = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
    if name.is_empty() || name.len() > max || !name.bytes().all(good) || !name.as_bytes()[0].is_ascii_alphabetic() {
        let problem =
            format!("{name:?} must have 1 to {max} characters of a-z, A-Z, 0-9, - and _, and begin with a letter");
        return Err(Error::invalid(field, problem));
    }
    Ok(())
}

/// The hardware address of an IPv4 address: locally administered, and the same whenever the address is handed out again,
/// so that neighbours need not learn it anew.
pub(super) fn mac_of(address: Ipv4Addr) -> [u8; 6] {
    let ([x, y], [a, b, c, d]) = (OWN_MACS, address.octets());
    [x, y, a, b, c, d]
}

/// How those begin.
pub(super) const OWN_MACS: [u8; 2] = [0x02, 0xbe];

/// How many subnets [`subnet_for`] chooses among.
pub(super) const SUBNETS: u32 = 24 * 256;

/// The default subnet of a root: a /24 within 10.64.0.0 to 10.87.255.255. That range keeps clear of what others take by
/// default (10.88.0.0/16 podman, 10.96.0.0/12 kubeadm's services, 10.244.0.0/16 flannel, 172.17.0.0/16 docker).
/// `turn` is how many of those that follow from the hash are left out; all of them come within [`SUBNETS`] turns.
pub fn subnet_for(root_hash: u32, turn: u32) -> Ipv4Net {
    let [_, a, b, c] = root_hash.to_be_bytes();
    let first = u32::from(u16::from_be_bytes([a, b]) % 24) * 256 + u32::from(c);
    let [_, _, second, third] = ((first + turn % SUBNETS) % SUBNETS).to_be_bytes();
    Ipv4Net::new_assert(Ipv4Addr::new(10, 64 + second, third, 0), 24)
}

/// The default IPv6 subnet of a root: a /64 of unique local addresses (RFC 4193) with the hash in its global identifier and
/// `turn` as its subnet identifier.
pub fn subnet6_for(root_hash: u32, turn: u16) -> Ipv6Net {
    let [a, b, c, d] = root_hash.to_be_bytes();
    let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    Ipv6Net::new_assert(Ipv6Addr::new(0xfdbe, high, low, turn, 0, 0, 0, 0), 64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn config() -> BridgeConfig {
        let subnet6 = Some("fdbe:1:2::/64".parse().unwrap());
        BridgeConfig { subnet6, ..BridgeConfig::new("berth0", "berth_1", "10.64.3.0/24".parse().unwrap()) }
    }

    #[test]
    fn a_bad_field_is_named() {
        assert!(config().validate().is_ok());
        let bad = |change: fn(&mut BridgeConfig)| {
            let mut c = config();
            change(&mut c);
            c.validate().unwrap_err().to_string()
        };
        assert!(bad(|c| c.bridge = "a234567890123456".into()).starts_with("bridge:"));
        assert!(bad(|c| c.bridge = "../x".into()).starts_with("bridge:"));
        assert!(bad(|c| c.table = String::new()).starts_with("table:"));
        assert!(bad(|c| c.subnet = "10.64.3.7/24".parse().unwrap()).contains("10.64.3.0/24"));
        assert!(bad(|c| c.subnet = "10.64.3.0/30".parse().unwrap()).starts_with("subnet:"));
        assert!(bad(|c| c.mtu = Some(20)).starts_with("mtu:"));
        assert!(bad(|c| c.mtu = Some(1000)).contains("1280"));
        assert!(bad(|c| c.subnet6 = Some("fdbe::1/64".parse().unwrap())).contains("fdbe::/64"));
        assert!(bad(|c| c.subnet6 = Some("fdbe::/121".parse().unwrap())).contains("8 to 120"));
        for net in ["ff02::/64", "fe80::/64", "::/64"] {
            let c = BridgeConfig { subnet6: Some(net.parse().unwrap()), ..config() };
            assert!(c.validate().unwrap_err().to_string().starts_with("subnet6:"), "{net}");
        }
        for (first, last) in [("10.64.3.1", "10.64.3.9"), ("10.64.3.9", "10.64.3.8"), ("10.64.3.9", "10.64.4.1")] {
            let c = BridgeConfig { range: Some((first.parse().unwrap(), last.parse().unwrap())), ..config() };
            assert!(c.validate().unwrap_err().to_string().starts_with("rangeStart"), "{first} {last}");
        }
    }

    #[test]
    fn both_addresses_have_the_same_place() {
        let c = config();
        assert_eq!(c.beside("10.64.3.255".parse().unwrap()).unwrap().to_string(), "fdbe:1:2::ff");
        assert_eq!(
            c.gateway_nets().iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["10.64.3.1/24", "fdbe:1:2::1/64"]
        );
        let c = BridgeConfig { prefer_ipv6: true, ..c };
        assert_eq!(c.gateway_nets()[0].to_string(), "fdbe:1:2::1/64");
    }

    #[test]
    fn every_subnet_comes_in_its_turn() {
        let all: std::collections::BTreeSet<_> = (0..SUBNETS).map(|turn| subnet_for(77, turn)).collect();
        assert_eq!(all.len(), 24 * 256);
        assert_eq!(subnet_for(77, 0), subnet_for(77, SUBNETS));
    }

    proptest! {
        #[test]
        fn default_subnets_are_good_ones(hash in any::<u32>(), turn in any::<u32>()) {
            let mut c = config();
            c.subnet = subnet_for(hash, turn);
            c.subnet6 = Some(subnet6_for(hash, turn.to_le_bytes()[0].into()));
            prop_assert!(c.validate().is_ok());
            let range: Ipv4Net = "10.64.0.0/11".parse().unwrap();
            prop_assert!(range.contains(&c.subnet));
            prop_assert!(c.subnet.network() < Ipv4Addr::new(10, 88, 0, 0));
            let unique_local: Ipv6Net = "fd00::/8".parse().unwrap();
            prop_assert!(unique_local.contains(&subnet6_for(hash, 3)));
        }
    }
}
