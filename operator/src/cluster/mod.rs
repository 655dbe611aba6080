//! What the operator knows of the cluster, and how it changes it.
//!
//! Owns: the watched objects ([`store`]), one consistent look at them ([`world`]), writes ([`writes`]), the lease ([`lease`]).
//! Must not: decide anything.
pub mod client;
pub mod lease;
mod refusals;
pub mod store;
pub mod world;
pub mod writes;

pub use lease::Leadership;
pub use store::Stores;
pub use world::{Broken, World};
pub use writes::Writes;
