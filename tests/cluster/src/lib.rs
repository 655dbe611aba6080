//! A real Kubernetes around Berth: namespaces of its own for each node, the programs in them, and a runner of cases that share a node.
//!
//! Owns: nodes and control planes for tests, their start, their end, and the count of what is left over. Must not: share code with
//! the product (what it did is read from its clients' answers and from the kernel), skip a case, or write outside a node's directory.
#![forbid(unsafe_code)]
#![allow(clippy::panic, clippy::unwrap_used)] // Helpers of tests fail the case that called them.

pub mod cgroups;
pub mod cluster;
pub mod control_plane;
mod enter;
pub mod helm;
mod holder;
pub mod http;
pub mod images;
pub mod kubectl;
pub mod kubelet;
pub mod pki;
pub mod processes;
pub mod programs;
pub mod runtime;
pub mod script_kubelet;
pub mod service;
pub mod space;
pub mod standalone;
pub mod suite;
mod sysctls;
pub mod wait;

pub use enter::dispatch;
pub use wait::{Diagnose, wait_for};
