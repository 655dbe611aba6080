//! What others see of the agent: probes and series. Must not: decide anything.
mod http;
mod metrics;

pub use http::{Health, serve};
pub use metrics::Metrics;
