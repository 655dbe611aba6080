//! The cluster half: what is wanted of nodes, and how it gets there.
//!
//! Owns: the plan of a rollout ([`rollout`]). The controllers that carry plans out are not here yet.
//! Must not: be linked by anything of the node half.
#![forbid(unsafe_code)]

pub mod rollout;
