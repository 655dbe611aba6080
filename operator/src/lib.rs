//! The cluster half: what is wanted of nodes, and how it gets there.
//!
//! Owns: the plan of a rollout ([`rollout`], pure), the controllers that carry it out ([`controllers`]), what they know of the cluster
//! ([`cluster`]), what is seen of them ([`observe`]), and what is asked before the release goes ([`uninstall`]).
//! Must not: be linked by anything of the node half. All state is in the API server's objects: any replica can go on at any time.
#![forbid(unsafe_code)]

pub mod cluster;
pub mod controllers;
pub mod observe;
pub mod rollout;
pub mod time;
pub mod uninstall;
