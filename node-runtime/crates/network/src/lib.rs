//! The network of pods.
//!
//! Owns: the built-in bridge network (addresses, routes, NAT, host ports) and the loopback interface of a pod's network
//! namespace, all of it over netlink. Must not: execute a program, touch an nftables table that is not its own, keep
//! records itself (the engine brings the [`Leases`]).
#![forbid(unsafe_code)]

mod bridge;
mod conntrack;
mod netlink;
mod netns;
mod nft;

pub use bridge::{Attachment, Bridge, BridgeConfig, Leases, Reconciled, subnet_for};
pub use netns::loopback_up;
