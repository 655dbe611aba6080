//! The network of pods.
//!
//! Owns: the built-in bridge network (addresses, routes, NAT, host ports, bandwidth) and the loopback interface of a pod's
//! network namespace, all of it over netlink. Must not: execute a program, touch an nftables table that is not its own (but
//! for the two rules of `nft/firewall.rs`), keep records itself (the engine brings the [`Leases`]).
#![forbid(unsafe_code)]

mod bandwidth;
mod bridge;
mod cidr;
mod conntrack;
mod netlink;
mod netns;
mod nft;

pub use bandwidth::Bandwidth;
pub use bridge::{
    Attachment, Bridge, BridgeConfig, Leases, PodNetwork, PoolUsage, Reconciled, subnet_for, subnet6_for,
};
pub use cidr::pod_cidr;
pub use netns::loopback_up;
pub use nft::firewall::{DropReason, ForwardDrop};
