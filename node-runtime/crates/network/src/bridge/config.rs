//! What a bridge network is set up with.
use berth_model::{Error, ErrorKind, Result};
use ipnet::{Ipv4Net, Ipv6Net};
use std::net::Ipv4Addr;

/// Longest name of an interface (`IFNAMSIZ` less its NUL).
const NAME_MAX: usize = 15;
/// Longest name of an nftables table that we take; the kernel's own limit is 255.
const TABLE_MAX: usize = 64;
/// Smallest MTU of IPv4 (RFC 791), and the largest one that a veth takes.
const MTU: std::ops::RangeInclusive<u32> = 68..=65_535;
/// Longest prefixes are those that leave a pod an address beside the gateway's.
const PREFIX: std::ops::RangeInclusive<u8> = 8..=29;

/// A bridge network; name, subnet and table differ between roots of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeConfig {
    /// Name of the bridge, up to 15 characters of `[a-zA-Z0-9_-]`.
    pub bridge: String,
    /// Addresses of pods; the first one is the gateway's.
    pub subnet: Ipv4Net,
    /// Place for dual stack; refused until it works.
    pub ipv6: Option<Ipv6Net>,
    /// Name of the nftables table (family `ip`).
    pub table: String,
    /// Largest packet in bytes; `None` takes that of the default route's interface.
    pub mtu: Option<u32>,
}

impl BridgeConfig {
    /// Checks names and ranges. Errors: `InvalidArgument` naming the field.
    pub(super) fn validate(&self) -> Result<()> {
        name("bridge", &self.bridge, NAME_MAX)?;
        name("table", &self.table, TABLE_MAX)?;
        if !PREFIX.contains(&self.subnet.prefix_len()) {
            return Err(Error::invalid("subnet", format!("{}: the prefix must be 8 to 29 bits long", self.subnet)));
        }
        if self.subnet.trunc() != self.subnet {
            return Err(Error::invalid("subnet", format!("{}: did you mean {}?", self.subnet, self.subnet.trunc())));
        }
        if self.ipv6.is_some() {
            return Err(Error::new(ErrorKind::Unimplemented, "ipv6: the built-in network has only IPv4 yet"));
        }
        match self.mtu {
            Some(mtu) if !MTU.contains(&mtu) => Err(Error::invalid("mtu", format!("{mtu} is not within 68 to 65535"))),
            _ => Ok(()),
        }
    }

    /// The first address of the subnet.
    pub(super) fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.subnet.network().to_bits() + 1)
    }

    /// The gateway's address with the subnet's prefix, as the bridge has it.
    pub(super) fn gateway_net(&self) -> Ipv4Net {
        Ipv4Net::new_assert(self.gateway(), self.subnet.prefix_len())
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
    let [a, b, c, d] = address.octets();
    [0x02, 0xbe, a, b, c, d]
}

/// The default subnet of a root: a /24 within 10.64.0.0 to 10.87.255.255. That range keeps clear of what others take by
/// default (10.88.0.0/16 podman, 10.96.0.0/12 kubeadm's services, 10.244.0.0/16 flannel, 172.17.0.0/16 docker).
pub fn subnet_for(root_hash: u32) -> Ipv4Net {
    let [_, a, b, c] = root_hash.to_be_bytes();
    let second = 64 + (u16::from_be_bytes([a, b]) % 24).to_le_bytes()[0];
    Ipv4Net::new_assert(Ipv4Addr::new(10, second, c, 0), 24)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn config() -> BridgeConfig {
        BridgeConfig {
            bridge: "berth0".into(),
            subnet: "10.64.3.0/24".parse().unwrap(),
            ipv6: None,
            table: "berth_1".into(),
            mtu: None,
        }
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
        assert!(bad(|c| c.ipv6 = Some("fd00::/64".parse().unwrap())).starts_with("ipv6:"));
    }

    proptest! {
        #[test]
        fn default_subnets_are_good_ones(hash in any::<u32>()) {
            let mut c = config();
            c.subnet = subnet_for(hash);
            prop_assert!(c.validate().is_ok());
            let range: Ipv4Net = "10.64.0.0/11".parse().unwrap();
            prop_assert!(range.contains(&c.subnet));
            prop_assert!(c.subnet.network() < Ipv4Addr::new(10, 88, 0, 0));
        }
    }
}
