//! Taking a node over from another container runtime, and giving it back: what a kubelet's configuration says, what is to be done
//! about it, and the journal of what was done.
//!
//! Owns: reading command lines and configurations, planning ([`plan`]), the steps and their order ([`step`]), the journal's format and what it
//! means ([`journal`]). Must not: touch the node. Whoever executes a plan (`berth adopt`) brings the facts and does the steps.
#![forbid(unsafe_code)]

pub mod edit;
pub mod journal;
pub mod kubelet;
pub mod plan;
pub mod step;
mod yaml;

pub use plan::{Facts, Plan, Refusal};
pub use step::{Direction, Step};
pub use yaml::fields;
