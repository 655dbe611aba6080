//! What is seen of the operator: metrics, probes, events. Labels are kinds, verbs and results, never names of objects.
mod http;
mod metrics;

pub use http::{Health, serve};
pub use metrics::Metrics;
