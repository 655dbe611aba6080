//! Wire requests to the engine's words. Every refusal names the field as the wire calls it.
mod container;
mod filter;
mod pod;
mod resources;
mod security;
mod signal;

pub(crate) use container::container_config;
pub(crate) use filter::{container_filter, pod_filter, pod_stats_filter, stats_filter};
pub(crate) use pod::pod_config;
pub(crate) use resources::{resources, update};
pub(crate) use signal::{signal_number, signal_value};

use berth_model::{Error, Result};

/// Longest name, label key or label value in bytes; the kubelet's own are far below.
const MAX_TEXT: usize = 64 * 1024;

/// The value, or `InvalidArgument` naming the field.
pub(crate) fn required<T>(field: &str, value: Option<T>) -> Result<T> {
    value.ok_or_else(|| Error::invalid(field, "is required"))
}

/// A text that is there and not too long.
pub(crate) fn text(field: &str, value: String) -> Result<String> {
    if value.is_empty() {
        return Err(Error::invalid(field, "must not be empty"));
    }
    bounded(field, value)
}

/// A text that may be empty.
pub(crate) fn bounded(field: &str, value: String) -> Result<String> {
    if value.len() > MAX_TEXT {
        return Err(Error::invalid(field, format!("is {} bytes long, the limit is {MAX_TEXT}", value.len())));
    }
    if value.contains('\0') {
        return Err(Error::invalid(field, "has a NUL byte"));
    }
    Ok(value)
}

/// A single line: what goes into a file line by line may not bring lines of its own.
pub(crate) fn line(field: &str, value: String) -> Result<String> {
    if value.contains(['\n', '\r']) {
        return Err(Error::invalid(field, "must be a single line"));
    }
    bounded(field, value)
}

/// An enumeration's value by its number.
pub(crate) fn enumeration<E: TryFrom<i32>>(field: &str, number: i32) -> Result<E> {
    E::try_from(number).map_err(|_| Error::invalid(field, format!("{number} is not a value of it")))
}

/// A user or group id: 0 to 2^32 - 2 (CVE-2024-40635: larger ones must not become 0).
pub(crate) fn id(field: &str, value: i64) -> Result<u32> {
    match u32::try_from(value) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err(Error::invalid(field, format!("{value} is not an id; ids are 0 to {}", u32::MAX - 1))),
    }
}
