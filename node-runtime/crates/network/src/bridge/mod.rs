//! The built-in bridge network.
//!
//! One bridge, one subnet and one nftables table of each family per root of the daemon. A pod has one veth pair: one end on the bridge, the
//! other one is its `eth0`. A pod's address is leased durably before anything exists, and the lease says everything that
//! undoing needs. Must not: know the CRI, or a pod beyond its id and its ports.

mod config;
mod connect;
mod forwarding;
mod host;
mod lease;
mod pool;
mod ports;
mod repair;
mod run;
mod subnet;
mod sysctl;

pub use config::{BridgeConfig, subnet_for, subnet6_for};
pub use lease::{Attachment, Leases, PodNetwork};
pub use pool::PoolUsage;
pub use run::{Bridge, Reconciled};
