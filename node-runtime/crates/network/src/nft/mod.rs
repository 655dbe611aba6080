//! nftables over netlink: an encoder for what the bridge network needs of nf_tables, the table itself, and what other tables
//! do with forwarded packets.
//!
//! Owns: one table in each family. Must not: execute `nft`, or change another table but as [`firewall`] says.
//! Numbers: linux/netfilter/nf_tables.h, linux/netfilter/nfnetlink.h, linux/netfilter.h.

mod expression;
pub(crate) mod firewall;
mod object;
mod socket;
mod table;

pub(crate) use firewall::ForwardDrop;
pub(crate) use socket::NftSocket;
pub(crate) use table::{Element, HostPort, TableSpec};

use std::fmt;
use std::net::IpAddr;

/// A family of addresses, with its number (`NFPROTO_IPV4`, `NFPROTO_IPV6`; those of `AF_INET` and `AF_INET6`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Family {
    /// IPv4.
    V4 = 2,
    /// IPv6.
    V6 = 10,
}

impl Family {
    /// The family of an address.
    pub(crate) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// As `nft` writes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }
}

/// A table of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TableName<'a> {
    /// Family.
    pub(crate) family: Family,
    /// Name.
    pub(crate) name: &'a str,
}

impl fmt::Display for TableName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family.name(), self.name)
    }
}
