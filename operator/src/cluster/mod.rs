//! What the operator knows of the cluster, and how it changes it.
//!
//! Owns: the watched objects ([`store`]), one consistent look at them ([`world`]), writes ([`writes`]), the lease ([`lease`]), the API server's
//! clock ([`clock`]).
//! Must not: decide anything.
pub mod client;
pub mod clock;
pub mod lease;
mod refusals;
pub mod store;
pub mod world;
pub mod writes;

pub use clock::Clock;
pub use lease::Leadership;
pub use store::Stores;
pub use world::{Broken, Unknown, World};
pub use writes::Writes;
