//! Rollouts over simulated fleets: what must hold at every moment, and that they end.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

mod again;
mod back;
mod budget;
mod examples;
mod fleet;
mod gone;
mod held;
mod later;
mod policies;
mod properties;
mod staged;
mod unused;
