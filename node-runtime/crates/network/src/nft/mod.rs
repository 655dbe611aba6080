//! nftables over netlink: an encoder for what the bridge network needs of nf_tables, and the table itself.
//!
//! Owns: one table. Must not: touch any other table, or execute `nft`.
//! Numbers: linux/netfilter/nf_tables.h, linux/netfilter/nfnetlink.h, linux/netfilter.h.

mod expression;
mod object;
mod table;

pub(crate) use table::{Element, HostPort, NftSocket, TableSpec};
