//! The network of pods.
//!
//! Owns: the built-in bridge network (addresses, routes, NAT, host ports, bandwidth) and the loopback interface of a pod's
//! network namespace, all of it over netlink; the CNI client, which executes plugins and nothing else; the choice between the
//! two. Must not: touch an nftables table that is not its own (but for the two rules of `nft/firewall.rs`).
#![forbid(unsafe_code)]

mod bandwidth;
mod bridge;
mod choice;
mod cidr;
mod cni;
mod conntrack;
mod mac;
mod netlink;
mod netns;
mod nft;

pub use bandwidth::Bandwidth;
pub use bridge::{
    Attachment, Bridge, BridgeConfig, Leases, PodNetwork, PoolUsage, Reconciled, subnet_for, subnet6_for,
};
pub use choice::{Choice, Networks};
pub use cidr::pod_cidr;
pub use cni::{CONF_LIST_FIELD, Cni, CniConfig, CniReport, PendingDelete, Tell, beside, check_template};
pub use ipnet::IpNet;
pub use mac::Mac;
pub use netns::loopback_up;
pub use nft::firewall::{DropReason, ForwardDrop};
