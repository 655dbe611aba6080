//! The engine's words to wire answers.
mod container;
mod event;
mod image;
mod metrics;
mod pod;
mod stats;

pub(crate) use container::{container, container_status};
pub(crate) use event::{containers_statuses, event};
pub(crate) use image::{filesystem_usage, image};
pub(crate) use metrics::{descriptors, pod_metrics};
pub(crate) use pod::{pod, pod_status};
pub(crate) use stats::{container_stats, pod_stats};

use berth_proto::cri as wire;
use serde_json::Value;
use std::collections::HashMap;

/// The map of a verbose answer: values are JSON texts (cri-contract 1.4).
pub(crate) fn info(value: &Value) -> HashMap<String, String> {
    HashMap::from([("info".to_owned(), value.to_string())])
}

pub(crate) fn u64_value(value: u64) -> Option<wire::UInt64Value> {
    Some(wire::UInt64Value { value })
}
